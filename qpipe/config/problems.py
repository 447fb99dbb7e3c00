"""What is wrong in a file, collected, each with file, line, key and the nearest right one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from qpipe.config.document import Document, KeyPath
from qpipe.errors import ConfigError, QpipeError, nearest

M = TypeVar("M", bound=BaseModel)

TAGS = ("(text)", "(mapping)", "(list)", "(number)")
"""Names of alternatives in pydantic's error locations; they are no keys of the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong."""

    at: KeyPath
    message: str
    hint: str = ""

    @classmethod
    def of(cls, at: KeyPath, error: QpipeError) -> Problem:
        """An error of a lower room, placed in the file."""
        return cls(at=at, message=error.message, hint=error.hint)


def unknown_names(what: str, asked: tuple[str, ...] | None, known: tuple[str, ...], at: KeyPath) -> tuple[Problem, ...]:
    """What of the names (of targets, of recipes) the pipeline does not have."""
    return tuple(
        Problem(
            at=(*at, number),
            message=f"the pipeline has no {what} {name!r}{nearest(name, known)}",
            hint=f"its {what}s are {', '.join(known)}",
        )
        for number, name in enumerate(asked or ())
        if name not in known
    )


def fail(document: Document, problems: Iterable[Problem]) -> None:
    """Raise all problems as one error: wrong lines in order, then what is missing; return where there is none.

    Raises:
        ConfigError: the first problem is the message, the others stand in the hint.
    """
    ordered = sorted(problems, key=lambda problem: (not document.has(problem.at), _line(document, problem)))
    if not ordered:
        return
    shown = [f"{document.place(problem.at)}: {problem.message}" for problem in ordered]
    hint = "\n".join((*((ordered[0].hint,) if ordered[0].hint else ()), *(f"also {line}" for line in shown[1:])))
    raise ConfigError(shown[0], hint=hint)


def validated(model: type[M], document: Document) -> M:
    """The document as a pydantic model, strictly.

    Raises:
        ConfigError: every unknown key, missing key and wrong value, with its line.
    """
    found, problems = tolerated(model, document)
    fail(document, problems)
    return found


def tolerated(model: type[M], document: Document) -> tuple[M, tuple[Problem, ...]]:
    """The document without its unknown keys, and these as problems: so that what else is wrong is found as well.

    Raises:
        ConfigError: something else than an unknown key is wrong.
    """
    text = json.dumps(document.data, default=str)
    try:
        return model.model_validate_json(text, strict=True), ()
    except ValidationError as error:
        problems = problems_of(error, model.model_json_schema())
        unknown = [_keys(detail) for detail in error.errors() if detail["type"] == "extra_forbidden"]
    try:
        return model.model_validate_json(_without(text, unknown), strict=True), problems
    except ValidationError:
        fail(document, problems)
        raise


def _without(text: str, unknown: Iterable[KeyPath]) -> str:
    """The JSON text without some keys."""
    data = json.loads(text)
    for at in unknown:
        inside = data
        for part in at[:-1]:
            inside = inside[part]
        inside.pop(at[-1], None)
    return json.dumps(data)


def _keys(detail: ErrorDetails) -> KeyPath:
    """Where in the file an error of pydantic stands."""
    return tuple(part for part in detail["loc"] if part not in TAGS and part != "[key]")


def problems_of(error: ValidationError, schema: Mapping[str, object], under: KeyPath = ()) -> tuple[Problem, ...]:
    """Pydantic's errors in our words; `under` is where the validated value stands in the file."""
    found = (_problem(detail, schema, under) for detail in error.errors(include_url=False))
    return tuple(dict.fromkeys(found))


def dotted(at: KeyPath) -> str:
    """`data.gate.slices[0]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at)
    return text.removeprefix(".")


def _line(document: Document, problem: Problem) -> int:
    return int(document.place(problem.at).rpartition(":")[2])


def _problem(detail: ErrorDetails, schema: Mapping[str, object], under: KeyPath) -> Problem:
    inner = _keys(detail)
    at, kind = (*under, *inner), detail["type"]
    inside = dotted(at[:-1]) or "the file"
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        known = keys_at(schema, inner[:-1])
        return Problem(
            at=at,
            message=f"unknown key {at[-1]!r} in {inside}{nearest(str(at[-1]), known)}",
            hint=f"known keys: {', '.join(known)}" if known else "",
        )
    if kind in ("missing", "missing_argument"):
        return Problem(at=at, message=f"{inside} lacks the key {at[-1]!r}", hint=f"add `{at[-1]}: …`")
    return Problem(at=at, message=f"{dotted(at) or 'the file'}: {_reason(detail)}", hint=_hint(detail))


def _reason(detail: ErrorDetails) -> str:
    context = detail.get("ctx") or {}
    if detail["type"] == "value_error":
        return str(context.get("error", detail["msg"]))
    if detail["type"] in ("literal_error", "enum"):
        expected = str(context.get("expected", ""))
        known = [name.strip(" '") for name in expected.replace(" or ", ", ").split(",")]
        return f"unknown value {detail['input']!r}{nearest(str(detail['input']), known)}"
    text = detail["msg"].removeprefix("Input ")
    found = detail["input"]
    shown = "nothing" if found is None else "a mapping" if isinstance(found, dict) else repr(found)
    return f"{text}, found {shown}"


def _hint(detail: ErrorDetails) -> str:
    context = detail.get("ctx") or {}
    return f"one of {context['expected']}" if detail["type"] == "literal_error" else ""


def keys_at(schema: Mapping[str, object], at: KeyPath) -> tuple[str, ...]:
    """The keys that a JSON schema allows at a place."""
    nodes = _resolved(schema, schema)
    for part in at:
        nodes = [inner for node in nodes for child in _children(node, part) for inner in _resolved(child, schema)]
    names: dict[str, None] = {}
    for node in nodes:
        properties = node.get("properties")
        names.update(dict.fromkeys(properties if isinstance(properties, dict) else ()))
    return tuple(names)


def _children(node: Mapping[str, object], part: str | int) -> list[Mapping[str, object]]:
    properties, items, rest = node.get("properties"), node.get("items"), node.get("additionalProperties")
    if isinstance(part, int):
        return [items] if isinstance(items, dict) else []
    if isinstance(properties, dict) and part in properties:
        return [properties[part]]
    return [rest] if isinstance(rest, dict) else []


def _resolved(node: Mapping[str, object], root: Mapping[str, object]) -> list[Mapping[str, object]]:
    reference, definitions = node.get("$ref"), root.get("$defs")
    if isinstance(reference, str) and isinstance(definitions, dict):
        return _resolved(definitions[reference.rpartition("/")[2]], root)
    for key in ("anyOf", "oneOf", "allOf"):
        options = node.get(key)
        if isinstance(options, list):
            return [inner for option in options for inner in _resolved(option, root)]
    return [node]
