"""Text to records: pipeline files, target files, and their messages. Light: no numpy, no onnx."""

from qpipe.config.base import without_bases
from qpipe.config.draft import draft_pipeline
from qpipe.config.gates import read_gates
from qpipe.config.pipeline import read_pipeline
from qpipe.config.schema import pipeline_schema
from qpipe.config.sources import model_name
from qpipe.config.targets import first_party_targets, read_target, read_targets, target_files

__all__ = [
    "draft_pipeline",
    "first_party_targets",
    "model_name",
    "pipeline_schema",
    "read_gates",
    "read_pipeline",
    "read_target",
    "read_targets",
    "target_files",
    "without_bases",
]
