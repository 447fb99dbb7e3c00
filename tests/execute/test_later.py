"""Modules that are loaded when they are used."""

from __future__ import annotations

import subprocess
import sys

from qpipe.execute.children.seed import LATER, MODULES

PROGRAM = f"""
import importlib, sys
from qpipe.execute.children.later import postponed
before = list(sys.meta_path)
with postponed(*{LATER!r}, "no.such.module"):
    for name in {MODULES!r}:
        importlib.import_module(name)
assert sys.meta_path == before
print("sympy" in sys.modules, "sympy.core" in sys.modules)
import onnx_ir
print((onnx_ir.SymbolicDim("N") + 1) * 2, "sympy.core" in sys.modules)
"""


def test_sympy_is_loaded_when_symbols_are_computed_with():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    seen, computed = done.stdout.splitlines()
    assert seen == "True False", "nothing that children import needs it"
    assert computed == "2*N + 2 True"
