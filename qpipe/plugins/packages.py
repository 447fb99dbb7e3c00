"""Installed distributions, asked without importing them: what `check` of a backend says, and what keys are made of."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

from qpipe.records.engine import Unavailable

ABSENT = "absent"


def package_version(name: str) -> str:
    """Version of an installed distribution, or `absent`."""
    try:
        return _installed(name)
    except PackageNotFoundError:
        return ABSENT


@cache  # what is imported stays what it is; what is absent may come
def _installed(name: str) -> str:
    return version(name)


def package_versions(*names: str) -> tuple[tuple[str, str], ...]:
    """Names and versions, as toolchains are told."""
    return tuple((name, package_version(name)) for name in names)


def missing_package(*names: str, hint: str) -> Unavailable | None:
    """The first of these that is not installed, with what would install it; None where all are here."""
    gone = next((name for name in names if package_version(name) == ABSENT), None)
    return Unavailable(reason=f"the package {gone} is not installed", hint=hint) if gone else None
