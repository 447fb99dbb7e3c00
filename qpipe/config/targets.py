"""Target files: one YAML file per piece of hardware."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Literal

from qpipe.config.document import Document, read_document
from qpipe.config.names import Names
from qpipe.config.problems import Problem, fail, validated
from qpipe.config.text import HostText, LimitsText, TargetFileText, TargetText, TargetVariantText
from qpipe.errors import ConfigError, QpipeError
from qpipe.records.target import Host, Limits, Target

CORE = "qpipe-core"


def read_targets(folder: Path, owner: str) -> tuple[Target, ...]:
    """All targets of a folder, in order of file names; `owner` is who defines them, for messages.

    Raises:
        ConfigError: no such folder, a file that is no target, or two files with one name.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder of targets", hint="a target is a file targets/NAME.yaml")
    found: dict[str, tuple[Target, Path]] = {}
    for file in target_files(folder):
        target = read_target(file, owner)
        if target.name in found:
            raise ConfigError(
                f"{file}: target {target.name!r} is defined in {found[target.name][1]} already",
                hint="rename one of them",
            )
        found[target.name] = (target, file)
    return tuple(target for target, _ in found.values())


def target_files(folder: Path) -> tuple[Path, ...]:
    """The files of a folder that are targets, in order of their names; none where there is no such folder."""
    return tuple(sorted((*folder.glob("*.yaml"), *folder.glob("*.yml"))))


@cache  # a command over many pipeline files reads them once: they were half of its time
def first_party_targets() -> tuple[Target, ...]:
    """The targets that come with the core: data in the wheel, or `targets/` of a source tree.

    Raises:
        ConfigError: neither is there.
    """
    package = Path(__file__).resolve().parent.parent
    folders = (package / "_targets", package.parent / "targets")
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None:
        raise ConfigError(
            f"the installation of qpipe lacks its target files ({folders[0]})", hint="install qpipe-core again"
        )
    return read_targets(folder, owner=CORE)


def choose_targets(entries: Iterable[TargetText], names: Names, problems: list[Problem]) -> tuple[Target, ...]:
    """The targets of a pipeline: by name, or another one with some keys changed."""
    chosen: dict[str, Target] = {}
    for number, entry in enumerate(entries):
        at = ("targets", number)
        try:
            target = names.target(entry) if isinstance(entry, str) else _variant(entry, names)
        except QpipeError as error:
            problems.append(Problem.of(at, error))
            continue
        if target.name in chosen:
            problems.append(Problem(at=at, message=f"target {target.name!r} is named twice", hint="keep one of them"))
        chosen[target.name] = target
    return tuple(chosen.values())


def read_target(file: Path, owner: str) -> Target:
    """The target of one file; `owner` is who defines it, for messages.

    Raises:
        ConfigError: what is no target in it, with its line.
    """
    document = read_document(file, kind="target")
    text = validated(TargetFileText, document)
    _require_stem(document, text.name)
    return Target(
        name=text.name,
        backend=text.backend,
        summary=text.summary,
        arch=text.arch,
        isa=text.isa,
        scheme=text.scheme,
        batch_sizes=text.batch_sizes,
        threads=text.threads,
        host=_host(text.host),
        limits=_limits(text.limits),
        options=dict(text.options),
        owner=owner,
    )


def _require_stem(document: Document, name: str) -> None:
    if document.path.stem != name:
        problem = Problem(
            at=("name",),
            message=f"name is {name!r}, but the file is {document.path.name}",
            hint=f"rename the file to {name}.yaml, or the target to {document.path.stem}",
        )
        fail(document, (problem,))


def _variant(text: TargetVariantText, names: Names) -> Target:
    base = names.target(text.base)
    if text.name in names.targets:
        raise ConfigError(
            f"target {text.name!r} exists already ({names.targets[text.name].owner})",
            hint=f"give the variant of {text.base} a name of its own",
        )
    host = base.host if text.host is None else _host(text.host)
    limits = base.limits if text.limits is None else _limits(text.limits)
    return replace(
        base,
        name=text.name,
        summary=base.summary if text.summary is None else text.summary,
        isa=base.isa if text.isa is None else text.isa,
        scheme=base.scheme if text.scheme is None else text.scheme,
        batch_sizes=text.batch_sizes or base.batch_sizes,
        threads=text.threads or base.threads,
        host=host,
        limits=limits,
        options={**base.options, **(text.options or {})},
        owner="the pipeline file",
    )


def _host(text: HostText | Literal["local"]) -> Host:
    if text == "local":
        return Host()
    if text.adb is not None:
        return Host(kind="adb", address=text.adb)
    if text.ssh is not None:
        return Host(kind="ssh", address=text.ssh)
    return Host(kind="emulator", address=text.emulator or "", rows=text.rows)


def _limits(text: LimitsText) -> Limits:
    return Limits(timeout_s=text.timeout_s, memory_bytes=text.memory_bytes)
