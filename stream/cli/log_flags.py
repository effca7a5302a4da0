"""The options that say which log: of every command that replays one."""

import functools
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream.cli.common import Run, printable

if TYPE_CHECKING:
    from stream.event_file import BadRow
    from stream.replay.log import LogSpec

BAD_ROWS_TOLD = 5

SOURCES = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        help="Files, folders or patterns (JSON lines, CSV, Parquet, also packed), s3://BUCKET/PREFIX, - or topic:NAME; "
        "several are one log.",
    ),
]
_FLAGS: dict[str, tuple[Any, Any]] = {
    "preset": (
        Annotated[
            str | None,
            typer.Option(help="Layout of files that are not ours, where their content does not tell; none: ours."),
        ],
        None,
    ),
    "columns": (
        Annotated[
            list[str] | None,
            typer.Option(
                "--map", metavar="FIELD=COLUMN", help="Where a field of our events stands, such as user=visitorid."
            ),
        ],
        None,
    ),
    "map_file": (
        Annotated[
            Path | None,
            typer.Option("--map-file", metavar="FILE", help="The same and more from a TOML file: see the README."),
        ],
        None,
    ),
    "event_type": (
        Annotated[str | None, typer.Option("--event-type", help="Type of rows that have none.")],
        None,
    ),
    "order": (
        Annotated[
            str,
            typer.Option(
                "--order",
                metavar="log|time|sorted",
                help="Sources one after another, merged by event time, or sorted by it.",
            ),
        ],
        "log",
    ),
    "begin": (
        Annotated[
            str,
            typer.Option(
                "--from", metavar="WHERE", help="earliest, ts=TIME of events or last=30m; a topic: also offset=N."
            ),
        ],
        "earliest",
    ),
    "end": (
        Annotated[
            str, typer.Option("--to", metavar="WHERE", help="latest or ts=TIME of events; a topic: also offset=N.")
        ],
        "latest",
    ),
    "limit": (Annotated[int | None, typer.Option(min=1, help="Rows at most.")], None),
    "users": (
        Annotated[str | None, typer.Option(metavar="ID,...|@FILE", help="Only these users; @FILE: one id a line.")],
        None,
    ),
    "bad": (
        Annotated[
            str,
            typer.Option(metavar="skip|stop", help="What is no event, or gone: leave it out, counted, or stop there."),
        ],
        "skip",
    ),
}
"""Option -> its kind and default, as parameters of `_spec`."""

Processes = Annotated[int, typer.Option(min=0, help="Processes that share the work; 0: as many as there are cores.")]
ChunkRecords = Annotated[
    int,
    typer.Option(
        "--chunk-records", min=1, max=1_000_000, help="A user gets a list for so many records of a partition together."
    ),
]
Lists = Annotated[
    str | None,
    typer.Option(metavar="chunk|event|none", help="A list a user and chunk, for each event, or states only."),
]


def takes_log(function: Callable[..., None], sources: Any = SOURCES) -> Callable[..., None]:
    """Gives a command (run, spec, ...) the options that say which log; what they say becomes its `spec`.

    sources: the kind of the option or argument `sources`.
    """
    run, _, *own = inspect.signature(function).parameters.values()
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        run,
        inspect.Parameter("sources", keyword, annotation=sources),
        *(parameter.replace(kind=keyword) for parameter in own),
        *(
            inspect.Parameter(name, keyword, default=default, annotation=kind)
            for name, (kind, default) in _FLAGS.items()
        ),
    ]

    @functools.wraps(function)
    def wrapper(run: Run, sources: list[str], **given: Any) -> None:
        flags = {name: given.pop(name) for name in _FLAGS}
        function(run, spec=_spec(sources, **flags), **given)

    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # `command` reads it
    return wrapper


def _spec(
    sources: list[str],
    *,
    preset: str | None,
    columns: list[str] | None,
    map_file: Path | None,
    event_type: str | None,
    order: str,
    begin: str,
    end: str,
    limit: int | None,
    users: str | None,
    bad: str,
) -> "LogSpec":
    """What the options say. Raises RefusedError."""
    from stream.replay.log import LogSpec
    from stream.replay.mapping import Columns as Mapped
    from stream.replay.mapping import columns_of, read_columns

    mapped = read_columns(map_file) if map_file else Mapped()
    return LogSpec(
        sources=tuple(sources),
        preset=preset or mapped.preset,
        columns={**mapped.columns, **columns_of(columns or ())},
        types=mapped.types,
        constants=mapped.constants,
        event_type=event_type or mapped.event_type,
        time_unit=mapped.time_unit,
        order=chosen("--order", order, "log", "time", "sorted"),
        limit=limit,
        users=None if users is None else _users(users),
        bad=chosen("--bad", bad, "skip", "stop"),
        **_bounds(sources, begin, end),
    )


def _bounds(sources: list[str], begin: str, end: str) -> dict[str, Any]:
    """Of a topic its records' offsets or times, as other commands have them; of files the times of events."""
    from stream.errors import RefusedError
    from stream.reading import End, Start
    from stream.replay.log import TOPIC

    start, stop = Start.parse(begin, now_ms=0), End.parse(end)
    # last=7d is kept as a length: the same command, given again, is the same replay.
    recent = {"recent_ms": -start.since_ms} if begin.startswith("last=") and start.since_ms is not None else {}
    if all(source.startswith(TOPIC) for source in sources):
        return {"last": end, **(recent or {"first": begin})}
    if "offset=" in begin + end or begin == "latest":
        raise RefusedError("--from and --to of files are times of events: ts=TIME, last=7d.")
    return {"end": stop.before_ms, **(recent or {"start": start.since_ms})}


def chosen(flag: str, value: str, *allowed: str) -> Any:
    """The value, if it is allowed. Raises RefusedError."""
    from stream.errors import RefusedError

    if value not in allowed:
        raise RefusedError(f"{flag} {value} is none of {', '.join(allowed)}.")
    return value


def _users(text: str) -> frozenset[str]:
    from stream.errors import RefusedError

    if not text.startswith("@"):
        return frozenset(user for user in text.split(",") if user)
    try:
        lines = Path(text[1:]).read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RefusedError(f"--users {text}: {error}. Give @FILE with one id a line, in UTF-8.") from None
    return frozenset(line.strip() for line in lines if line.strip())


def tell_bad_rows(run: Run) -> "Callable[[BadRow], None]":
    """What says the first rows that are left out, on stderr."""
    told = 0

    def on_bad(row: "BadRow") -> None:
        nonlocal told
        told += 1
        if told <= BAD_ROWS_TOLD:
            print(f"driftline: left out: {printable(str(row))}", file=sys.stderr)
        elif told == BAD_ROWS_TOLD + 1:
            run.say("driftline: further rows that are left out are only counted")

    return on_bad
