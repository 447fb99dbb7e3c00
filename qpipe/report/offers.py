"""Targets on the terminal: one line each with what can be done here, then once what is missing, and for which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qpipe.report.columns import columns, plain

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table

READY = "ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a target is, and whether engines can be built and run here."""

    target: str
    backend: str
    build: str
    """`ready`, `ready; …` or what is missing."""
    run: str
    hint: str
    summary: str

    @property
    def here(self) -> str:
        """One word: `ready`, `builds`, `runs` or `away`."""
        build, run = (said.startswith(READY) for said in (self.build, self.run))
        return READY if build and run else "builds" if build else "runs" if run else "away"

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is missing, and what the first build or run brings with it; each once."""
        said = (state.removeprefix(READY).removeprefix("; ") for state in (self.build, self.run))
        return tuple(dict.fromkeys(filter(None, said)))


def offers_list(offers: Sequence[Offer]) -> Group:
    """One line a target: a summary that the screen has no room for ends in `…`; `qpipe targets NAME` has it whole."""
    from rich.console import Group
    from rich.text import Text

    table = columns("target", "backend", "here", "summary", folds=("summary",), gap=2)
    found: dict[str, list[str]] = {}
    for offer in offers:
        summary = Text(offer.summary, no_wrap=True, overflow="ellipsis")
        table.add_row(*plain(offer.target, offer.backend, offer.here), summary)
        for remark in offer.remarks:
            found.setdefault(remark, []).append(offer.target)
    missing = [Text(f"{remark}: {', '.join(targets)}") for remark, targets in found.items()]
    parts: list[RenderableType] = [table, "", *missing, *([""] if missing else [])]
    return Group(*parts, Text("builds: engines can be built here, not run; all of one: qpipe targets NAME"))


def offer_table(offer: Offer) -> Table:
    """Everything of one target."""
    table = columns(offer.target, "", folds=("",), gap=2)
    for name, said in (
        ("summary", offer.summary),
        ("backend", offer.backend),
        ("build", offer.build),
        ("run", offer.run),
        ("hint", offer.hint),
    ):
        if said:
            table.add_row(name, *plain(said))
    return table
