# ruff: noqa: ARG002 (the protocol names what this backend needs not)
"""A plugin whose engines are one matrix: outputs are inputs times it."""

import numpy as np

from qpipe.errors import EngineError
from qpipe.plugins.hookspecs import hookimpl
from qpipe.records.engine import Availability, Built, Ready
from qpipe.records.scheme import Scheme


class MatrixSession:
    kind = "measured"

    def __init__(self, engine, scale):
        self.signature = engine.signature
        self.matrix = np.load(engine.main_file) * np.float32(scale)

    def run(self, inputs):
        return {"logits": inputs["image"] @ self.matrix}

    def close(self):
        self.matrix = None


class MatrixBackend:
    name = "stand-in"

    def check(self, target):
        return Availability(build=Ready(), run=Ready())

    def scheme(self, target):
        return Scheme(name="none")

    def build(self, prepared, target, workdir, progress):
        return Built(files=(), placement=None)

    def open(self, engine, target):
        if target.name != engine.target:
            raise EngineError("wrong target")
        return MatrixSession(engine, target.options.get("scale", 1.0))


@hookimpl
def qpipe_backends():
    return [MatrixBackend()]
