"""Write docs/cli.md from the program's own help: `python docs/cli_reference.py`. A test compares the two."""

from __future__ import annotations

from pathlib import Path

from typer.main import get_command

from qpipe.cli.app import app

PAGE = Path(__file__).with_name("cli.md")
WIDTH = 100
HEAD = """# The command line

Every command takes `--help`; those that print a result take `--json`: one JSON object on stdout, everything else on
stderr. `qpipe schema` prints the JSON Schema of `qpipe run --json`.

## Exit codes

| code | meaning |
|---|---|
| 0 | every required gate passed; for commands that judge nothing: done |
| 1 | an unexpected error: a bug, with its traceback |
| 2 | bad usage or configuration, or a demand that can never be met; found before work |
| 3 | a required gate FAILED |
| 4 | INCONCLUSIVE, and none failed |
| 5 | something could not be built or run here (what is missing or used up, a crash, a time-out), logged or promoted |
| 130 | interrupted; the same command goes on from what is finished |
| 141 | whoever read stdout has gone (`qpipe … \\| head`): what was to be said is not delivered |

The worst one wins, in the order 1, 2, 5, 3, 4. Errors are two lines on stderr (`error:`, `hint:`), or with `--json`
`{"error": {"message", "hint", "code"}}` on stdout.
"""


def render() -> str:
    """The page: the help of the program and of each command, at a fixed width."""
    root = get_command(app)
    context = root.context_class(root, info_name="qpipe", terminal_width=WIDTH)
    parts = [HEAD, _block("qpipe", root.get_help(context))]
    for name in root.list_commands(context):
        command = root.get_command(context, name)
        inner = command.context_class(command, info_name=name, parent=context, terminal_width=WIDTH)
        parts.append(_block(f"qpipe {name}", command.get_help(inner)))
    return "\n".join(parts)


def _block(title: str, text: str) -> str:
    lines = "\n".join(line.rstrip() for line in text.splitlines())
    return f"## {title}\n\n```text\n{lines}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
