"""docs/cli.md is the program's own help, and the width of a terminal changes nothing about it."""

import runpy
from pathlib import Path

import pytest

from qpipe.cli.guarded import READER_GONE
from qpipe.flow import exitcodes

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("columns", ["40", "200"])
def test_the_page_is_the_help(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    rendered = runpy.run_path(str(DOCS / "cli_reference.py"))["render"]()
    assert (DOCS / "cli.md").read_text() == rendered, "write it again: python docs/cli_reference.py"


def test_every_exit_code_is_in_the_table():
    codes = {value for name, value in vars(exitcodes).items() if name.isupper() and isinstance(value, int)}
    text = (DOCS / "cli.md").read_text()
    assert codes == {0, 1, 2, 3, 4, 5, 130}
    assert all(f"\n| {code} | " in text for code in (*codes, READER_GONE))
