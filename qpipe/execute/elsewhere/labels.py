"""Which workers offer a target: asked before work, and waited for where they were there for an earlier run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from qpipe.execute.children.watch import Log
from qpipe.execute.elsewhere import gather, handshake

if TYPE_CHECKING:
    from distributed import Client

_met: set[tuple[str, str]] = set()
"""Schedulers, and the targets that their workers have offered to this process."""


def offering(client: Client, scheduler: str, targets: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    """Addresses of the workers that offer each target.

    One that an earlier run of this process has met is waited for, as in the middle of a run, but once: between two of
    many pipelines its worker may be starting again.

    Raises:
        UnavailableError: a target that no worker offers.
    """
    wanted = {(scheduler, target) for target in targets}
    until = time.monotonic() + gather.ABSENCE_S
    told: tuple[str, ...] = ()
    while not all((found := _carriers(client, targets)).values()):
        missing = tuple(target for target in targets if not found[target])
        known = all((scheduler, target) in _met for target in missing)
        if not known or time.monotonic() >= until:
            _met.difference_update(wanted)
            raise handshake.unmet(missing, scheduler)
        if missing != told:
            Log().say(gather.waiting(f"offers {handshake.labels(missing)} any more"))
            told = missing
        time.sleep(gather.LOOK_S)
    _met.update(wanted)
    return found


def _carriers(client: Client, targets: Sequence[str]) -> dict[str, tuple[str, ...]]:
    workers = client.scheduler_info()["workers"].items()
    return {
        target: tuple(address for address, facts in workers if facts["resources"].get(f"target:{target}"))
        for target in targets
    }
