"""The ledger: who moved which alias to what, and when, as parameters of one run per registered model.

MLflow's aliases have no compare-and-set: the last writer wins. The parameters of a run are immutable, so that of all
who write `alias.champion.000007` at the same time exactly one succeeds. The ledger is the authority; aliases follow.
"""

from __future__ import annotations

import getpass
import os
import re
import socket
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from qpipe.errors import ConfigError, PromotionError, nearest
from qpipe.records.codec import decode, encode
from qpipe.tracking.connection import artifact_location, experiment_id
from qpipe.tracking.runs import MAKER, find_or_create
from qpipe.tracking.tracker import Tracker

if TYPE_CHECKING:
    from mlflow.entities.model_registry import RegisteredModel

EXPERIMENT = "qpipe-ledger"
TAG = "qpipe.ledger"
"""On a registered model: the id of its ledger run. On that run: the model's name."""
_ENTRY = re.compile(r"alias\.(?P<alias>.+)\.(?P<sequence>\d{6})(?P<done>\.done)?")
_SETTLE_S = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One entry: an alias moved to a version."""

    model: str
    alias: str
    sequence: int
    action: Literal["promote", "rollback"]
    version: str
    previous: str | None
    """The version that the alias pointed to before, None where it did not exist."""
    engine: str
    evidence: str
    by: str
    at: str
    """UTC, ISO 8601."""
    reason: str = ""
    forced: bool = False
    run_id: str = ""
    """MLflow run that logged the engine."""
    token: str

    @property
    def key(self) -> str:
        """Name of the run parameter."""
        return f"alias.{self.alias}.{self.sequence:06d}"

    def __str__(self) -> str:
        return f"{self.by} moved {self.model}@{self.alias} to version {self.version} at {self.at} ({self.action})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """The ledger as read at one moment."""

    moves: tuple[Move, ...]
    """By alias, then sequence."""
    done: frozenset[tuple[str, int]]
    """Moves whose alias was seen to follow."""

    def of(self, alias: str) -> tuple[Move, ...]:
        """The moves of one alias, oldest first."""
        return tuple(move for move in self.moves if move.alias == alias)

    def head(self, alias: str) -> Move | None:
        """The latest move of an alias: where it has to point."""
        return self.of(alias)[-1] if self.of(alias) else None

    def is_done(self, move: Move) -> bool:
        """Whether the alias was seen to follow this move."""
        return (move.alias, move.sequence) in self.done


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The ledger run of one registered model."""

    tracker: Tracker
    model: str
    run_id: str

    def read(self) -> Book:
        """All moves.

        Raises:
            PromotionError: an entry that is none of ours, or was cut.
        """
        params = self.tracker.client.get_run(self.run_id).data.params
        found = [(match, value) for key, value in params.items() if (match := _ENTRY.fullmatch(key))]
        moves = [self._move(match[0], value) for match, value in found if not match["done"]]
        return Book(
            moves=tuple(sorted(moves, key=lambda move: (move.alias, move.sequence))),
            done=frozenset((match["alias"], int(match["sequence"])) for match, _ in found if match["done"]),
        )

    def write(self, move: Move) -> None:
        """Enter a move: the compare-and-set.

        Raises:
            PromotionError: somebody else entered a move under this number first; says who, what and when.
        """
        from mlflow.exceptions import MlflowException

        refused: MlflowException | None = None
        try:
            self.tracker.client.log_param(self.run_id, move.key, encode(move))
        except MlflowException as error:
            refused = error
        # Read back in any case: only what stands there counts, whatever a retried request was answered.
        entered = self.tracker.client.get_run(self.run_id).data.params.get(move.key)
        if entered is None:
            raise refused or PromotionError(
                f"the move {move.key} of {self.model} was accepted but does not stand there"
            )
        winner = self._move(move.key, entered)
        if winner.token != move.token:
            raise PromotionError(
                f"somebody else was first: {winner}", hint=f"look at `qpipe history {self.model}`, then decide again"
            )

    def _move(self, key: str, text: str) -> Move:
        try:
            return decode(Move, text)
        except ValueError as error:
            raise PromotionError(
                f"the entry {key} in the ledger of {self.model}, run {self.run_id}, cannot be read: {error}",
                hint=f"delete the tag {TAG} of the registered model: the next promotion begins a new ledger",
            ) from error

    def mark_done(self, move: Move) -> None:
        """Note that the alias follows; the same note may be written many times."""
        self.tracker.client.log_param(self.run_id, f"{move.key}.done", "yes")


def open_ledger(tracker: Tracker, model: str) -> Ledger:
    """The ledger of a registered model; model and ledger are made where they are missing.

    The creation of a registered model is atomic and carries the ledger's id, so that two first promotions at the same
    time agree. A model that was registered by hand before gets its ledger by a tag, which is read again after a pause.
    """
    found = registered_model(tracker, model)
    if found is not None and TAG in found.tags:
        return _checked(tracker, model, found.tags[TAG])
    made = _make_run(tracker, model)
    agreed = _agree(tracker, model, made, found)
    if agreed != made:
        tracker.client.delete_run(made)
    return _checked(tracker, model, agreed)


def find_ledger(tracker: Tracker, model: str) -> Ledger:
    """The ledger of a registered model that was promoted before.

    Raises:
        ConfigError: no such model.
        PromotionError: one that qpipe never promoted.
    """
    found = registered_model(tracker, model)
    if found is None:
        names = ", ".join(sorted(one.name for one in tracker.client.search_registered_models(max_results=20)))
        near = nearest(model, names.split(", "))
        raise ConfigError(
            f"no registered model {model!r} at {tracker.address}{near}", hint=f"there are: {names or 'none'}"
        )
    if TAG not in found.tags:
        raise PromotionError(f"{model} has no ledger: qpipe never promoted it", hint="promote an engine first")
    return _checked(tracker, model, found.tags[TAG])


def registered_model(tracker: Tracker, model: str) -> RegisteredModel | None:
    """The registered model, or None."""
    from mlflow.exceptions import MlflowException

    try:
        return tracker.client.get_registered_model(model)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def _make_run(tracker: Tracker, model: str) -> str:
    experiment = experiment_id(tracker.client, EXPERIMENT, artifact_location(tracker.uri))
    identity = {TAG: model, MAKER: uuid.uuid4().hex}  # this call's own run and its doubles, never another's
    tags = {**identity, "qpipe.role": "ledger"}
    run = find_or_create(tracker, experiment, identity, tags, f"ledger of {model}")
    tracker.client.set_terminated(run.info.run_id)  # parameters can still be added, and nobody takes it for an orphan
    return str(run.info.run_id)


def _agree(tracker: Tracker, model: str, made: str, found: RegisteredModel | None) -> str:
    """The run that everybody takes for this model's ledger, perhaps not ours."""
    from mlflow.exceptions import MlflowException

    if found is None:
        try:
            tracker.client.create_registered_model(
                model, tags={TAG: made}, description=f"Engines promoted by qpipe: {model}"
            )
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
    now = tracker.client.get_registered_model(model)
    if TAG not in now.tags:
        tracker.client.set_registered_model_tag(model, TAG, made)
        time.sleep(_SETTLE_S)
        now = tracker.client.get_registered_model(model)
    return str(now.tags[TAG])


def _checked(tracker: Tracker, model: str, run_id: str) -> Ledger:
    from mlflow.exceptions import MlflowException

    try:
        run = tracker.client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise PromotionError(
            f"the ledger of {model}, run {run_id}, does not exist",
            hint=f"correct the tag {TAG} of the registered model",
        ) from error
    if run.info.lifecycle_stage != "active":
        raise PromotionError(
            f"the ledger of {model}, run {run_id}, is deleted", hint=f"mlflow runs restore --run-id {run_id}"
        )
    return Ledger(tracker=tracker, model=model, run_id=run_id)


def whoami() -> str:
    """`user@host`."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container whose uid has no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def now() -> str:
    """UTC to the second, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
