import os
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qpipe.data import check_overlap, digests, open_role, outcome_digest, role_digest, rows_digest, sealed
from qpipe.data.batches import preprocess
from qpipe.data.sources import draw, draw_groups
from qpipe.errors import ConfigError, DataError
from qpipe.records.data import DataSpec, Preprocess, RoleSpec
from qpipe.records.tensors import Signature, TensorSpec

IMAGE = Signature(
    inputs=(TensorSpec(name="input", dtype="float32", shape=("N", 3, 4, 4)),),
    outputs=(TensorSpec(name="logits", dtype="float32", shape=("N", 10)),),
)
TEXT = Signature(
    inputs=(
        TensorSpec(name="ids", dtype="int64", shape=("N", "L")),
        TensorSpec(name="mask", dtype="int64", shape=("N", "L")),
    ),
    outputs=(TensorSpec(name="embedding", dtype="float32", shape=("N", 8)),),
)
SCALED = (Preprocess(column="image", scale=1 / 255, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3)),)


def images(rows=10, *, seed=0, **columns):
    made = np.random.default_rng(seed).integers(0, 256, (rows, 3, 4, 4), np.uint8)
    return {"image": made, "label": np.arange(rows) % 10, **columns}


def spec(tmp_path, columns, *, role="gate", compressed=True, data=None, **role_fields):
    path = tmp_path / f"{role}.npz"
    (np.savez_compressed if compressed else np.savez)(path, **columns)
    entry = RoleSpec(role=role, npz=path, **role_fields)
    base = data or DataSpec(inputs=(("image", "input"),), label="label", preprocess=SCALED, roles=())
    return replace(base, roles=(*(r for r in base.roles if r.role != role), entry))


def joined(role, name="input", size=None):
    return np.concatenate([batch[name][: batch.rows] for batch in role.batches(size)])


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("order", ["C", "F"])
def test_batches_are_the_preprocessed_rows(tmp_path, compressed, order):
    columns = images(150)
    columns["image"] = np.asarray(columns["image"], order=order)
    role = open_role(spec(tmp_path, columns, compressed=compressed), "gate", IMAGE)
    mean, std = (np.float32(x).reshape(1, 3, 1, 1) for x in (SCALED[0].mean, SCALED[0].std))
    expected = (columns["image"] * np.float32(1 / 255) - mean) / std
    assert [batch["input"].shape[0] for batch in role.batches()] == [*[16] * 9, 6]
    got = joined(role)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(role.column("label"), columns["label"])
    assert (role.rows, role.column_names) == (150, ("label",))


def test_columns_of_another_length_are_not_offered(tmp_path):
    role = open_role(spec(tmp_path, images(10, names=np.array(["a", "b"]), version=np.array(3))), "gate", IMAGE)
    assert role.column_names == ("label",)


@settings(deadline=None)
@given(
    rows=st.integers(1, 400),
    samples=st.integers(1, 400),
    seed=st.integers(0, 2**32),
)
def test_draw_is_without_replacement_and_nested(rows, samples, seed):
    samples = min(samples, rows)
    drawn = draw(rows, samples, seed)
    assert len(set(drawn.tolist())) == samples
    assert (np.diff(drawn) > 0).all()
    assert drawn.min() >= 0
    assert drawn.max() < rows
    assert set(draw(rows, max(1, samples // 2), seed).tolist()) <= set(drawn.tolist())


def test_draw_is_the_same_on_every_machine():
    assert draw(20, 5, 0).tolist() == [2, 3, 11, 13, 15]
    assert draw(1000, 3, 7).tolist() == [37, 614, 865]


@given(
    groups=st.lists(st.integers(0, 20), min_size=1, max_size=100), samples=st.integers(1, 100), seed=st.integers(0, 99)
)
def test_groups_are_drawn_whole_and_nested(groups, samples, seed):
    member = np.array([f"g{group}" for group in groups])
    drawn = draw_groups(member, samples, seed)
    assert len(drawn) <= samples
    assert (np.diff(drawn) > 0).all()
    assert not set(member[drawn]) & set(np.delete(member, drawn))
    assert set(draw_groups(member, max(1, samples // 2), seed).tolist()) <= set(drawn.tolist())
    if samples >= len(member):
        assert len(drawn) == len(member)


def test_a_sample_of_grouped_rows_keeps_pairs_together(tmp_path):
    columns = images(90) | {"pair": np.arange(90) // 2 % 45}
    role = open_role(spec(tmp_path, columns, samples=31, group="pair"), "gate", IMAGE)
    assert role.rows == 30
    assert np.unique(role.column("pair"), return_counts=True)[1].tolist() == [2] * 15
    plain = open_role(spec(tmp_path, columns, samples=31), "gate", IMAGE)
    assert plain.digest != role.digest
    assert open_role(spec(tmp_path, columns, group="pair"), "gate", IMAGE).rows == 90
    with pytest.raises(DataError, match="groups of 'pair' are drawn whole, and samples: 1 is fewer") as caught:
        open_role(spec(tmp_path, columns, samples=1, group="pair"), "gate", IMAGE)
    assert caught.value.hint == "ask for at least 2 samples"


@settings(deadline=None)
@given(
    scale=st.floats(0.001, 10),
    mean=st.lists(st.floats(-5, 5), min_size=3, max_size=3),
    std=st.lists(st.floats(0.01, 5), min_size=3, max_size=3),
    seed=st.integers(0, 1000),
)
def test_preprocess_is_the_formula(scale, mean, std, seed):
    x = np.random.default_rng(seed).integers(0, 256, (4, 3, 2, 2), np.uint8)
    kept = x.copy()
    got = preprocess(x, Preprocess(column="x", scale=scale, mean=tuple(mean), std=tuple(std)))
    shape = (1, 3, 1, 1)
    exact = (x.astype(np.float64) * scale - np.reshape(mean, shape)) / np.reshape(std, shape)
    bound = 4e-7 * (np.abs(x * scale) + np.abs(np.reshape(mean, shape))) / np.reshape(std, shape) + 1e-6
    assert got.dtype == np.float32
    assert (np.abs(got - exact) <= bound).all()
    np.testing.assert_array_equal(x, kept)


@settings(deadline=None)
@given(samples=st.integers(1, 90), seed=st.integers(0, 50), size=st.integers(1, 100))
def test_sampled_rows_in_any_batch_size(tmp_path_factory, samples, seed, size):
    folder = tmp_path_factory.mktemp("npz")
    columns = images(90)
    role = open_role(spec(folder, columns, samples=samples, seed=seed), "gate", IMAGE)
    picked = draw(90, samples, seed)
    np.testing.assert_array_equal(role.column("label"), columns["label"][picked])
    np.testing.assert_array_equal(joined(role, size=size), preprocess(columns["image"][picked], SCALED[0]))


def test_fixed_batch_is_padded_and_says_so(tmp_path):
    fixed = replace(IMAGE, inputs=(replace(IMAGE.inputs[0], shape=(8, 3, 4, 4)),))
    role = open_role(spec(tmp_path, images(19)), "gate", fixed)
    batches = list(role.batches())
    assert [(len(batch["input"]), batch.rows) for batch in batches] == [(8, 8), (8, 8), (8, 3)]
    np.testing.assert_array_equal(batches[2]["input"][3], batches[2]["input"][0])
    with pytest.raises(DataError, match="fixed at 8, and batches of 1"):
        next(role.batches(1))


def text(rows=6, length=12, *, seed=0):
    random = np.random.default_rng(seed)
    used = random.integers(1, length - 3, rows)
    mask = (np.arange(length) < used[:, None]).astype(np.int64)
    return {"ids": random.integers(5, 1000, (rows, length)) * mask, "mask": mask, "pair": np.arange(rows)}


TEXT_DATA = DataSpec(inputs=(), label=None, preprocess=(), roles=(), trim="mask", batch=4)


def test_trim_cuts_each_batch_to_its_longest_row(tmp_path):
    columns = text()
    role = open_role(spec(tmp_path, columns, data=TEXT_DATA), "gate", TEXT)
    longest = [columns["mask"][:4].sum(axis=1).max(), columns["mask"][4:].sum(axis=1).max()]
    assert [batch["ids"].shape for batch in role.batches()] == [(4, longest[0]), (2, longest[1])]
    assert [batch["mask"].shape[1] for batch in role.batches()] == longest


def test_overlap_of_text_ignores_padding(tmp_path):
    long, short = text(6, 20), text(3, 12, seed=1)
    long["mask"][4], long["ids"][4] = 0, 0
    long["mask"][4, :5], long["ids"][4, :5] = 1, np.arange(5) + 7
    short["mask"][2], short["ids"][2] = 0, 99
    short["mask"][2, :5], short["ids"][2, :5] = 1, np.arange(5) + 7
    data = spec(tmp_path, long, data=TEXT_DATA)
    data = spec(tmp_path, short, role="search", data=data)
    with pytest.raises(DataError, match=r"1 of 3 search rows stand in the gate data too \(search row 2 = gate row 4\)"):
        check_overlap(data, TEXT)


def overlapping(tmp_path, *, shared=3, group=None, **fields):
    gate, search = images(30, person=np.arange(30) + 100), images(20, seed=1, person=np.arange(20))
    search["image"][5 : 5 + shared] = gate["image"][10 : 10 + shared]
    if group:
        search["person"][0] = 129
    data = spec(tmp_path, gate, group=group, **fields)
    return spec(tmp_path, search, role="search", data=data)


def test_overlap_is_an_error_with_rows(tmp_path):
    with pytest.raises(
        DataError, match=r"3 of 20 search rows .* \(search row 5 = gate row 10, search row 6 = "
    ) as error:
        check_overlap(overlapping(tmp_path), IMAGE)
    assert "drop-from-search" in error.value.hint


def test_no_overlap_counts_nothing(tmp_path):
    found = check_overlap(overlapping(tmp_path, shared=0), IMAGE)
    assert (found.rows, found.groups, found.dropped, found.search_rows, found.gate_rows) == (0, 0, 0, 20, 30)


def test_overlap_of_groups(tmp_path):
    with pytest.raises(DataError, match=r"1 groups stand in both \(129\)"):
        check_overlap(overlapping(tmp_path, shared=0, group="person"), IMAGE)


def test_overlap_drops_from_search_alone(tmp_path):
    data = overlapping(tmp_path, group="person")
    dropping = replace(data, overlap="drop-from-search")
    assert check_overlap(dropping, IMAGE).dropped == 4
    search = open_role(dropping, "search", IMAGE)
    assert search.selected.tolist() == [*range(1, 5), *range(8, 20)]
    assert open_role(dropping, "gate", IMAGE).rows == 30
    assert role_digest(dropping, "search") != role_digest(data, "search")
    assert role_digest(dropping, "gate") == role_digest(data, "gate")
    all_shared = spec(tmp_path, dict(np.load(tmp_path / "gate.npz")), role="search", data=dropping)
    with pytest.raises(DataError, match="all 30 rows stand in the gate data too"):
        open_role(all_shared, "search", IMAGE)


@settings(deadline=None)
@given(
    rows=st.lists(st.lists(st.integers(0, 2), min_size=9, max_size=9), min_size=2, max_size=40),
    cut=st.integers(1, 39),
    dtype=st.sampled_from(["uint8", "int64", "float32"]),
)
def test_overlap_is_what_comparing_rows_gives(tmp_path_factory, rows, cut, dtype):
    folder, cut = tmp_path_factory.mktemp("overlap"), min(cut, len(rows) - 1)
    table = np.array(rows, dtype)
    signature = Signature(inputs=(TensorSpec(name="x", dtype=dtype, shape=("N", 9)),), outputs=())
    data = DataSpec(inputs=(), label=None, preprocess=(), roles=(), overlap="drop-from-search")
    data = spec(folder, {"x": table[:cut]}, role="search", data=spec(folder, {"x": table[cut:]}, data=data))
    seen = {tuple(row) for row in table[cut:].tolist()}
    assert check_overlap(data, signature).dropped == sum(tuple(row) in seen for row in table[:cut].tolist())


def test_hash_sees_every_byte(tmp_path):
    gate = images(200)
    search = {name: array.copy() for name, array in gate.items()}
    search["image"].reshape(200, -1)[np.arange(200), np.arange(200) % 48] ^= 0x80
    data = spec(tmp_path, search, role="search", data=spec(tmp_path, gate))
    assert check_overlap(data, IMAGE).rows == 0


def test_digest_follows_what_reaches_the_model(tmp_path):
    base = spec(tmp_path, images())
    entry = base.roles[0]
    before = role_digest(base, "gate")
    others = [
        replace(base, roles=(replace(entry, samples=5),)),
        replace(base, roles=(replace(entry, samples=5, seed=1),)),
        replace(base, preprocess=()),
        replace(base, inputs=()),
        replace(base, trim="label"),
    ]
    assert len({before, *(role_digest(other, "gate") for other in others)}) == 6
    assert role_digest(replace(base, roles=(replace(entry, seed=9, slices=("label",)),)), "gate") == before
    assert open_role(base, "gate", IMAGE).digest == before
    changed = images()
    changed["label"] = changed["label"][::-1]
    assert role_digest(spec(tmp_path, changed, compressed=False), "gate") != before


@pytest.mark.parametrize(
    "change",
    [
        {"batch": 32},
        {"preprocess": ()},
        {"label": None},
        {"trim": "mask"},
        {"samples": 9},
        {"seed": 5},
        {"slices": ("label",)},
    ],
)
def test_rows_that_are_read_otherwise_are_the_same_rows(tmp_path, change):
    data = sealed(spec(tmp_path, images()))
    before = rows_digest(data, "gate")
    if change.keys() & {"samples", "seed", "slices"}:
        changed = replace(data, roles=(replace(data.roles[0], **change),))
    else:
        changed = replace(data, **change)
    assert rows_digest(changed, "gate") == before
    (tmp_path / "gate.npz").unlink()
    assert rows_digest(changed, "gate") == before
    assert rows_digest(sealed(spec(tmp_path, images(11))), "gate") != before


def test_a_sealed_file_is_not_read_again_for_its_digest(tmp_path):
    plain = spec(tmp_path, images())
    data = sealed(plain)
    assert role_digest(data, "gate") == role_digest(plain, "gate")
    [gate] = data.roles
    trusted = replace(data, roles=(replace(gate, seal=replace(gate.seal, sha256="of the seal")),))
    assert role_digest(trusted, "gate") != role_digest(plain, "gate"), "the file was read, and not its seal"


def test_rows_of_a_file_that_was_changed_since_the_plan_are_no_evidence(tmp_path):
    data = sealed(spec(tmp_path, images()))
    role = open_role(data, "gate", IMAGE)
    batches = role.batches()
    next(batches)
    path = data.roles[0].npz
    os.utime(path, ns=(1, 1))
    assert role.column("label").shape == (10,), "a file that holds what it held was refused"
    spec(tmp_path, images(seed=1))
    changed = f"{path} was changed after the run was planned"
    with pytest.raises(DataError, match=changed):
        list(batches)
    with pytest.raises(DataError, match=changed):
        role.column("label")
    with pytest.raises(DataError, match=changed):
        open_role(data, "gate", IMAGE)


def test_outcome_digest_follows_what_evaluation_keeps(tmp_path):
    base = spec(tmp_path, images())
    entry = base.roles[0]
    others = [
        replace(base, label=None),
        replace(base, roles=(replace(entry, slices=("label",)),)),
        replace(base, roles=(replace(entry, group="label"),)),
        replace(base, roles=(replace(entry, samples=5),)),
    ]
    assert len({outcome_digest(data, "gate") for data in (base, *others)}) == 5
    assert len({role_digest(data, "gate") for data in (base, *others)}) == 2


@pytest.mark.parametrize("role", ["calibration", "search", "gate"])
@pytest.mark.parametrize("also", [(), ("gate",), ("search", "gate")])
def test_nan_in_any_role_is_found_before_work(tmp_path, role, also):
    data = DataSpec(inputs=(("image", "input"),), label="label", preprocess=(), roles=())
    for seed, name in enumerate(dict.fromkeys((role, *also))):
        image = np.random.default_rng(seed).random((70, 3, 4, 4), np.float32)
        image[66] = np.nan if name == role else image[66]
        data = spec(tmp_path, images(70, image=image), role=name, data=data)
    with pytest.raises(DataError, match=f"{role} data .*: column 'image' has NaN at row 66"):
        check_overlap(data, IMAGE)


def test_a_missing_target_is_refused_with_what_to_do(tmp_path):
    role = images(3, label=np.array([[0.0, np.nan], [1.0, 1.0], [2.0, 3.0]]))
    with pytest.raises(DataError, match="column 'label' has NaN at row 0") as refused:
        open_role(spec(tmp_path, role), "gate", IMAGE)
    assert "leave data.label out instead" in refused.value.hint


BAD = [
    ({"image": np.zeros((3, 3, 4, 4), np.uint8)}, r"no label column 'label'"),
    ({"img": np.zeros((3, 3, 4, 4), np.uint8), "label": np.zeros(3)}, r"no column 'image'; did you mean 'img'\?"),
    (images(3, label=np.zeros(4)), r"unequal numbers of rows: 'image' 3, 'label' 4"),
    (images(0), "has 0 rows"),
    (images(3, label=np.array([0.0, np.nan, 1.0])), "column 'label' has NaN at row 1"),
    (images(3, image=np.zeros((3, 4, 4, 3), np.uint8)), r"has shape \[rows, 4, 4, 3\], model input input: float32"),
    (images(3, image=np.zeros((3, 48), np.uint8)), r"has shape \[rows, 48\]"),
    (images(3, image=np.array([{}, {}, {}])), r"column 'image' holds pickled Python objects, which qpipe never loads"),
    (images(3, image=np.zeros((3, 3, 4, 4), "datetime64[s]")), "is datetime64.*; preprocess yields float32"),
]


@pytest.mark.parametrize(("columns", "message"), BAD)
def test_bad_columns(tmp_path, columns, message):
    with pytest.raises(DataError, match=message):
        open_role(spec(tmp_path, columns), "gate", IMAGE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preprocess": ()}, r"column 'image' is uint8, model input input: float32\[N, 3, 4, 4\] takes float32"),
        ({"inputs": (("image", "inptu"),)}, r"'inptu', no input of the model; did you mean 'input'\?"),
        ({"inputs": ()}, r"no column for model input input: float32"),
        ({"inputs": (("image", "input"), ("label", "input"))}, "two columns go to model input 'input'"),
        ({"preprocess": (Preprocess(column="imag"),)}, r"preprocess names 'imag'.*did you mean 'image'\?"),
        ({"preprocess": (Preprocess(column="image", mean=(1, 2)),)}, "mean has 2 numbers, the column has 3 channels"),
        ({"label": "lable"}, r"no label column 'lable'; did you mean 'label'\?"),
        ({"trim": "mask"}, "no trim column 'mask'"),
        ({"trim": "image"}, "is no 0/1 mask"),
    ],
)
def test_bad_specification(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        open_role(replace(spec(tmp_path, images(3)), **change), "gate", IMAGE)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"samples": 11}, "has 10 rows, and samples: 11"),
        ({"slices": ("sorce",)}, r"no slice column 'sorce'; did you mean 'source'\?"),
        ({"slices": ("source",)}, "column 'source' is empty at row 3"),
        ({"group": "grp"}, "no group column 'grp'"),
    ],
)
def test_bad_role(tmp_path, fields, message):
    columns = images(10, source=np.array(["a"] * 3 + [" "] + ["b"] * 6))
    with pytest.raises(DataError, match=message):
        open_role(spec(tmp_path, columns, **fields), "gate", IMAGE)


@pytest.mark.parametrize("dtype", ["float64", "int64"])
def test_tensors_are_not_cast_silently(tmp_path, dtype):
    data = spec(tmp_path, images(3, image=np.zeros((3, 3, 4, 4), dtype)))
    with pytest.raises(DataError, match=f"column 'image' is {dtype}, model input .* takes float32"):
        open_role(replace(data, preprocess=()), "gate", IMAGE)


def test_a_model_dtype_that_columns_cannot_have(tmp_path):
    strange = replace(IMAGE, inputs=(replace(IMAGE.inputs[0], dtype="int3"),))
    with pytest.raises(DataError, match=r"int3\[N, 3, 4, 4\] has a dtype that NumPy lacks"):
        open_role(spec(tmp_path, images(3)), "gate", strange)


def test_small_integers_widen(tmp_path):
    columns = {name: array.astype(np.int32) for name, array in text().items()}
    role = open_role(spec(tmp_path, columns, data=TEXT_DATA), "gate", TEXT)
    assert next(role.batches())["ids"].dtype == np.int64
    narrow = Signature(inputs=tuple(replace(s, dtype="int32") for s in TEXT.inputs), outputs=TEXT.outputs)
    with pytest.raises(DataError, match=r"column 'ids' is int64, model input ids: int32\[N, L\] takes int32"):
        open_role(spec(tmp_path, text(), data=TEXT_DATA), "gate", narrow)


@pytest.mark.parametrize(("value", "what"), [(np.nan, "NaN"), (np.inf, "infinity")])
def test_nan_names_column_and_row_of_the_file(tmp_path, value, what):
    image = np.zeros((100, 3, 4, 4), np.float32)
    image[77, 1, 2, 3] = value
    data = replace(spec(tmp_path, images(100, image=image)), preprocess=())
    with pytest.raises(DataError, match=f"gate data .*: column 'image' has {what} at row 77"):
        joined(open_role(data, "gate", IMAGE))


def test_broken_files(tmp_path):
    data = spec(tmp_path, images(200))
    path = data.roles[0].npz
    content = path.read_bytes()
    with pytest.raises(DataError, match=r"no such data file; did you mean 'gate.npz'\?"):
        open_role(replace(data, roles=(replace(data.roles[0], npz=tmp_path / "gat.npz"),)), "gate", IMAGE)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"is not a whole \.npz file"):
        open_role(data, "gate", IMAGE)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(DataError, match=r"'readme\.txt', which is not a NumPy array"):
        open_role(data, "gate", IMAGE)
    damaged = bytearray(content)
    damaged[500:540] = bytes(40)
    path.write_bytes(damaged)
    with pytest.raises(DataError, match="column 'image' is damaged"):
        joined(open_role(data, "gate", IMAGE))


@settings(deadline=None)
@given(at=st.integers(0, 3000), value=st.integers(0, 255), compressed=st.booleans(), seals=st.booleans())
def test_a_changed_byte_never_changes_the_rows(tmp_path_factory, at, value, compressed, seals):
    columns = images(20)
    data = spec(tmp_path_factory.mktemp("byte"), columns, compressed=compressed)
    path = data.roles[0].npz
    content = bytearray(path.read_bytes())
    content[at % len(content)] = value
    path.write_bytes(content)
    try:
        role = open_role(sealed(data) if seals else data, "gate", IMAGE)
        got, labels = joined(role), role.column("label")
    except DataError:
        return
    np.testing.assert_array_equal(got, preprocess(columns["image"], SCALED[0]))
    np.testing.assert_array_equal(labels, columns["label"])


def test_a_damaged_file_is_found_when_it_is_sealed(tmp_path):
    data = spec(tmp_path, images(200), compressed=False)
    path = data.roles[0].npz
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"column 'image' is damaged \(Bad CRC-32"):
        sealed(data)


def test_checksums_are_compared_once_and_again_when_the_file_has_changed(tmp_path, monkeypatch):
    checked = []
    monkeypatch.setattr(digests, "check_stored", checked.append)
    data = spec(tmp_path, images(200), compressed=False)
    for _ in range(2):
        sealed(data)
    assert len(checked) == 1
    sealed(spec(tmp_path, images(201), compressed=False))
    assert len(checked) == 2


def test_a_sealed_file_that_is_cut_or_replaced_while_it_is_read(tmp_path):
    columns = images(20_000)
    data = sealed(spec(tmp_path, columns, compressed=False))
    path = data.roles[0].npz
    batches = open_role(data, "gate", IMAGE).batches(16)
    np.testing.assert_array_equal(next(batches)["input"], preprocess(columns["image"][:16], SCALED[0]))
    os.truncate(path, 500_000)
    with pytest.raises(DataError, match=r"column 'image' is damaged \(it ends early"):
        list(batches)
    np.savez(path, **images(20_000, seed=1))
    with pytest.raises(DataError, match="was changed after the run was planned"):
        joined(open_role(data, "gate", IMAGE))


def test_a_member_that_does_not_begin_where_the_index_says(tmp_path):
    data = sealed(spec(tmp_path, images(200), compressed=False))
    path = data.roles[0].npz
    found = path.stat()
    role = open_role(data, "gate", IMAGE)
    path.write_bytes(b"XX" + path.read_bytes()[2:])
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    with pytest.raises(DataError, match=r"column 'image' is damaged \(no member begins"):
        joined(role)


def test_a_role_that_the_pipeline_lacks(tmp_path):
    for use in (role_digest, lambda data, role: open_role(data, role, IMAGE)):
        with pytest.raises(DataError, match="the pipeline has no search data"):
            use(spec(tmp_path, images()), "search")


SOURCE = """
import numpy as np
from sibling import ROWS

def batches():
    for start in range(0, ROWS, 7):
        rows = np.arange(start, min(ROWS, start + 7))
        images = np.broadcast_to(rows[:, None, None, None], (len(rows), 3, 4, 4))
        yield {"image": images.astype(np.uint8), "label": rows}

def nothing():
    return iter(())

def number():
    return 3

def lists():
    yield {"image": [1, 2], "label": [1, 2]}

def uneven():
    yield {"image": np.zeros((2, 3, 4, 4), np.uint8), "label": np.zeros(3)}

def forgetful():
    yield from batches()
    yield {"label": np.zeros(1, int)}
"""


def function(tmp_path, name, **fields):
    (tmp_path / "sibling.py").write_text("ROWS = 30")
    (tmp_path / "my_rows.py").write_text(SOURCE)
    entry = RoleSpec(role="gate", fn=f"my_rows:{name}", fn_path=tmp_path, **fields)
    return DataSpec(
        inputs=(("image", "input"),), label="label", preprocess=(Preprocess(column="image"),), roles=(entry,)
    )


@pytest.mark.parametrize("size", [1, 5, 7, 64])
def test_function_rows(tmp_path, size):
    role = open_role(function(tmp_path, "batches"), "gate", IMAGE)
    assert role.rows == 30
    assert role.column_names == ("label",)
    np.testing.assert_array_equal(role.column("label"), np.arange(30))
    np.testing.assert_array_equal(joined(role, size=size)[:, 0, 0, 0], np.arange(30))
    assert max(len(batch["input"]) for batch in role.batches(size)) == min(size, 30)


def test_function_rows_are_sampled(tmp_path):
    role = open_role(function(tmp_path, "batches", samples=11, seed=3), "gate", IMAGE)
    np.testing.assert_array_equal(joined(role, size=4)[:, 0, 0, 0], draw(30, 11, 3))
    np.testing.assert_array_equal(role.column("label"), draw(30, 11, 3))


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("nothing", DataError, "has no rows"),
        ("number", DataError, "returned int, not an iterable of batches"),
        ("lists", DataError, "batch 0: column 'image' is list, not an array"),
        ("uneven", DataError, "batch 0: columns have unequal numbers of rows: 'image' 2, 'label' 3"),
        ("forgetful", DataError, "a batch lacks the column 'image'"),
        ("batch", ConfigError, r"has no function 'batch'; did you mean 'batches'\?"),
    ],
)
def test_functions_that_yield_wrong_things(tmp_path, name, kind, message):
    with pytest.raises(kind, match=message):
        joined(open_role(function(tmp_path, name), "gate", IMAGE))


def test_function_digest_follows_its_source(tmp_path):
    data = function(tmp_path, "batches")
    before = role_digest(data, "gate")
    (tmp_path / "my_rows.py").write_text(SOURCE + "# changed\n")
    assert role_digest(data, "gate") != before
    missing = replace(data, roles=(replace(data.roles[0], fn="my_row:batches"),))
    with pytest.raises(ConfigError, match=r"no module 'my_row'; did you mean 'my_rows'\?"):
        role_digest(missing, "gate")


def test_the_judged_output_must_be_one_of_the_models(tmp_path):
    np.savez(tmp_path / "gate.npz", x=np.zeros((4, 2), np.float32))
    signature = Signature(
        inputs=(TensorSpec(name="x", dtype="float32", shape=("N", 2)),),
        outputs=tuple(TensorSpec(name=name, dtype="float32", shape=("N", 2)) for name in ("embedding", "logits")),
    )
    gate = RoleSpec(role="gate", npz=tmp_path / "gate.npz")
    data = DataSpec(inputs=(), label=None, preprocess=(), roles=(gate,), output="logit")
    with pytest.raises(DataError, match="no output 'logit'; did you mean 'logits'") as error:
        open_role(data, "gate", signature)
    assert error.value.hint == "its outputs: embedding, logits"
    assert open_role(replace(data, output="logits"), "gate", signature).rows == 4
    assert outcome_digest(replace(data, output="logits"), "gate") != outcome_digest(replace(data, output=None), "gate")
    assert role_digest(replace(data, output="logits"), "gate") == role_digest(replace(data, output=None), "gate")
