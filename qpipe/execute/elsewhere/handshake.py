"""Before any work: are the other machines' versions ours, do they see our store, and what do they offer?"""

from __future__ import annotations

import platform
import uuid
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from qpipe.errors import ConfigError, QpipeError, UnavailableError
from qpipe.planning.offers import Offer, ask_backend
from qpipe.planning.sources import source_digest
from qpipe.plugins.code import code_digest
from qpipe.plugins.packages import package_versions
from qpipe.records.codec import decode, encode
from qpipe.records.target import Target
from qpipe.store import Store
from qpipe.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping


ROOMS = (
    "data",
    "engines",
    "execute",
    "measure",
    "metrics",
    "models",
    "plugins",
    "prepare",
    "quant",
    "records",
    "store",
)
"""Where the work of a cell is done; what prints or logs may differ."""
PACKAGES = ("onnxruntime", "onnx", "onnx-ir", "numpy", "distributed")
_SPACE, _KEY = "store", "identity"


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """What shapes the bytes that a machine makes, and is in no target's toolchain."""

    qpipe: str
    source: str
    """Digest of the code that does the work: two machines may both say 0.1.0."""
    packages: tuple[tuple[str, str], ...]
    plugins: tuple[tuple[str, str], ...] = ()
    """Code of the stages and metrics that plugins bring."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeting:
    """A worker's answer to the handshake."""

    host: str
    versions: Versions
    store: str
    """Identity of the store as it sees it, or an empty string."""
    trouble: str
    """Why it cannot use the store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A worker's offer for a target, or why it has none."""

    offer: Offer | None
    message: str = ""
    hint: str = ""


def own_versions() -> Versions:
    """Those of this process; the code of plugins is read anew, as a worker may be older than its files."""
    from qpipe.plugins.loader import load_plugins

    code_digest.cache_clear()
    return Versions(
        qpipe=__version__,
        source=source_digest(*ROOMS),
        packages=package_versions(*PACKAGES),
        plugins=tuple(sorted(load_plugins().python_code().items())),
    )


def store_identity(store: Store) -> str:
    """A name that the store was given once: a folder of the same path on another disk has another."""
    found = store.recall(_SPACE, _KEY)
    if found is None:
        found = uuid.uuid4().hex
        store.remember(_SPACE, _KEY, found)
    return found


def greet(location: str) -> str:
    """On a worker: the store's location → a `Greeting` as JSON."""
    identity = trouble = ""
    try:
        store = Store(location)
        identity = store.recall(_SPACE, _KEY) or ""
        store.check_writable()
    except QpipeError as error:
        trouble = error.message
    return encode(Greeting(host=platform.node(), versions=own_versions(), store=identity, trouble=trouble))


def offer(text: str) -> str:
    """On a worker: a `Target` as JSON → an `Answer` as JSON."""
    from qpipe.plugins.loader import load_plugins

    try:
        return encode(Answer(offer=ask_backend(decode(Target, text), load_plugins())))
    except QpipeError as error:
        return encode(Answer(offer=None, message=error.message, hint=error.hint))


def check_greetings(greetings: Mapping[str, Greeting], store: Store) -> None:
    """Refuse workers that would work with other code, or elsewhere.

    Raises:
        ConfigError: a worker's versions differ, or it does not see the store.
    """
    ours, identity = own_versions(), store_identity(store)
    for address, greeting in greetings.items():
        who = f"worker {address} ({greeting.host})"
        if differing := _differences(ours, greeting.versions):
            raise ConfigError(f"{who} has {differing}", hint="install the same versions on every machine")
        if greeting.trouble or greeting.store != identity:
            why = greeting.trouble or "what lies there is not the same store"
            raise ConfigError(
                f"{who} does not see the store {store.location}: {why}",
                hint="--store FOLDER on a file system that all machines mount at that path, or a URL such as s3://…",
            )


def agreed_offer(target: Target, answers: Mapping[str, Answer]) -> Offer:
    """The one offer of all workers that carry a target's label.

    Raises:
        UnavailableError: a worker carries the label and cannot meet it.
        ConfigError: two of them differ, so that one key would name two engines.
    """
    first, known = "", None
    for address, answer in answers.items():
        if answer.offer is None:
            raise UnavailableError(f"worker {address} offers target:{target.name}: {answer.message}", hint=answer.hint)
        if known is not None and answer.offer != known:
            raise ConfigError(
                f"workers {first} and {address} both offer target:{target.name} and differ in "
                f"{_different_part(known, answer.offer)}",
                hint="give each kind of machine a target of its own, with `base:` in the pipeline file",
            )
        first, known = first or address, answer.offer
    if known is None:
        raise unmet((target.name,), "SCHEDULER")
    return known


def unmet(names: tuple[str, ...], scheduler: str) -> UnavailableError:
    """Nobody offers these targets; the hint is a command."""
    resources = " ".join(f"target:{name}=1" for name in names)
    return UnavailableError(
        f"no Dask worker offers {labels(names)}",
        hint="start one on such a machine: "
        f'dask worker {scheduler} --resources "{resources}" --nthreads 1 --memory-limit 0',
    )


def labels(names: tuple[str, ...]) -> str:
    """Targets as workers offer them, in a sentence."""
    return ", ".join(f"target:{name}" for name in names)


def _differences(ours: Versions, theirs: Versions) -> str:
    if theirs.qpipe != ours.qpipe:
        return f"qpipe {theirs.qpipe}; this machine has {ours.qpipe}"
    if theirs.source != ours.source:
        return f"other code of qpipe {ours.qpipe} than this machine"
    there = dict(theirs.packages)
    found = [f"{name} {there.get(name)}; here {number}" for name, number in ours.packages if there.get(name) != number]
    return ", ".join(found) or _other_plugins(dict(ours.plugins), dict(theirs.plugins))


def _other_plugins(ours: Mapping[str, str], theirs: Mapping[str, str]) -> str:
    """A stage or metric of one name and two codes; one that a worker lacks is an unknown name there, if it is used."""
    differing = (name for name in ours if name in theirs and theirs[name] != ours[name])
    return next((f"{name} of {theirs[name]}; here it is of {ours[name]}" for name in differing), "")


def _different_part(one: Offer, other: Offer) -> str:
    if one.scheme != other.scheme:
        return f"their scheme ({one.scheme.name}, {other.scheme.name})"
    parts = [field.name for field in fields(one.availability)]
    part = next(name for name in parts if getattr(one.availability, name) != getattr(other.availability, name))
    return f"{part} ({getattr(one.availability, part)}, {getattr(other.availability, part)})"
