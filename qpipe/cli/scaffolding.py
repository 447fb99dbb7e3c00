"""`new-target`: a plugin distribution to begin with, which passes the contract suite as it is."""

from __future__ import annotations

import re
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Annotated

import typer

from qpipe.cli.options import JsonFlag, print_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_SUFFIX = ".tmpl"
LONGEST = 64
"""Characters of a name: it becomes part of file names."""


def new_target(
    name: Annotated[str, typer.Argument(help="Name of the target, e.g. my-board.", show_default=False)],
    *,
    folder: Annotated[Path | None, typer.Option(help="Folder to make. [default: qpipe-NAME]")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write a plugin distribution for a new target: backend, target file and contract tests."""
    check_name(name)
    made = folder or Path(f"qpipe-{name}")
    files = write_plugin(made, name)
    steps = (f"pip install -e '{made}[dev]'", f"python -m pytest {made}", "qpipe targets")
    if as_json:
        names = [str(path) for path in files]
        print_json({"target": name, "folder": str(made), "files": names, "next": list(steps)})
    else:
        typer.echo("\n".join((f"wrote {len(files)} files to {made}; next:", *(f"  {step}" for step in steps))))


def check_name(name: str) -> None:
    """Refuse a name that cannot be a distribution, a module and a target at once, or that is taken.

    Raises:
        ConfigError: the name is not one, or a plugin brings a target or backend of that name.
    """
    from qpipe.errors import ConfigError
    from qpipe.flow.workplace import open_registry

    if not _NAME.fullmatch(name) or len(name) > LONGEST:
        raise ConfigError(
            f"{name!r} is no name for a target",
            hint=f"small letters, digits and single -, at most {LONGEST}, e.g. my-board",
        )
    if name.startswith("qpipe-"):
        hint = f"qpipe new-target {name.removeprefix('qpipe-')}: the distribution is called qpipe-NAME"
        raise ConfigError(f"{name!r} names a distribution, not a target", hint=hint)
    registry = open_registry()
    for word, taken in (("target", registry.targets), ("backend", registry.backends)):
        if name in taken:
            raise ConfigError(f"there is a {word} {name} already", hint="see `qpipe targets`; choose another name")


def write_plugin(folder: Path, name: str) -> tuple[Path, ...]:
    """All files of the distribution, relative to `folder`, which must not exist; it appears whole or not at all.

    Raises:
        ConfigError: the folder exists, or cannot be written.
    """
    from tempfile import TemporaryDirectory

    from qpipe.errors import ConfigError

    words = {"name": name, "module": f"qpipe_{name.replace('-', '_')}", "backend": _class_name(name)}
    files = dict(_filled(words))
    try:
        if folder.exists():
            raise ConfigError(f"{folder} is there already", hint="choose another --folder; nothing was overwritten")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
            for path, text in files.items():
                (Path(scratch) / "made" / path).parent.mkdir(parents=True, exist_ok=True)
                (Path(scratch) / "made" / path).write_text(text, encoding="utf-8")
            (Path(scratch) / "made").rename(folder)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}", hint="choose another --folder") from error
    return tuple(sorted(files))


def _filled(words: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    root = Path(__file__).parents[1] / "scaffold"
    places = {
        "package": words["module"],
        "target.yaml": f"{words['name']}.yaml",
        "test_contract.py": f"test_{words['module'].removeprefix('qpipe_')}_contract.py",
    }
    for template in sorted(root.rglob(f"*{_SUFFIX}")):
        parts = template.with_suffix("").relative_to(root).parts
        text = Template(template.read_text(encoding="utf-8")).substitute(words)
        yield Path(*(places.get(part, part) for part in parts)), text


def _class_name(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("-")) + "Backend"
