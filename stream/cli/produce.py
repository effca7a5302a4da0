"""`driftline produce`: events or items from a file."""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from stream.cli.common import Run, app, command
from stream.errors import ProduceError, RefusedError
from stream.event_file import BadRow, EventFile
from stream.event_table import Reading
from stream.produce import produce_file, produce_items
from stream.pseudonym import KEY_VARIABLE, Pseudonyms
from stream.replay.mapping import SHORT
from stream.settings import Settings

# A file that is wrong throughout need not say so a million times.
_BAD_ROWS_TOLD = 20


@command(app)
def produce(
    run: Run,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help=".jsonl, .csv or .parquet, also .gz; - for JSON lines on stdin.")
    ],
    items: Annotated[
        bool, typer.Option("--items", help="FILE holds items of the catalogue: they go to the items topic.")
    ] = False,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Records a second at most.")] = None,
    limit: Annotated[int | None, typer.Option("-n", "--limit", min=1, help="End after so many rows.")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="End with 0 even if rows were left out.")] = False,
    columns: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="FIELD=COLUMN", help="For tables: the column of a field, as user_id=customer."),
    ] = None,
    event_type: Annotated[
        str | None, typer.Option(help="For tables without that column: the type of every event, as purchase.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|auto", help="Layout of a file of events that is not ours; auto: told by its content."
        ),
    ] = None,
    pseudonyms: Annotated[
        bool,
        typer.Option(
            "--pseudonyms",
            help="Keyed hashes in place of the users' ids; the key is in DRIFTLINE_PSEUDONYM_KEY. "
            "Always, where events.pseudonyms is producer.",
        ),
    ] = False,
) -> None:
    """Send the events of a file to the events topic, keyed by user, or with --items items to the items topic.

    Columns of a table are fields of an event: event_type, occurred_at, user_id, item_id and so on; a row without
    event_id gets FILE:ROW. A row that is no event is said, left out and counted; the command then ends with 1.

    With --items the fields are item_id, name, category (a path may be written A > B > C), brand, price, currency, text,
    available, expires_at, properties; other columns are left out. A row replaces all that was known of its item; one
    whose column "deleted" is true takes the item out.
    """
    if items and (event_type or pseudonyms or preset):
        raise RefusedError("--event-type, --preset and --pseudonyms are for events: leave them out, or --items.")
    mapped = _columns(columns or (), items)
    reading = (
        Reading(mapped, event_type, of_items=items) if preset is None else _layout(file, preset, mapped, event_type)
    )
    source = EventFile(file, reading)
    topic = run.settings.topics.items if items else run.settings.topics.events
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
        if items:
            result = produce_items(run.settings, source, rate_per_s=rate, limit=limit, on_bad=on_bad, on_sent=on_sent)
        else:
            result = produce_file(
                run.settings,
                source,
                rate_per_s=rate,
                limit=limit,
                pseudonyms=chosen_pseudonyms(run.settings, pseudonyms),
                on_bad=on_bad,
                on_sent=on_sent,
            )
    per_s = result.sent / result.seconds if result.seconds else 0.0
    left_out = f", {result.bad} rows left out" if result.bad else ""
    run.say(f"{result.sent} {source.what} sent to {topic} in {result.seconds:.1f} s ({per_s:.0f} a second){left_out}.")
    if result.bad and not skip_bad:
        raise typer.Exit(1)


def chosen_pseudonyms(settings: Settings, asked: bool) -> Pseudonyms | None:
    """By the flag or by the settings. Raises SettingsError without a key."""
    if asked and settings.events.pseudonyms == "worker":
        raise RefusedError(
            "--pseudonyms, and events.pseudonyms = worker: the worker would hash the hashes, and nobody could be "
            "looked up. Set events.pseudonyms to producer."
        )
    if not asked and settings.events.pseudonyms != "producer":
        return None
    return Pseudonyms(os.environ.get(KEY_VARIABLE, ""))


def _progress(shown: ExitStack, source: EventFile) -> Callable[[int], None]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    bar = shown.enter_context(
        Progress(
            TextColumn(source.name),
            BarColumn(),
            TextColumn("{task.fields[sent]} " + source.what),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
    )
    task = bar.add_task("", total=1.0, sent=0)

    def on_sent(sent: int) -> None:
        bar.update(task, completed=source.share_done, sent=sent)

    return on_sent


def _columns(given: Sequence[str], items: bool) -> dict[str, str]:
    columns = {}
    for text in given:
        own, equals, column = text.partition("=")
        if not equals or not own or not column:
            raise RefusedError(f"--map {text} is no FIELD=COLUMN, such as --map user_id=customer.")
        columns[own if items else SHORT.get(own, own)] = column
    return columns


def _layout(file: Path, preset: str, columns: dict[str, str], event_type: str | None) -> Reading:
    """How a replay would read the file. Raises RefusedError."""
    from stream.replay.files import find_files
    from stream.replay.log import LogSpec, find_layout

    spec = LogSpec((str(file),), preset=None if preset == "auto" else preset, columns=columns, event_type=event_type)
    try:
        return find_layout(find_files(str(file))[0], spec).reading
    except ProduceError as error:
        raise RefusedError(str(error)) from None
