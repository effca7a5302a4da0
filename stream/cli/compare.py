"""`driftline compare`: one log through two models or settings, and which is better."""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream.cli.common import Output, Run, app, command, console, printable
from stream.cli.log_flags import (
    ChunkRecords,
    Processes,
    chosen,
    takes_log,
    tell_bad_rows,
)
from stream.errors import RefusedError
from stream.settings import Settings, load_settings

if TYPE_CHECKING:
    from stream.replay.log import Log, LogSpec
    from stream.replay.report import Report
    from stream.replay.workers import Outcome

# Seconds between two lines of progress.
_LINE_EVERY_S = 10.0


_LOG = Annotated[
    list[str],
    typer.Option(
        "--log",
        metavar="SOURCE",
        help="What to replay: a file, folder, pattern, s3://BUCKET/PREFIX or topic:NAME; several.",
    ),
]


@command(app)
@partial(takes_log, sources=_LOG)
def compare(
    run: Run,
    spec: "LogSpec",
    model: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Folder of a model: the first is a, the second b. [default: model.path]"),
    ] = None,
    set_a: Annotated[
        list[str] | None, typer.Option("--set-a", metavar="SECTION.KEY=VALUE", help="A setting of a alone.")
    ] = None,
    set_b: Annotated[
        list[str] | None, typer.Option("--set-b", metavar="SECTION.KEY=VALUE", help="A setting of b alone.")
    ] = None,
    lists: Annotated[
        str,
        typer.Option(
            metavar="event|chunk", help="A list for each event, as live; or a user and chunk, which is faster."
        ),
    ] = "event",
    k: Annotated[
        list[int] | None,
        typer.Option(min=1, max=1000, help="Places that count; several, the first decides. [default: 10, 20]"),
    ] = None,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Write an HTML page with plots, too.")] = None,
    chunk_records: ChunkRecords = 8192,
    processes: Processes = 0,
    work: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep states here. [default: a folder removed in the end]")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew, whatever an earlier run did.")] = False,
) -> None:
    """Replay a log with a and with b, ask every event how the list before it ranked its item, and tell who is better.

    b is better or worse than a where NDCG differs with p below 0.05 (paired permutation test over users) and the 95 %
    interval of the difference leaves out 0; otherwise no difference is shown. Nothing live is touched. Killed, the same
    command goes on where it was.
    """
    from stream.replay.comparison import compare as replay_both
    from stream.replay.judge import K
    from stream.replay.page import write_html

    check_page(report)
    models = [None if path is None else str(path) for path in _pair(model or [])]
    lists = chosen("--lists", lists, "event", "chunk")
    settings = [
        side_settings(run.settings, path, given or [], flag, lists)
        for path, given, flag in zip(models, (set_a, set_b), ("--set-a", "--set-b"), strict=True)
    ]
    told = [{"settings": " ".join(given)} if given else {} for given in (set_a, set_b)]
    found, outcome = replay_both(
        spec,
        settings,
        work,
        fresh=fresh,
        told=told,
        k=tuple(dict.fromkeys(k)) if k else K,
        processes=processes or os.cpu_count() or 1,
        chunk_records=chunk_records,
        on_bad=tell_bad_rows(run),
        on_progress=_now_and_then(run),
    )
    rate = f", {outcome.records / outcome.seconds:,.0f} a second" if outcome.seconds else ""
    run.say(f"{outcome.records:,} events through both in {outcome.seconds:.1f} s{rate}.")
    if report is not None:
        write_html(found, report)
        run.say(f"The page is in {report}.")
    show_report(run, found)


def _pair(models: list[Path]) -> tuple[Path | None, Path | None]:
    if len(models) > 2:
        raise RefusedError(f"--model is given {len(models)} times; give it twice: the model of a, then that of b.")
    if len(models) == 1:
        raise RefusedError("--model is given once; give it twice: the model of a, then that of b. Or leave it out.")
    return (models[0], models[1]) if models else (None, None)


def side_settings(settings: Settings, model: str | None, assignments: list[str], flag: str, lists: str) -> Settings:
    """The settings of one side: those of the command with its own laid over them.

    Raises:
        RefusedError: an assignment is none, a value is wrong, or there is no model.
    """
    own: dict[str, Any] = {"model.path": model, "worker.lists": lists}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or "." not in name:
            raise RefusedError(f"{flag} {assignment} is no SECTION.KEY=VALUE, such as {flag} ranking.list_size=20.")
        own[name.strip()] = value
    found = load_settings(overrides={**settings.model_dump(), **own}, environ={})
    if not found.model.path:
        raise RefusedError("no model is given. Name two with --model A --model B, or one for both in model.path.")
    return found


def check_page(path: Path | None) -> None:
    """Raises RefusedError where no page can be written: to be asked before the work, not after it."""
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise RefusedError(f"--report {path}: give a file in a folder that is there.")


def show_report(run: Run, report: "Report") -> None:
    """On stdout: sentences and tables, or all of it as JSON or YAML."""
    from stream.replay.report import headline, tables

    if run.output is not Output.table:
        run.document(report.document())
        return
    for line in headline(report):
        console().print(printable(line), markup=False, highlight=False)
    for heading, rows in tables(report):
        console().print(f"\n{heading}", markup=False, highlight=False)
        run.show(rows)


def _now_and_then(run: Run) -> "Callable[[Outcome, Log], None]":
    told_s = time.monotonic()

    def tell(outcome: "Outcome", log: "Log") -> None:
        nonlocal told_s
        if time.monotonic() - told_s >= _LINE_EVERY_S:
            told_s = time.monotonic()
            rate = outcome.records / outcome.seconds if outcome.seconds else 0.0
            run.say(f"{100 * log.share_done:.0f} %: {outcome.records:,} events, {rate:,.0f} a second")

    return tell
