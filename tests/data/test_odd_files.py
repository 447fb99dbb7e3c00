"""Files that are broken, hostile, or not what somebody thought they are."""

import io
import os
import warnings
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from qpipe.data import check_overlap, open_role, role_digest, sealed
from qpipe.errors import DataError
from qpipe.records.data import DataSpec, Preprocess, RoleSpec
from qpipe.records.tensors import Signature, TensorSpec

VECTOR = Signature(
    inputs=(TensorSpec(name="x", dtype="float32", shape=("N", 4)),),
    outputs=(TensorSpec(name="y", dtype="float32", shape=("N", 3)),),
)


def data(path, *, scale=None, **fields):
    steps = () if scale is None else (Preprocess(column="x", scale=scale),)
    return DataSpec(
        inputs=(), label="label", preprocess=steps, roles=(RoleSpec(role="gate", npz=path, **fields),), batch=4
    )


def columns(rows=10, **more):
    return {"x": np.arange(rows * 4, dtype=np.float32).reshape(rows, 4), "label": np.arange(rows) % 3, **more}


def save(tmp_path, **more):
    np.savez(tmp_path / "gate.npz", **columns(**more))
    return tmp_path / "gate.npz"


def packed(tmp_path, *members):
    """An archive of these (name, bytes), whatever they are."""
    with zipfile.ZipFile(tmp_path / "gate.npz", "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # zipfile's own, on two members of one name
        for name, content in members:
            archive.writestr(f"{name}.npy", content)
    return tmp_path / "gate.npz"


def array(values):
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def header(*shape, dtype="<f4"):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def folder(tmp_path):
    return tmp_path


def pipe(tmp_path):
    os.mkfifo(tmp_path / "gate.npz")
    return tmp_path / "gate.npz"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (folder, "is a folder, not an .npz file"),
        (pipe, "is no regular file"),
        (lambda tmp_path: tmp_path / "gate.npz" / "more.npz", "no such data file"),
        (lambda tmp_path: tmp_path / ("a" * 300 + ".npz"), "cannot be read: File name too long"),
        (lambda tmp_path: tmp_path / "s3://bucket/gate.npz", "an address is no data file"),
        (lambda _: __import__("pathlib").Path("/proc/self/mem"), "cannot be read: Input/output error"),
    ],
    ids=["folder", "pipe", "missing", "long-name", "address", "io-error"],
)
def test_what_is_no_file(tmp_path, make, message):
    with pytest.raises(DataError, match=message):
        role_digest(data(make(tmp_path)), "gate")


def test_a_link_to_itself_cannot_be_read(tmp_path):
    (tmp_path / "gate.npz").symlink_to("gate.npz")
    with pytest.raises(DataError, match="cannot be read: Too many levels of symbolic links"):
        open_role(data(tmp_path / "gate.npz"), "gate", VECTOR)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("x", header(10**12, 4)), ("label", header(10**12, dtype="<i8"))], "column 'x' is damaged .its header says"),
        ([("x", header(10**30, 4)), ("label", header(10**30, dtype="<i8"))], "column 'x' is damaged .its header says"),
        ([("x", header(-5, 4)), ("label", header(-5, dtype="<i8"))], "column 'x' is damaged .its header says"),
        ([("x", array(columns()["x"])), ("spare", header(10, 10**13))], "column 'spare' is damaged .its header says"),
        ([("x", array(columns()["x"])), ("x", array(columns(11)["x"]))], "holds two columns 'x'"),
    ],
    ids=["terabytes", "overflow", "negative", "unused", "twice"],
)
def test_headers_that_promise_too_much(tmp_path, members, message):
    with pytest.raises(DataError, match=message):
        open_role(data(packed(tmp_path, *members)), "gate", VECTOR)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (np.array([b"\xff", b"a"] * 5), "is bytes8, which names no slice or group"),
        (np.zeros(10, "V4"), "is void32, which names no slice or group"),
        (np.ones(10, np.complex64), "is complex64, which names no slice or group"),
        (np.array(["2026-01-01", "NaT"] * 5, "M8[D]"), "column 's' is empty at row 1"),
        (np.array([b"a", b" "] * 5), "column 's' is empty at row 1"),
        (np.ones((10, 2)), "has rank 2"),
    ],
)
@pytest.mark.parametrize("use", [{"slices": ("s",)}, {"group": "s"}], ids=["slice", "group"])
def test_what_names_no_slice_or_group(tmp_path, names, use, message):
    with pytest.raises(DataError, match=message):
        open_role(data(save(tmp_path, s=names), **use), "gate", VECTOR)


def test_times_and_ascii_bytes_name_slices(tmp_path):
    days = np.array(["2026-01-01", "2026-01-02"] * 5, "M8[D]")
    path = save(tmp_path, day=days, tag=np.array([b"a", b"b"] * 5), on=np.ones(10, bool))
    role = open_role(data(path, slices=("day", "tag", "on")), "gate", VECTOR)
    np.testing.assert_array_equal(role.column("day"), days)


@pytest.mark.parametrize(
    ("values", "scale"), [(np.full((10, 4), 1e300), 1.0), (columns()["x"] + 1, 1e39), (columns()["x"] + 1, 3e38)]
)
def test_numbers_that_leave_float32_are_not_fed(tmp_path, values, scale):
    role = open_role(data(save(tmp_path, x=values), scale=scale), "gate", VECTOR)
    with pytest.raises(DataError, match="after preprocess: column 'x' has infinity at row"):
        list(role.batches())


@pytest.mark.parametrize("rows", [1, 3, 7, 8, 9])
@pytest.mark.parametrize("samples", [None, 1])
def test_batches_keep_their_size_however_much_is_read_at_once(tmp_path, rows, samples, monkeypatch):
    monkeypatch.setattr("qpipe.data.npz._READ_BYTES", 4 * 16 * 2)
    role = open_role(data(save(tmp_path, rows=rows), samples=samples), "gate", VECTOR)
    batches = list(role.batches())
    assert [batch.rows for batch in batches[:-1]] == [4] * (len(batches) - 1)
    fed = np.concatenate([batch["x"] for batch in batches])
    np.testing.assert_array_equal(fed, columns(rows)["x"][role.selected])


def test_rows_are_the_same_in_whatever_dtype_a_role_keeps_them(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 4))
    gate, search = save(tmp_path, x=pixels[:10].astype(">u2")), tmp_path / "search.npz"
    np.savez(search, **columns(x=pixels[9:19].astype(np.uint8)))
    both = data(gate, scale=1.0)
    both = replace(both, roles=(*both.roles, RoleSpec(role="search", npz=search)))
    with pytest.raises(DataError, match=r"1 of 10 search rows .* \(search row 0 = gate row 9\)"):
        check_overlap(both, VECTOR)


def test_only_columns_that_are_asked_for_are_read(tmp_path):
    role = open_role(data(save(tmp_path, spare=np.zeros((10, 2)))), "gate", VECTOR)
    damaged = (tmp_path / "gate.npz").read_bytes().replace(np.zeros((10, 2)).tobytes(), b"\1" * 160)
    (tmp_path / "gate.npz").write_bytes(damaged)
    assert set(role.columns) == {"label", "spare"}
    np.testing.assert_array_equal(role.columns["label"], np.arange(10) % 3)
    with pytest.raises(DataError, match="column 'spare' is damaged"):
        role.columns["spare"]
    with pytest.raises(KeyError):
        role.columns["x"]


def test_all_files_that_are_missing_are_named_at_once(tmp_path):
    roles = tuple(RoleSpec(role=role, npz=tmp_path / f"{role}.npz") for role in ("calibration", "search", "gate"))
    with pytest.raises(DataError, match=r"calibration\.npz, .*search\.npz and .*gate\.npz: no such data files"):
        sealed(replace(data(tmp_path), roles=roles))
    save(tmp_path)
    with pytest.raises(DataError, match=r"calibration\.npz: no such data file$"):
        sealed(replace(data(tmp_path), roles=(roles[0], roles[2])))
