"""`driftline doctor`: is this machine ready for a worker?"""

from dataclasses import asdict

import typer
from rich.markup import escape
from rich.table import Table

from stream.cli.common import Output, Run, app, command, console

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@command(
    app,
    settings={"model.path": typer.Option("--model", metavar="DIR", help="Folder of the model.")},
)
def doctor(run: Run) -> None:
    """Check versions, broker, topics, model, disk and port, and say what to do; ends with 1 if a worker would fail."""
    from stream.doctor import examine  # late: it loads the model

    checks = list(examine(run.settings))
    if run.output is Output.table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("check", "", "found", "what to do"):
            table.add_column(name, overflow="fold")
        for check in checks:
            status = f"[{_COLOURS[check.status]}]{check.status}[/]"
            table.add_row(check.name, status, escape(check.found), escape(check.todo))
        console().print(table)
    else:
        run.document([asdict(check) for check in checks])
    if any(check.status == "fail" for check in checks):
        raise typer.Exit(1)
