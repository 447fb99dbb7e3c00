"""The code of a portable engine. MLflow copies this file into the model; it imports nothing of qpipe."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray


class PortableEngine(PythonModel):
    """An ONNX engine of qpipe on ONNX Runtime's CPU provider, one thread."""

    _skip_type_hint_validation = True  # the signature of the model says it all; MLflow would warn at every load

    def load_context(self, context: PythonModelContext) -> None:
        """Verify every file and the CPU, then open the engine."""
        import onnxruntime

        folder = Path(context.artifacts["engine"])
        manifest = json.loads((folder / "engine.json").read_text(encoding="utf-8"))
        for file in manifest["files"]:
            if hashlib.sha256((folder / file["name"]).read_bytes()).hexdigest() != file["sha256"]:
                raise RuntimeError(f"{folder / file['name']} was changed after it was built: fetch the engine again")
        _check_cpu([need["value"] for need in manifest["requires"] if need["what"] == "isa"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        # It would quantize what the recipe keeps in float.
        options.add_session_config_entry("optimization.disable_specified_optimizers", "WeightBiasQuantization")
        main = str(folder / manifest["files"][0]["name"])
        self.session = onnxruntime.InferenceSession(main, options, providers=["CPUExecutionProvider"])

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002  (MLflow gives it)
        model_input: Mapping[str, NDArray[np.generic]],
        params: Mapping[str, object] | None = None,  # noqa: ARG002
    ) -> dict[str, NDArray[np.generic]]:
        """Outputs by the model's own names; MLflow has cast the inputs by the signature."""
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, dict(model_input)), strict=True))


def _check_cpu(flags: list[str]) -> None:
    words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split()) if flags else set()
    missing = [flag for flag in flags if flag not in words]
    if missing:
        raise RuntimeError(f"this CPU lacks {', '.join(missing)}, which the engine requires")


set_model(PortableEngine())
