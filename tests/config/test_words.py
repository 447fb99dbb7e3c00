"""Words that the pipeline file and the upper rooms both know are the same words."""

from qpipe.flow.workplace import open_registry
from qpipe.prepare import BUILTIN_RECIPES as PREPARED
from qpipe.prepare import builtin_recipe
from qpipe.quant.schemes import ORT_X86_VNNI
from qpipe.records.recipe import BUILTIN_RECIPES, CALIBRATED_RECIPES
from qpipe.records.task import TASKS


def test_tasks_bring_metrics_that_exist():
    assert set(TASKS.values()) <= set(open_registry(None).metrics)


def test_recipes_that_files_may_name_are_those_that_can_be_prepared():
    assert set(BUILTIN_RECIPES) == set(PREPARED)


def test_recipes_that_calibrate_are_known_to_do_so():
    registry = open_registry(None)
    recipes = {name: builtin_recipe(name, ORT_X86_VNNI) for name in BUILTIN_RECIPES}
    calibrating = {
        name
        for name, recipe in recipes.items()
        if any(registry.stage(stage.name).needs_calibration for stage in recipe.stages)
    }
    assert calibrating == set(CALIBRATED_RECIPES)
