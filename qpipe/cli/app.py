"""The `qpipe` program: one line per command. The work of each stands in a module of its own."""

from __future__ import annotations

from typing import Annotated

import typer

from qpipe.allowance import WITHOUT_NUMPY, check_allowance
from qpipe.cli import cleaning, drafting, judging, listing, promoting, running, scaffolding
from qpipe.cli.doctor import doctor
from qpipe.cli.settingup import setup

app = typer.Typer(
    name="qpipe",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="From a trained model to a promoted engine on every piece of hardware, with evidence you can sign.",
)


def _version(asked: bool) -> None:
    if asked:
        from qpipe.version import __version__

        typer.echo(f"qpipe {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    del version  # said by its callback
    if context.invoked_subcommand not in WITHOUT_NUMPY:
        check_allowance()


app.command("demo")(running.demo)
app.command("init")(drafting.init)
app.command("plan")(running.plan)
app.command("run")(running.run)
app.command("gate")(judging.gate)
app.command("report")(judging.report)
app.command("compare")(judging.compare)
app.command("explain")(judging.explain)
app.command("promote")(promoting.promote)
app.command("sync")(promoting.sync)
app.command("rollback")(promoting.rollback)
app.command("history")(promoting.history)
app.command("verify")(promoting.verify)
app.command("clean")(cleaning.clean)
app.command("targets")(listing.targets)
app.command("stages")(listing.stages)
app.command("gates")(listing.gates)
app.command("plugins")(listing.plugins)
app.command("schema")(listing.schema)
app.command("doctor")(doctor)
app.command("setup")(setup)
app.command("new-target")(scaffolding.new_target)
