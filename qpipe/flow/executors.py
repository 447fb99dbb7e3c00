"""Which executor a run asks for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from qpipe.errors import ConfigError, nearest

if TYPE_CHECKING:
    from qpipe.execute.children.nursery import Nursery
    from qpipe.execute.executor import Executor
    from qpipe.flow.options import RunOptions
    from qpipe.plugins.registry import Registry
    from qpipe.store import Store

NAMES = ("local", "dask")


def open_executor(options: RunOptions, registry: Registry, store: Store, nursery: Nursery) -> Executor:
    """The executor of a run; nothing is connected yet. Children of this machine come from `nursery`.

    Raises:
        ConfigError: an unknown name, or options that do not go together.
    """
    if options.executor not in NAMES:
        raise ConfigError(
            f"no executor {options.executor!r}{nearest(options.executor, NAMES)}", hint=f"there are {', '.join(NAMES)}"
        )
    if options.executor == "dask":
        return _dask(options, store)
    if options.scheduler is not None:
        raise ConfigError(
            "--scheduler is for the executor dask", hint=f"--executor dask --scheduler {options.scheduler}"
        )
    from qpipe.execute.executor import LocalExecutor

    workers = options.workers or default_workers()
    return LocalExecutor(registry=registry, folder=store.root / "tmp", workers=workers, nursery=nursery)


def default_workers() -> int:
    """One child per CPU that this process may use, and three more: children wait for each other.

    For what calibration finds, and for reference outputs; and a last one that runs alone leaves CPUs idle.
    """
    return len(os.sched_getaffinity(0)) + 3


def _dask(options: RunOptions, store: Store) -> Executor:
    if options.scheduler is None:
        raise ConfigError(
            "the executor dask needs a scheduler", hint="--scheduler tcp://HOST:8786; see docs/scaling.md"
        )
    if options.workers is not None:
        raise ConfigError(
            "--workers is for the local executor", hint="a Dask worker takes as many cells at once as its resources say"
        )
    from qpipe.execute.elsewhere.dask import DaskExecutor

    return DaskExecutor(address=options.scheduler, store=store)
