"""The stages of a recipe: from the float model to what a toolchain builds from."""

from qpipe.prepare.recipe import builtin_recipe, has_kernels
from qpipe.prepare.run import prepare, run_stages
from qpipe.prepare.stages import builtin_stages

__all__ = ["builtin_recipe", "builtin_stages", "has_kernels", "prepare", "run_stages"]
