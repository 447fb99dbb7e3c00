"""OpenVINO on x86-64 CPUs as a qpipe backend."""
