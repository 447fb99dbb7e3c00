"""Bad input: one clear line with place and remedy, the documented code, and nothing half-written."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

GIVEN = {"small.onnx", "small.yaml", "calibration.npz", "search.npz", "gate.npz"}


@pytest.fixture
def bare(tmp_path, small) -> Path:
    """Model and rows, and no database: what is refused before work must not make one."""
    folder = tmp_path / "bare"
    shutil.copytree(small, folder)
    return folder


def data(**changes: object) -> dict[str, object]:
    document = {
        "label": "label",
        "calibration": {"npz": "calibration.npz"},
        "search": {"npz": "search.npz"},
        "gate": {"npz": "gate.npz"},
        **changes,
    }
    return {key: value for key, value in document.items() if value is not None}


def model(change):
    """The pipeline, with the model changed."""

    def spoil(folder: Path) -> dict[str, object]:
        proto = onnx.load(folder / "small.onnx")
        change(proto)
        onnx.save(proto, folder / "small.onnx")
        return {}

    return spoil


def custom(proto: onnx.ModelProto) -> None:
    proto.graph.node[1].domain = "acme"
    proto.opset_import.append(helper.make_opsetid("acme", 1))


def data_bytes(name: str, change):
    def spoil(folder: Path) -> dict[str, object]:
        path = folder / name
        path.write_bytes(change(path.read_bytes()))
        return {}

    return spoil


def rows(role: str = "gate", **columns: object):
    """The pipeline, with columns of a role changed; a function is given the old values."""

    def spoil(folder: Path) -> dict[str, object]:
        kept = dict(np.load(folder / f"{role}.npz"))
        for name, change in columns.items():
            kept[name] = change(kept[name]) if callable(change) else change
        np.savez(folder / f"{role}.npz", **kept)
        return {}

    return spoil


def at(array: np.ndarray, place: tuple[int, ...], value: float) -> np.ndarray:
    array = array.copy()
    array[place] = value
    return array


def pipeline(**changes: object):
    return lambda _: changes


def overlapping(folder: Path) -> dict[str, object]:
    shutil.copy(folder / "gate.npz", folder / "search.npz")
    return {}


def without(name: str):
    def spoil(folder: Path) -> dict[str, object]:
        (folder / name).unlink()
        return {}

    return spoil


def with_file(name: str):
    def spoil(folder: Path) -> dict[str, object]:
        (folder / name).write_text("")
        return {}

    return spoil


CASES = {
    "missing model": (
        pipeline(model={"path": "smal.onnx"}),
        "smal.onnx: no such model file; did you mean 'small.onnx'?",
    ),
    "truncated model": (data_bytes("small.onnx", lambda b: b[: len(b) // 2]), "small.onnx is not a whole ONNX file"),
    "no ONNX": (data_bytes("small.onnx", lambda _: b"no model at all\n" * 9), "small.onnx is not a whole ONNX file"),
    "empty model": (data_bytes("small.onnx", lambda _: b""), "small.onnx is empty"),
    "unknown opset": (model(lambda p: setattr(p.opset_import[0], "version", 99)), "uses opset 99"),
    "format that the runtime lacks": (model(lambda p: setattr(p, "ir_version", 99)), "IR version: 99"),
    "unknown operator": (
        model(lambda p: setattr(p.graph.node[1], "op_type", "Relux")),
        "'relu1' has the operator 'Relux', which ONNX opset 17 lacks; did you mean 'Relu'?",
    ),
    "custom operator": (model(custom), "needs custom operators: acme::Relu"),
    "broken graph": (model(lambda p: p.graph.node[0].input.__setitem__(0, "imagee")), "Node input 'imagee' is not"),
    "wrong input name": (
        pipeline(data=data(inputs={"image": "imagee"})),
        "column 'image' goes to 'imagee', no input of the model; did you mean 'image'?",
    ),
    "wrong column": (pipeline(data=data(inputs={"imag": "image"})), "no column 'imag'; did you mean 'image'?"),
    "wrong shape": (rows(image=np.zeros((400, 1, 9, 8), np.float32)), "gate.npz): column 'image' has shape"),
    "wrong dtype": (rows(image=lambda a: a.astype(np.float64)), "gate.npz): column 'image' is float64"),
    "label out of range": (rows(label=lambda a: at(a, (7,), 3)), "gate.npz): label 3 of row 7 is out of range"),
    "negative label": (rows(label=lambda a: at(a, (7,), -1)), "gate.npz): label -1 of row 7 is out of range"),
    "labels that are text": (rows(label=np.array(["cat"] * 400)), "gate.npz): labels are <U3"),
    "one-hot labels": (rows(label=np.zeros((400, 3), np.int64)), "gate.npz): labels have the shape [400, 3]"),
    "NaN in gate": (rows(image=lambda a: at(a, (17, 0, 3, 3), np.nan)), "gate.npz): column 'image' has NaN at row 17"),
    "infinity in calibration": (
        rows("calibration", image=lambda a: at(a, (3, 0, 0, 0), np.inf)),
        "calibration.npz): column 'image' has infinity at row 3",
    ),
    "pickled column": (rows(label=np.array([{}] * 400, dtype=object)), "holds pickled Python objects"),
    "unknown slice": (
        pipeline(data=data(gate={"npz": "gate.npz", "slices": ["sourc"]})),
        "no slice column 'sourc'; did you mean 'source'?",
    ),
    "0 calibration samples": (
        pipeline(data=data(calibration={"npz": "calibration.npz", "samples": 0})),
        "small.yaml:9: data.calibration.samples: should be greater than or equal to 1, found 0",
    ),
    "0 calibration rows": (
        rows("calibration", image=lambda a: a[:0], label=lambda a: a[:0], source=lambda a: a[:0]),
        "calibration.npz) has 0 rows",
    ),
    "no calibration": (pipeline(data=data(calibration=None)), "recipe 'int8' needs data.calibration"),
    "overlap": (overlapping, "400 of 400 search rows stand in the gate data too"),
    "missing rows": (without("gate.npz"), "gate.npz: no such data file"),
    "truncated rows": (data_bytes("gate.npz", lambda b: b[:5000]), "gate.npz is not a whole .npz file"),
    "unknown target": (pipeline(targets=["cpu-lokal"]), "unknown target 'cpu-lokal'; did you mean 'cpu-local'?"),
    "unknown recipe": (pipeline(recipes=["int-8"]), "unknown recipe 'int-8'; did you mean 'int8'?"),
    "unknown gate": (pipeline(gates={"qualiti": {"margin": 0.1}}), "unknown gate 'qualiti'; did you mean 'quality'?"),
    "unknown key": (
        pipeline(gates={"quality": {"margn": 0.1}}),
        "small.yaml:19: unknown key 'margn' in gates.quality; did you mean 'margin'?",
    ),
    "unknown metric": (pipeline(task=None, metric="acuracy"), "unknown metric 'acuracy'; did you mean 'accuracy'?"),
    "margin too large": (pipeline(gates={"quality": {"margin": 1.5}}), "margin is 1.5, but accuracy only spans 0 to 1"),
    "margin below 0": (pipeline(gates={"quality": {"margin": -0.1}}), "margin is -0.1, it must be above 0"),
    "no module": (
        pipeline(task=None, metric={"fn": "nomod:score"}, gates={"quality": {"margin": 0.1}}),
        "nomod:score: no module 'nomod'",
    ),
    "file store": (pipeline(tracking={"uri": "mlruns"}), "tracking uri 'mlruns' is MLflow's file store"),
    "nobody listens": (pipeline(tracking={"uri": "http://127.0.0.1:9"}), "no MLflow server at http://127.0.0.1:9"),
    "unknown host": (pipeline(tracking={"uri": "http://no.such.host.invalid"}), "no MLflow server at http://no.such"),
    "file where the store should be": (with_file(".qpipe"), "cannot write in the store"),
    "folder where the database should be": (
        lambda folder: (folder / "mlflow.db").mkdir() or {},
        "mlflow.db",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_found_before_work(case, bare, make, qpipe_in):
    spoil, words = CASES[case]
    make.pipeline(bare, **spoil(bare))
    before = snapshot(bare)
    began = time.monotonic()
    said = qpipe_in(bare, "run", "small.yaml", "--no-profile")
    assert said.code == 2, said.err + said.out
    assert time.monotonic() - began < 10
    assert said.out == ""
    first, *rest = said.err.splitlines()
    assert first.startswith("error: ")
    assert words in first
    assert all(line.startswith("hint: ") for line in rest[:1])
    assert "Traceback" not in said.err
    assert snapshot(bare) == before


def snapshot(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize("case", ["unknown key", "label out of range", "nobody listens", "broken graph"])
def test_as_json_it_is_the_error_object(case, bare, make, qpipe_in):
    spoil, words = CASES[case]
    make.pipeline(bare, **spoil(bare))
    said = qpipe_in(bare, "run", "small.yaml", "--no-profile", "--json")
    assert said.code == 2
    error = json.loads(said.out)["error"]
    assert words in error["message"]
    assert (set(error), error["code"]) == ({"message", "hint", "code"}, 2)


def test_an_empty_slice_is_named(bare, make, qpipe_in):
    rows(source=np.array(["a", ""] * 200))(bare)
    make.pipeline(bare, data=data(gate={"npz": "gate.npz", "slices": ["source"]}))
    said = qpipe_in(bare, "run", "small.yaml")
    assert said.code == 2
    assert "gate.npz): column 'source' is empty at row 1" in said.err


def test_a_target_that_is_not_this_machine(place, make, qpipe_in):
    """Its engine is built and not run: exit 5 with the reason, while the other cell is judged and promoted."""
    import platform

    away = {"x86_64": "cpu-arm64", "aarch64": "cpu-x86-avx2"}[platform.machine()]
    make.pipeline(place, targets=[away, "cpu-local"])
    said = qpipe_in(place, "run", "small.yaml", "--no-profile", "--json")
    assert said.code == 5
    cell = said.cell(f"int8/{away}")
    assert (cell["status"], cell["verdict"]) == ("unavailable", "INCONCLUSIVE")
    assert platform.machine() in cell["reason"]
    assert cell["hint"]
    assert cell["engine"]["size_bytes"] > 0
    assert said.cell("int8/cpu-local")["verdict"] == "PASS"
    assert [one["model"] for one in said.json["promoted"]] == ["small-cpu-local"]


def test_without_a_required_gate_nothing_passes(place, make, qpipe_in):
    make.pipeline(place, gates={"quality": {"margin": 0.05, "required": False}})
    said = qpipe_in(place, "run", "small.yaml", "--no-profile", "--offline", "--json")
    assert said.code == 4
    assert any("no required gate judges small/int8/cpu-local" in warning for warning in said.json["warnings"])


def test_a_read_only_working_folder(bare, make, tmp_path):
    """As a real process in a namespace of its own, where the folder is read-only even for root."""
    import subprocess
    import sys

    make.pipeline(bare)
    mount = f"mount --bind {bare} {bare} && mount -o remount,bind,ro {bare}"
    script = f"{mount} && cd {bare} && exec {sys.executable} -m qpipe run small.yaml"
    probe = subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False)
    if probe.returncode != 0:
        pytest.skip("this machine allows no mount namespaces")
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, check=False)
    if "mount:" in done.stderr:
        pytest.skip(f"no bind mounts here: {done.stderr}")
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: cannot write in the store")
    assert "Read-only file system" in done.stderr
    assert snapshot(bare).keys() == GIVEN


def test_a_run_of_the_float_model_alone_judges_nothing(place, make, qpipe_in):
    make.pipeline(place, recipes=["none"])
    said = qpipe_in(place, "run", "small.yaml", "--no-profile", "--offline", "--json")
    assert said.code == 4
    assert "only float models ran: there was nothing to judge" in said.json["warnings"]
