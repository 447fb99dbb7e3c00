"""Python on the pages: what it imports is there, and the step of docs/mlflow.md is one that qpipe takes."""

import ast
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

import qpipe
from qpipe.flow import conduct

ROOT = Path(__file__).parents[2]
BLOCKS = [
    pytest.param(ast.parse(block), id=f"{page.name}-{number}")
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_what_a_block_imports_of_ours_is_there(block):
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom) and str(node.module).startswith("qpipe")]
    exec(compile(ast.Module(body=imports, type_ignores=[]), "<page>", "exec"), {})


def test_what_pages_name_in_the_diagnosis_is_there():
    import importlib

    page = (ROOT / "docs" / "quantization.md").read_text()
    ((room, names),) = re.findall(r"In `(qpipe\.quant\.diagnosis)`: (.*?)\.\s", page, re.DOTALL)
    named = re.findall(r"`(\w+)\.(\w+)`", names)
    assert len(named) == 4
    for module, function in named:
        assert callable(getattr(importlib.import_module(f"{room}.{module}"), function))


def test_the_step_of_the_page_can_be_planned_in_the_folder_of_the_demo(monkeypatch, tmp_path):
    (call,) = [
        node
        for block in BLOCKS
        for node in ast.walk(block.values[0])
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "qpipe.step"
    ]
    for file in (ROOT / "pipelines" / "digits").glob("*.[no][pn]*"):
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    planned = []
    monkeypatch.setattr(
        conduct, "conduct", lambda workplace, *_: planned.append(workplace) or SimpleNamespace(warnings=())
    )
    eval(compile(ast.Expression(call), "<page>", "eval"), {"qpipe": qpipe})
    (workplace,) = planned
    assert [cell.label for cell in workplace.cells] == ["digits/none/cpu-local", "digits/int8/cpu-local"]
