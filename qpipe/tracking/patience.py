"""How long MLflow may try: its defaults block a call for minutes when the server is gone."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from qpipe.errors import PromotionError, QpipeError, TrackingError, UnreachableError

# Waiting 2 + 4 + 8 s rides out a restart of the server; MLflow's default of 7 retries takes 246 s.
OURS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",  # a gateway may ask for an hour
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # the run has a progress display of its own
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout belongs to `--json`
}

_PASSWORD = re.compile(r"^([\w+.-]+://[^/?#:@]*):.*@")
_EMBEDDED = re.compile(r"([\w+.-]+://[^/?#\s:@]*):[^/?#\s]*@")
"""The same within a sentence: MLflow's errors name whole addresses."""
_SECRETS = re.compile(r"(?<=[?&]password=)[^&#\s]*|(?<=[?&]passwd=)[^&#\s]*")

_LONG = 300
"""Characters of an error that are told."""

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
    """The first line of an error's text without passwords, or its type where it has none.

    A long one loses its middle: addresses stand there, and the cause at the end.
    """
    lines = str(error).strip().splitlines()
    line = _SECRETS.sub("***", _EMBEDDED.sub(r"\1:***@", lines[0])) if lines else type(error).__name__
    return line if len(line) <= _LONG else f"{line[: _LONG // 2]} … {line[-_LONG // 2 :]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """What MLflow is asked for, and what is to be done where it cannot be had."""

    lost: str
    """Hint where nobody answers."""
    denied: str
    """What to do once this user may do it."""
    error: type[QpipeError] = TrackingError
    """Of an errand that was denied."""


SYNC = Errand(
    lost="what was measured is in the store; log it later with `qpipe sync RUN_ID`", denied="`qpipe sync RUN_ID`"
)
BEGIN = Errand(
    lost="once MLflow answers, run the same command again: it goes on from what is finished",
    denied="run the same command again",
    error=UnreachableError,
)
PROMOTE = Errand(
    lost="once MLflow answers: `qpipe sync RUN_ID` for a run that was lost in the middle, else promote again",
    denied="`qpipe promote RUN_ID`",
    error=PromotionError,
)
READ = Errand(lost="`qpipe doctor` says whether MLflow answers", denied="try again")


def rights(error: BaseException) -> str:
    """What a user needs to whom the server answered 401 or 403; empty for every other error."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    name = getattr(error, "error_code", "")
    if status == 401 or name == "UNAUTHENTICATED":
        return "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, of a user there"
    if status == 403 or name == "PERMISSION_DENIED":
        return "this user needs the right to do that: ask who runs the server"
    return ""


@contextmanager
def calling(uri: str, doing: str, errand: Errand = SYNC) -> Iterator[None]:
    """MLflow's and the network's errors become a line that says what was being done.

    Raises:
        TrackingError: the server is gone, or refused.
        QpipeError: this user may not do that: the errand's error.
    """
    from mlflow.exceptions import MlflowException

    with patience():
        try:
            yield
        except (MlflowException, OSError) as error:
            message = f"MLflow at {address(uri)}: {doing}: {first_line(error)}"
            if needed := rights(error):
                raise errand.error(message, hint=f"{needed}; then {errand.denied}") from error
            raise TrackingError(message, hint=errand.lost) from error


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
