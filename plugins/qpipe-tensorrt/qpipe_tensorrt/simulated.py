"""The graph of an engine on the CPU, where there is no GPU and the target says so. Its outputs are `simulated`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpipe.errors import EngineError

if TYPE_CHECKING:
    from pathlib import Path

    from qpipe.plugins.backend import Tensors
    from qpipe.records.engine import Kind
    from qpipe.records.tensors import Signature


class SimulatedSession:
    """onnxruntime on the Q/DQ graph without graph optimization: each pair rounds, operators calculate in float."""

    def __init__(self, graph: Path, signature: Signature) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self._session: ort.InferenceSession | None = ort.InferenceSession(
                graph, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise EngineError(f"the graph does not run on the CPU: {' '.join(str(error).split())}") from error
        self._signature = signature

    @property
    def kind(self) -> Kind:
        """Outputs do not come from the target's hardware."""
        return "simulated"

    @property
    def signature(self) -> Signature:
        """Names, shapes and dtypes of the user's model."""
        return self._signature

    def run(self, inputs: Tensors) -> Tensors:
        """Outputs by name for one batch.

        Raises:
            EngineError: the session is closed.
        """
        if self._session is None:
            raise EngineError("the session is closed")
        names = [spec.name for spec in self._signature.outputs]
        return dict(zip(names, self._session.run(names, dict(inputs)), strict=True))

    def close(self) -> None:
        """Free the graph; twice is fine."""
        self._session = None
