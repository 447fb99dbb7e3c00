"""What one computation gives is computed once, and large inputs are run few at a time."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qpipe.data import open_role
from qpipe.errors import ModelError
from qpipe.execute.work.answering import run_once
from qpipe.execute.work.outputs import are_small
from qpipe.execute.work.passes import count_batches, light_rows, pass_batches
from qpipe.execute.work.reference import SPACE, reference_key, reference_outputs
from qpipe.measure.ort import computation, cpu_options
from qpipe.measure.reference import reference_computation
from qpipe.models import read_model
from qpipe.records.data import DataSpec, RoleSpec
from qpipe.records.tensors import Signature, TensorSpec
from qpipe.store import Store
from qpipe.testing.progress import Silent


def signature(row, batch="N", outputs=(("N", 3),)):
    return Signature(
        inputs=(TensorSpec(name="x", dtype="float32", shape=(batch, *row)),),
        outputs=tuple(
            TensorSpec(name=f"y{number}", dtype="float32", shape=shape) for number, shape in enumerate(outputs)
        ),
    )


def gate(folder, row, count, sig):
    spec = RoleSpec(role="gate", npz=folder / "gate.npz")
    np.savez(folder / "gate.npz", x=np.zeros((count, *row), np.float32))
    return open_role(DataSpec(inputs=(), label=None, preprocess=(), roles=(spec,)), "gate", sig)


@pytest.mark.parametrize(
    ("row", "batch", "rows"),
    [
        ((3, 32, 32), "N", 16),  # 12 KiB: the pipeline's batch stays
        ((3, 224, 224), "N", 2),
        ((3, 512, 512), "N", 1),  # one row is more than a run should have
        ((3, 224, 224), 8, 8),  # the model's own batch stays
    ],
)
def test_rows_at_once(tmp_path, row, batch, rows):
    role = gate(tmp_path, row, 9, signature(row, batch))
    assert light_rows(role) == rows
    found = [len(one["x"]) for one in pass_batches(role, None)]
    assert (max(found), sum(found), len(found)) == (min(rows, 9), 9, count_batches(role))


@pytest.mark.parametrize(
    ("outputs", "rows", "small"),
    [
        ([("N", 1000)], 4000, True),
        ([("N", 1000)], 50_000, False),
        ([("N", "length")], 4, False),
        ([()], 4, False),
        ([("N", 10), ("N", 21, 512, 512)], 10, False),
    ],
)
def test_which_outputs_are_worth_keeping(outputs, rows, small):
    assert are_small(signature((4,), outputs=outputs), rows) == small


class Counting:
    """A session that says what it computes, and counts its runs."""

    def __init__(self, sig, computes):
        self.signature, self.computes, self.runs = sig, computes, 0

    def run(self, inputs):
        self.runs += 1
        return {"y0": np.full((len(inputs["x"]), 3), self.runs, np.float32)}


@pytest.mark.parametrize(
    ("other", "runs"),
    [
        (("the same", "this", ""), 0),
        (("another", "this", ""), 1),
        (("the same", "another", ""), 1),
        (("", "this", ""), 1),
        (("the same", "this", "-fresh"), 1),
    ],
)
def test_two_cells_that_compute_the_same_run_once(tmp_path, network, other, runs):
    (computes, device, fresh), sig = other, signature((4,))
    role = gate(tmp_path, (4,), 5, sig)

    ask = asking(tmp_path, network, role)
    first, second = Counting(sig, "the same"), Counting(sig, computes)
    wanted = ask(first, "this", "")
    assert np.array_equal(ask(second, device, fresh), wanted)
    assert (first.runs, second.runs) == (1, runs)


def asking(folder, network, role, progress=None):
    """Asks a session on a device for the outputs of a role, with one store for all."""

    def ask(session, device="this", fresh="", *, role=role, size=None):
        measure = SimpleNamespace(ingredients=(SimpleNamespace(name="device", value=device),))
        cell = SimpleNamespace(model=network, measure=measure)
        job = SimpleNamespace(fresh=fresh)
        bench = SimpleNamespace(cell=cell, job=job, store=Store(folder / "store"), progress=progress or Silent())
        return run_once(bench, session, role, size).tensors["y0"]

    return ask


def test_other_rows_another_batch_or_other_casts_are_run_for_themselves(tmp_path, network):
    role = gate(tmp_path, (4,), 5, signature((4,)))
    (tmp_path / "other").mkdir()
    ask, other = asking(tmp_path, network, role), gate(tmp_path / "other", (4,), 6, signature((4,)))
    double = Signature(inputs=(TensorSpec(name="x", dtype="float64", shape=("N", 4)),), outputs=signature((4,)).outputs)
    for session, asked in (
        (Counting(signature((4,)), "the same"), {}),
        (Counting(signature((4,)), "the same"), {"size": 1}),
        (Counting(signature((4,)), "the same"), {"size": 2}),
        (Counting(signature((4,)), "the same"), {"role": other}),
        (Counting(double, "the same"), {}),
    ):
        ask(session, **asked)
        assert session.runs, asked
        before = session.runs
        ask(session, **asked)
        assert session.runs == before


@pytest.fixture
def network(tmp_path):
    import onnx
    from onnx import parser

    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[N,4] x) => (float[N,4] y0) { y0 = Relu(x) }'
    onnx.save(parser.parse_model(text), tmp_path / "net.onnx")
    return read_model(tmp_path / "net.onnx", name="net", origin="here")


def test_what_a_changed_model_gives_is_not_kept_for_the_one_that_was_planned(tmp_path):
    def write(bias):
        nodes = [helper.make_node("Add", ["x", "b"], ["y0"])]
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3]) for name in ("x", "y0")]
        graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(np.float32([bias]), "b")])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(model, tmp_path / "m.onnx")
        return read_model(tmp_path / "m.onnx", name="m", origin="")

    store, role = Store(tmp_path / "store"), gate(tmp_path, (3,), 4, signature((3,)))
    planned, now = write(1), write(2)
    with pytest.raises(ModelError, match="changed after the run was planned"):
        reference_outputs(store, planned, role, Silent())
    assert store.recall(SPACE, reference_key(planned.digest, role.digest)) is None
    assert reference_outputs(store, now, role, Silent()).tensors["y0"].max() == 2


@pytest.mark.parametrize("part", ["model", "rows", "batch", "onnxruntime", "code"])
def test_what_the_float_model_gives_is_named_by_all_that_decides_it(monkeypatch, part):
    before = reference_key("model", "rows")
    if part == "onnxruntime":
        monkeypatch.setattr("qpipe.execute.work.reference.package_version", lambda _: "0.1")
    if part == "code":
        monkeypatch.setattr("qpipe.execute.work.reference.source_digest", lambda *_: "other")
    changed = {"model": ("other", "rows"), "rows": ("model", "other"), "batch": ("model", "rows", 1)}
    assert reference_key(*changed.get(part, ("model", "rows"))) != before


class Batches(Silent):
    """Progress that counts batches."""

    done = 0

    def advance(self, amount=1):
        self.done += amount


def test_the_float_model_is_run_in_the_batch_that_is_asked_for_and_what_it_gave_is_kept(tmp_path, network):
    role, store = gate(tmp_path, (4,), 5, signature((4,))), Store(tmp_path / "store")
    for size, batches in ((None, 1), (2, 3), (1, 5)):
        progress = Batches()
        found = reference_outputs(store, network, role, progress, size)
        assert progress.done == batches
        again = reference_outputs(store, network, role, progress, size)
        assert (progress.done, again.rows, again.seconds) == (batches, 5, found.seconds)
        assert found.seconds > 0


def test_an_engine_that_computes_what_the_float_model_does_shares_its_outputs_of_that_batch(tmp_path, network):
    session = Counting(signature((4,)), reference_computation(network.file))
    role, progress = gate(tmp_path, (4,), 5, signature((4,))), Batches()
    asking(tmp_path, network, role, progress)(session, size=2)
    assert (session.runs, progress.done) == (0, 3)


def test_large_outputs_are_computed_again(tmp_path, network, monkeypatch):
    monkeypatch.setattr("qpipe.execute.work.outputs.SMALL_BYTES", 5 * 3 * 4 - 1)
    ask = asking(tmp_path, network, gate(tmp_path, (4,), 5, signature((4,))))
    session = Counting(signature((4,)), "the same")
    assert np.array_equal(ask(session) + 1, ask(session))


def test_a_computation_is_named_by_bytes_runtime_threads_and_level(tmp_path, network, monkeypatch):
    import onnxruntime

    names = [reference_computation(network.file), reference_computation(network.file, threads=2)]
    options = cpu_options(1)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    names.append(computation(names[0].split()[0], options))
    names.append(computation("other", cpu_options(1)))
    monkeypatch.setattr(onnxruntime, "__version__", "0.1")
    names.append(reference_computation(network.file))
    assert len({*names}) == 5
    larger = replace(network.file, size_bytes=network.file.size_bytes + 1)  # with data in another file
    assert reference_computation(larger) == ""
