"""`driftline produce`: events from a file."""

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from stream.cli.common import Run, app, command
from stream.errors import RefusedError
from stream.produce import BadRow, EventFile, Reading, produce_file

# A file that is wrong throughout need not say so a million times.
_BAD_ROWS_TOLD = 20


@command(app)
def produce(
    run: Run,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help=".jsonl, .csv or .parquet, also .gz; - for JSON lines on stdin.")
    ],
    rate: Annotated[float | None, typer.Option(min=0.001, help="Events a second at most.")] = None,
    limit: Annotated[int | None, typer.Option("-n", "--limit", min=1, help="End after so many rows.")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="End with 0 even if rows were left out.")] = False,
    columns: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="FIELD=COLUMN", help="For tables: the column of a field, as user_id=customer."),
    ] = None,
    event_type: Annotated[
        str | None, typer.Option(help="For tables without that column: the type of every event, as purchase.")
    ] = None,
) -> None:
    """Send the events of a file to the events topic, keyed by user.

    Columns of a table are fields of an event: event_type, occurred_at, user_id, item_id and so on; a row without
    event_id gets FILE:ROW. A row that is no event is said, left out and counted; the command then ends with 1.
    """
    source = EventFile(file, Reading(_columns(columns or ()), event_type))
    bad = 0

    def on_bad(row: BadRow) -> None:
        nonlocal bad
        bad += 1
        if bad <= _BAD_ROWS_TOLD:
            print(f"driftline: not sent: {row}", file=sys.stderr)
        elif bad == _BAD_ROWS_TOLD + 1:
            print("driftline: further rows that are not sent are only counted", file=sys.stderr)

    with ExitStack() as shown:
        on_sent = _progress(shown, source) if sys.stderr.isatty() and run.verbosity >= 0 else lambda _: None
        result = produce_file(run.settings, source, rate_per_s=rate, limit=limit, on_bad=on_bad, on_sent=on_sent)
    per_s = result.sent / result.seconds if result.seconds else 0.0
    left_out = f", {result.bad} rows left out" if result.bad else ""
    run.say(
        f"{result.sent} events sent to {run.settings.topics.events} in {result.seconds:.1f} s "
        f"({per_s:.0f} a second){left_out}."
    )
    if result.bad and not skip_bad:
        raise typer.Exit(1)


def _progress(shown: ExitStack, source: EventFile) -> Callable[[int], None]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    bar = shown.enter_context(
        Progress(
            TextColumn(source.name),
            BarColumn(),
            TextColumn("{task.fields[sent]} events"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
    )
    task = bar.add_task("", total=1.0, sent=0)

    def on_sent(sent: int) -> None:
        bar.update(task, completed=source.share_done, sent=sent)

    return on_sent


def _columns(given: Sequence[str]) -> dict[str, str]:
    columns = {}
    for text in given:
        own, equals, column = text.partition("=")
        if not equals or not own or not column:
            raise RefusedError(f"--map {text} is no FIELD=COLUMN, such as --map user_id=customer.")
        columns[own] = column
    return columns
