"""How long MLflow may try: its defaults block a call for minutes when the server is gone."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from qpipe.errors import TrackingError

# Waiting 2 + 4 + 8 s rides out a restart of the server; MLflow's default of 7 retries takes 246 s.
OURS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # the run has a progress display of its own
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout belongs to `--json`
}

_PASSWORD = re.compile(r"^([\w+.-]+://[^/?#:@]*):.*@")
_SECRETS = re.compile(r"(?<=[?&]password=)[^&#]*|(?<=[?&]passwd=)[^&#]*")

_guard = threading.Lock()
_holders: dict[str, int] = {}


def _enter(settings: dict[str, str]) -> list[str]:
    """Set what nobody else has set; returns the names that this holder shares."""
    shared = []
    with _guard:
        for name, value in settings.items():
            if name not in _holders and name in os.environ:
                continue  # the user's own choice
            os.environ.setdefault(name, value)
            _holders[name] = _holders.get(name, 0) + 1
            shared.append(name)
    return shared


def _leave(shared: list[str]) -> None:
    with _guard:
        for name in shared:
            _holders[name] -= 1
            if not _holders[name]:
                del _holders[name]
                os.environ.pop(name, None)


@contextmanager
def patience(settings: dict[str, str] | None = None) -> Iterator[None]:
    """Bounded retries while inside; the environment is as before afterwards, whatever other threads do."""
    shared = _enter(settings or OURS)
    try:
        yield
    finally:
        _leave(shared)


def address(uri: str) -> str:
    """A tracking URI as it is printed: without the password, also where it is no URI that can be parsed."""
    return _SECRETS.sub("***", _PASSWORD.sub(r"\1:***@", uri))


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


SYNC = "what was measured is in the store; log it later with `qpipe sync RUN_ID`"
BEGIN = "once MLflow answers, run the same command again: it goes on from what is finished"
PROMOTE = "once MLflow answers: `qpipe sync RUN_ID` for a run that was lost in the middle, else promote again"
READ = "`qpipe doctor` says whether MLflow answers"


@contextmanager
def calling(uri: str, doing: str, hint: str = SYNC) -> Iterator[None]:
    """MLflow's and the network's errors become a `TrackingError` that says what was being done.

    Raises:
        TrackingError: the server is gone, or refused.
    """
    from mlflow.exceptions import MlflowException

    with patience():
        try:
            yield
        except (MlflowException, OSError) as error:
            raise TrackingError(
                f"MLflow at {address(uri)}: {doing}: {first_line(error)}",
                hint=hint,
            ) from error


_TALKATIVE = ("mlflow.store.db.utils", "mlflow.store.model_registry.abstract_store")


class _ErrorsAlone(logging.Filter):
    """One instance per caller, so that threads do not undo each other as they would with levels."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR


@contextmanager
def quiet() -> Iterator[None]:
    """MLflow announces the tables of a new database and each wait for a version; that is no news for our users."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    own = _ErrorsAlone()
    for logger in loggers:
        logger.addFilter(own)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(own)
