"""The vendor's module at run time: importing it, and its enumerations.

The builder's process starts anew for every build: what it imports stays small (no dataclasses, no pickle, no json).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qpipe_tensorrt.api import Member, Vendor


def load_vendor(module: str, extra: str) -> Vendor:
    """Import the vendor's package.

    Raises:
        UnavailableError: it is not installed, or cannot be loaded.
    """
    try:
        return cast("Vendor", import_module(module))
    except ImportError as error:
        from qpipe.errors import UnavailableError

        hint = f"pip install 'qpipe-tensorrt[{extra}]'"
        raise UnavailableError(f"{module} cannot be imported: {error}", hint=hint) from error


def member(enumeration: object, name: str) -> Member:
    """A member of one of the vendor's enumerations."""
    return cast("Member", getattr(enumeration, name))


def numbered(enumeration: object) -> dict[int, str]:
    """Names by number: to look a member up by itself costs four times as much, and its `name` searches them all.

    There are thousands of look-ups in a build: one for each line of the verbose log.
    """
    members = cast("Mapping[str, Member]", enumeration.__members__)  # type: ignore[attr-defined]  # pybind's
    return {int(value): name for name, value in members.items()}
