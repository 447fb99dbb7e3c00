"""Words that the pipeline file and the upper rooms both know are the same words."""

from dataclasses import replace

import pytest

from qpipe.flow.workplace import open_registry
from qpipe.prepare import builtin_recipe
from qpipe.quant.schemes import ORT_X86_VNNI
from qpipe.records.recipe import BUILTIN_RECIPES, CALIBRATED_RECIPES
from qpipe.records.task import TASKS

GENEROUS = replace(ORT_X86_VNNI, float_types=("float32", "float16", "bfloat16"))
"""A scheme with a kernel for everything."""


def test_tasks_bring_metrics_that_exist():
    assert set(TASKS.values()) <= set(open_registry(None).metrics)


@pytest.mark.parametrize("name", BUILTIN_RECIPES)
def test_recipes_that_files_may_name_can_be_prepared(name):
    assert builtin_recipe(name, GENEROUS).name == name


def test_recipes_that_calibrate_are_known_to_do_so():
    registry = open_registry(None)
    recipes = {name: builtin_recipe(name, GENEROUS) for name in BUILTIN_RECIPES}
    calibrating = {
        name
        for name, recipe in recipes.items()
        if any(registry.stage(stage.name).needs_calibration for stage in recipe.stages)
    }
    assert calibrating == set(CALIBRATED_RECIPES)
