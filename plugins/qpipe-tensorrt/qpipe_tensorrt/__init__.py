"""TensorRT for qpipe: engines for NVIDIA GPUs, built by NVIDIA's own builder."""

__version__ = "0.1.0"
