"""What a stage keeps for others is named by key, rows and code; one key is one folder."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from qpipe.plugins.stage import StageType
from qpipe.prepare import run_stages
from qpipe.quant.schemes import FLOAT
from qpipe.records.recipe import Recipe, StageSpec
from qpipe.testing.models import small_batches, write_small_model
from qpipe.testing.progress import Silent


@dataclass(frozen=True)
class NoParams:
    """None."""


@pytest.fixture
def keys_of(tmp_path):
    """Keys that the cache is asked for, by code of the plugin; without a cache the texts of the folders."""
    model = write_small_model(tmp_path)

    def find(name, *keys, code="", digest="rows", cached=True):
        asked, texts = [], []

        def apply(draft, _params, context):
            for key in keys:
                folder = context.cached(key, lambda made, key=key: (made / "key").write_text(key))
                texts.append((folder / "key").read_text() if folder.is_dir() else "")
            return draft

        def cache(key, _make):
            asked.append(key)
            return tmp_path / key

        stage = StageType(name=name, summary="", params=NoParams, apply=apply)
        recipe = Recipe(name="mine", stages=(StageSpec(name=name),))
        work = tmp_path / f"work{len(list(tmp_path.glob('work*')))}"
        run_stages(
            model, recipe, FLOAT, small_batches, work, cache if cached else None, Silent(),
            calibration_digest=digest, stages=(stage,), code_of=lambda _name: code,
        )  # fmt: skip
        return asked if cached else texts

    return find


def test_another_code_name_or_row_is_another_key(keys_of):
    found = [
        keys_of("tables", "v1", code="mine 1.0+aa"),
        keys_of("tables", "v1", code="mine 1.0+bb"),
        keys_of("others", "v1", code="mine 1.0+aa"),
        keys_of("tables", "v1", code="mine 1.0+aa", digest="other rows"),
        keys_of("tables", "v1"),
    ]
    assert len({key for (key,) in found}) == len(found)
    assert keys_of("tables", "v1", code="mine 1.0+aa") == found[0]


def test_keys_that_begin_alike_are_two_folders_and_one_key_is_one(keys_of):
    keys = ("moments-of-conv1-by-mean", "moments-of-conv1-by-max", "moments-of-conv1-by-mean", "a/../b")
    assert keys_of("tables", *keys, cached=False) == list(keys)
