"""A YAML file whose every value knows its line."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import yaml

from qpipe.errors import ConfigError, nearest

KeyPath = tuple[str | int, ...]
"""Keys and list positions from the top of the file, e.g. ("data", "gate", "npz")."""

_FLOAT = "tag:yaml.org,2002:float"
_MERGE = "tag:yaml.org,2002:merge"
_MOST_VALUES = 20_000
_MOST_BYTES = 1 << 20
"""PyYAML takes seconds for it already."""
_ODD_SPACE = re.compile("(?:^ *|[:,{\\[-] *)([\u00a0\u2000-\u200b\u202f\u3000])")
"""One that text copied from a page has where YAML wants a plain one."""
_PLAIN = "YAML is `key: value`, with two spaces inwards"


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, with `1e-3` as a number."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


_Loader.add_implicit_resolver(_FLOAT, re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """The content of a file as plain values, and the line of each."""

    path: Path
    data: dict[str, object]
    lines: dict[KeyPath, int]
    base: Document | None = None
    """The file below this one: `data` holds what both say, `lines` are of this one alone."""

    def place(self, at: KeyPath) -> str:
        """`file:line` of a value, or of the nearest thing around it that the file (or its base) has."""
        while at and not self.has(at):
            at = at[:-1]
        if self.base is not None and at and at not in self.lines:
            return self.base.place(at)
        return f"{self.path}:{self.lines.get(at, 1)}"

    def has(self, at: KeyPath) -> bool:
        """Whether the value itself has a line, here or in the base."""
        return at in self.lines or (self.base is not None and self.base.has(at))


def read_document(path: Path, *, kind: str) -> Document:
    """Parse a file that must hold one mapping; `kind` (e.g. `pipeline`) is for messages.

    Raises:
        ConfigError: no such file, not UTF-8, no YAML, two equal keys, empty, or not a mapping.
    """
    return _parsed(path, _read(path, kind), kind)


@lru_cache(maxsize=256)  # a base is read with each file over it, and each file to be looked over and to be run
def _parsed(path: Path, text: str, kind: str) -> Document:
    loader, node = _compose(path, text)
    if node is None:
        raise ConfigError(f"{path}:1: the {kind} file is empty", hint="see `qpipe init MODEL` for a draft")
    if not isinstance(node, yaml.MappingNode):
        found = "a list" if isinstance(node, yaml.SequenceNode) else "a single value"
        raise ConfigError(f"{path}:{_line(node)}: a {kind} file is a mapping of keys, this is {found}", hint="name: …")
    lines = _Lines()
    _walk(path, node, (), lines, ())
    with _yaml_errors(path, loader.text):
        data: dict[str, object] = loader.construct_document(node)
    return Document(path=path, data=data, lines=lines)


def _read(path: Path, kind: str) -> str:
    try:
        found = path.stat()
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):  # nobody may ever write into a pipe
            raise ConfigError(f"{path} is a pipe or a device, no plain file", hint="write it to a file first")
        if found.st_size > _MOST_BYTES:
            raise ConfigError(f"{path} has {found.st_size:,} bytes: no {kind} file is as large", hint=_PLAIN)
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        siblings = (file.name for file in path.parent.glob("*.y*ml")) if path.parent.is_dir() else ()
        raise ConfigError(
            f"{path}: no such {kind} file{nearest(path.name, siblings)}", hint="give the path of a YAML file"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text (byte {error.start})", hint=f"a {kind} file is YAML") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", hint=f"a {kind} file is YAML") from error


def _compose(path: Path, text: str) -> tuple[_Loader, yaml.Node | None]:
    with _yaml_errors(path, text):
        loader = _Loader(text)
        return loader, loader.get_single_node()


@contextmanager
def _yaml_errors(path: Path, text: str) -> Iterator[None]:
    """Whatever PyYAML says, as a ConfigError with the line."""
    try:
        yield
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        written = text.splitlines()
        if _ODD_SPACE.search("".join(written[line - 2 : line - 1])):  # YAML went on to the next one with it
            line -= 1
        shown = "".join(written[line - 1 : line])
        hint = 'put a value with ${…} in quotes: {npz: "${FOLDER}/gate.npz"}' if "${" in shown else _PLAIN
        raise ConfigError(f"{path}:{line}: {_reason(error, shown)}", hint=hint) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{path}:{line}: a character that YAML does not allow: {error.character!r}") from error
    except ValueError as error:  # a date or number that is none, e.g. 2026-99-99
        raise ConfigError(f"{path}: {error}", hint="write text that looks like a date or number in quotes") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: nested too deeply", hint=_PLAIN) from error


def _reason(error: yaml.MarkedYAMLError, line: str) -> str:
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "a tab indents this line; YAML takes spaces"
    if "'\\t'" in str(error.problem):
        return "a tab stands in this line; YAML takes spaces"
    if odd := _ODD_SPACE.search(line):
        return f"a no-break or wide space (U+{ord(odd[1]):04X}) stands in this line; YAML takes plain ones"
    if "expected a single document" in str(error.context):
        return "a second document begins here (`---`); one file holds one"
    return f"not YAML: {error.problem or error.context}"


class _Lines(dict[KeyPath, int]):
    """The line of each value, and how many values were looked at: what is merged (`<<`) adds none."""

    looks = 0


def _walk(path: Path, node: yaml.Node, at: KeyPath, lines: _Lines, above: tuple[int, ...]) -> None:
    """Note the line of every value; refuse equal keys, keys that are no text, and aliases without an end."""
    lines.looks += 1
    if id(node) in above or lines.looks > _MOST_VALUES:
        raise ConfigError(
            f"{path}:{_line(node)}: an alias that contains itself, or too many", hint="write the values out"
        )
    lines.setdefault(at, _line(node))
    if node.tag == _FLOAT and node.value.lower().strip("+-") in (".nan", ".inf"):
        raise ConfigError(
            f"{path}:{_line(node)}: {node.value} is no number that can be meant", hint="write a finite one"
        )
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            _walk(path, item, (*at, number), lines, (*above, id(node)))
    if isinstance(node, yaml.MappingNode):
        _walk_mapping(path, node, at, lines, (*above, id(node)))


def _walk_mapping(path: Path, node: yaml.MappingNode, at: KeyPath, lines: _Lines, above: tuple[int, ...]) -> None:
    seen: dict[str, int] = {}
    for key, value in node.value:
        if key.tag == _MERGE:
            for merged in value.value if isinstance(value, yaml.SequenceNode) else (value,):
                _walk(path, merged, at, lines, above)
            continue
        if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
            shown = key.value if isinstance(key, yaml.ScalarNode) else "…"
            raise ConfigError(f"{path}:{_line(key)}: the key {shown} is no text", hint=f'write it in quotes: "{shown}"')
        if key.value in seen:
            raise ConfigError(
                f"{path}:{_line(key)}: key {key.value!r} stands here and in line {seen[key.value]} already",
                hint="keep one of them",
            )
        seen[key.value] = _line(key)
        lines[*at, key.value] = _line(key)
        _walk(path, value, (*at, key.value), lines, above)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
