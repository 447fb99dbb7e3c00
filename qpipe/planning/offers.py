"""What a machine offers for a target: whether engines can be built and run there, and with what arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qpipe.plugins.answers import ask_availability, ask_scheme
from qpipe.records.engine import Availability
from qpipe.records.scheme import Scheme

if TYPE_CHECKING:
    from qpipe.plugins.registry import Registry
    from qpipe.records.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A backend's answers about one target, given on the machine that will do the work: both shape the keys."""

    availability: Availability
    scheme: Scheme
    code: str = ""
    """Distribution, version and code digest of the backend's plugin."""


def ask_backend(target: Target, registry: Registry) -> Offer:
    """What this machine offers.

    Raises:
        PluginError: no installed plugin brings the target's backend, or its answer is none.
        TargetError: the backend does not know the target's options or scheme.
    """
    backend = registry.backend(target.backend)
    code = registry.code_of_backend(target.backend)
    return Offer(availability=ask_availability(backend, target), scheme=ask_scheme(backend, target), code=code)
