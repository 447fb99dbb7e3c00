"""LoggedModels: one per engine, in our own pyfunc flavor, uploaded from the engine folder as it is."""

from __future__ import annotations

import platform
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from qpipe.plugins.packages import ABSENT, package_version
from qpipe.records.codec import encode
from qpipe.records.engine import Engine
from qpipe.records.target import Target
from qpipe.records.tensors import Dim, TensorSpec
from qpipe.tracking.experiment import Experiment
from qpipe.tracking.flavor import DESCRIPTION, Package
from qpipe.tracking.runs import MAKER

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Run
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema

ENGINE_TAG = "qpipe.engine"
PACKAGE = "data/package"
"""Where the model folder holds `package.json` and `engine/`."""
_PYTHON_ENV = "python: {python}\nbuild_dependencies: [pip]\ndependencies: [-r requirements.txt]\n"
_NOT_IN_NAMES = "/:.%\"'"


def log_engine(where: Experiment, run: Run, engine: Engine, target: Target | None) -> str:
    """The id of the READY LoggedModel of an engine: found by digest in the experiment, or made and uploaded."""
    from mlflow.entities import LoggedModelOutput

    model = find_model(where, run.info.experiment_id, engine.digest) or _create(where, run, engine)
    model_id = str(model.model_id)
    if str(model.status) != "READY":  # new, or left PENDING by a run that was killed
        _upload(where, run, model, engine, target)
        where.client.finalize_logged_model(model_id, "READY")
    outputs = run.outputs.model_outputs if run.outputs else []
    if model_id not in [output.model_id for output in outputs]:
        where.client.log_outputs(run.info.run_id, [LoggedModelOutput(model_id, step=0)])
    return model_id


def find_model(where: Experiment, experiment: str, engine_digest: str) -> LoggedModel | None:
    """The oldest LoggedModel of an engine, READY ones first; None where there is none."""
    return next(iter(_find_models(where, experiment, engine_digest)), None)


def _find_models(where: Experiment, experiment: str, engine_digest: str) -> list[LoggedModel]:
    found = where.client.search_logged_models([experiment], filter_string=f"tags.`{ENGINE_TAG}` = '{engine_digest}'")
    # The server's own filter on status returns nothing, so it is looked at here.
    return sorted(found, key=lambda model: (str(model.status) != "READY", model.creation_timestamp, model.model_id))


def _create(where: Experiment, run: Run, engine: Engine) -> LoggedModel:
    maker = uuid.uuid4().hex
    name = "".join("-" if char in _NOT_IN_NAMES else char for char in f"{engine.model}-{engine.recipe}-{engine.target}")
    made = where.client.create_logged_model(
        run.info.experiment_id,
        name=name,
        source_run_id=run.info.run_id,
        tags={ENGINE_TAG: engine.digest, "qpipe.recipe": engine.recipe, "qpipe.target": engine.target, MAKER: maker},
        params={
            "engine": engine.digest,
            "model": engine.model,
            "model_digest": engine.model_digest,
            "recipe": engine.recipe,
            "target": engine.target,
            "backend": engine.backend,
            **dict(engine.toolchain),
        },
        model_type="qpipe-engine",
    )
    chosen, *doubles = _find_models(where, run.info.experiment_id, engine.digest) or [made]
    for double in doubles:  # a retried request made them
        if double.tags.get(MAKER) == maker:
            where.client.delete_logged_model(double.model_id)
    return chosen


def _upload(where: Experiment, run: Run, model: LoggedModel, engine: Engine, target: Target | None) -> None:
    """The engine's files go straight from its folder; only MLmodel and its few small companions are written anew."""
    model_id = str(model.model_id)
    with tempfile.TemporaryDirectory(prefix="qpipe-") as folder:
        shell = Path(folder) / "model"
        write_shell(shell, engine, target, _blank(model, run))
        where.client.log_model_artifacts(model_id, str(shell))
    where.client.log_model_artifacts(model_id, str(engine.path), artifact_path=f"{PACKAGE}/engine")


def _blank(model: LoggedModel, run: Run) -> Model:
    from mlflow.models import Model

    return Model(
        artifact_path=model.artifact_location,
        model_uuid=model.model_id,
        model_id=model.model_id,
        run_id=run.info.run_id,
    )


def write_shell(folder: Path, engine: Engine, target: Target | None, model: Model) -> None:
    """MLmodel, environment files and `package.json` of an engine, without the engine's own files."""
    import mlflow.pyfunc

    package = folder / PACKAGE
    package.mkdir(parents=True)
    described = Package(engine=engine.digest, target=target or _bare_target(engine))
    (package / DESCRIPTION).write_text(encode(described), encoding="utf-8")
    (folder / "requirements.txt").write_text("\n".join(requirements(engine)) + "\n", encoding="utf-8")
    (folder / "python_env.yaml").write_text(_PYTHON_ENV.format(python=platform.python_version()), encoding="utf-8")
    model.signature = mlflow_signature(engine)
    model.model_size_bytes = engine.size_bytes
    model.add_flavor("qpipe", engine=engine.digest, backend=engine.backend, target=engine.target, data=PACKAGE)
    mlflow.pyfunc.add_to_model(model, loader_module="qpipe.tracking.flavor", data=PACKAGE, python_env="python_env.yaml")
    model.save(str(folder / "MLmodel"))


def _bare_target(engine: Engine) -> Target:
    return Target(name=engine.target, backend=engine.backend)


def mlflow_signature(engine: Engine) -> ModelSignature:
    """The engine's border as MLflow TensorSpecs; free dimensions are −1."""
    from mlflow.models import ModelSignature

    return ModelSignature(inputs=_schema(engine.signature.inputs), outputs=_schema(engine.signature.outputs))


def _schema(specs: tuple[TensorSpec, ...]) -> Schema:
    import numpy as np
    from mlflow.types import Schema
    from mlflow.types import TensorSpec as MlflowTensor

    return Schema([MlflowTensor(np.dtype(spec.dtype), _shape(spec.shape), name=spec.name) for spec in specs])


def _shape(dims: tuple[Dim, ...]) -> tuple[int, ...]:
    return tuple(dim if isinstance(dim, int) else -1 for dim in dims)


def requirements(engine: Engine) -> tuple[str, ...]:
    """What an environment needs to load the engine, pinned; never inferred (that costs seconds).

    What `requires` says comes first, then the toolchain's own packages: the engine was measured with these versions.
    """
    needs = [need.value for need in engine.requires if need.what == "package"]
    asked = [need if set("<>=~!") & set(need) else _pin(need) for need in needs]
    toolchain = [f"{name}=={version}" for name, version in engine.toolchain if _pin(name) == f"{name}=={version}"]
    ours = [_pin(name) for name in ("qpipe-core", f"qpipe-{engine.backend}", "mlflow")]
    return tuple(dict.fromkeys(line for line in (*asked, *toolchain, *ours) if line))


def _pin(name: str) -> str:
    """`name==version` where it is installed, else nothing: a backend need not be a distribution of that name."""
    version = package_version(name)
    return "" if version == ABSENT else f"{name}=={version}"
