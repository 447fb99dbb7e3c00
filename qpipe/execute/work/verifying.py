"""The answers of a registered engine, in a guarded child: a library that crashes or hangs takes nothing down."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qpipe.data import open_role, unsealed
from qpipe.engines import check_requirements, read_engine
from qpipe.errors import EngineError
from qpipe.execute.work.passes import real_batches
from qpipe.measure.feeds import digest_outputs, make_feeds
from qpipe.plugins.loader import load_plugins
from qpipe.records.codec import decode
from qpipe.records.data import DataSpec
from qpipe.records.target import Target

if TYPE_CHECKING:
    from qpipe.plugins.backend import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyJob:
    """Run the rows that the evaluation of an engine sampled."""

    engine: str
    """The engine's folder."""
    target: Target
    data: DataSpec
    data_digest: str
    """Of the gate rows that the engine was evaluated on."""


def run_verification(request: str, progress: Progress) -> str:
    """Entry of the child: a `VerifyJob` as JSON → the digest of the engine's outputs.

    Raises:
        EngineError: the engine cannot run here, or the gate rows are others than those of its evaluation.
    """
    job = decode(VerifyJob, request)
    engine = read_engine(Path(job.engine))
    check_requirements(engine)
    role = open_role(unsealed(job.data), "gate", engine.signature)
    if role.digest != job.data_digest:
        raise EngineError("the gate data has changed since: its answers cannot be compared")
    progress.step("answer")
    session = load_plugins().backend(engine.backend).open(engine, job.target)
    try:
        return digest_outputs(session, make_feeds(real_batches(role), job.target.batch_sizes, engine.signature))
    finally:
        session.close()
