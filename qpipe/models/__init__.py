"""ONNX files to digests and records: the only room that reads a model as the user gave it."""

from qpipe.models.digest import confirm_onnx, digest_onnx
from qpipe.models.outputs import output_operators
from qpipe.models.reading import read_model

__all__ = ["confirm_onnx", "digest_onnx", "output_operators", "read_model"]
