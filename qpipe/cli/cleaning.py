"""`clean`: room on the store's disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from qpipe.cli.options import JsonFlag, StoreOption, print_json, results

if TYPE_CHECKING:
    from qpipe.flow.finished.room import Room


def clean(
    *,
    older: Annotated[float, typer.Option("--older", metavar="DAYS", help="Only what was made before that.", min=0)] = 7,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go; remove nothing.")] = False,
    store: StoreOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Remove from the store what a run can make again. Evidence, judged engines and looks stay."""
    from qpipe.flow.finished.room import make_room
    from qpipe.flow.workplace import open_store

    place = open_store(store)
    rooms = make_room(place, older_days=older, dry=dry_run)
    freed = sum(room.size_bytes for room in rooms)
    left = place.size() - (freed if dry_run else 0)
    if as_json:
        from qpipe.records.codec import plain

        rooms_said = [plain(room) for room in rooms]
        print_json({"removed": not dry_run, "rooms": rooms_said, "bytes": freed, "left_bytes": left})
    else:
        _show(rooms)
        typer.echo(_balance(freed, left, older, dry=dry_run))


def _show(rooms: tuple[Room, ...]) -> None:
    from qpipe.report.columns import columns
    from qpipe.report.table import size

    if rooms:
        table = columns("what", "objects", "size", folds=("what",), right=("objects", "size"), gap=2)
        for room in rooms:
            table.add_row(room.what, str(room.objects), size(room.size_bytes))
        results().print(table)


def _balance(freed: int, left: int, older: float, *, dry: bool) -> str:
    from qpipe.report.table import size

    if not freed:
        return f"nothing older than {older:g} days that a run could make again; {size(left)} stay"
    if dry:
        return f"would free {size(freed)} of {size(freed + left)}; evidence, judged engines and looks stay"
    return f"freed {size(freed)}; {size(left)} of evidence, judged engines and what is younger stay"
