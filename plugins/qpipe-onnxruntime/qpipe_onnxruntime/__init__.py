"""ONNX Runtime on the CPU as a qpipe backend."""
