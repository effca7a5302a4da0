"""`driftline replay`: logs of the past through the code of the present."""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from typer.core import TyperGroup

from stream.cli.common import Output, Run, app, command, printable
from stream.cli.compare import check_page, show_report
from stream.cli.log_flags import (
    ChunkRecords,
    Processes,
    chosen,
    takes_log,
    tell_bad_rows,
)
from stream.errors import RefusedError

if TYPE_CHECKING:
    from stream.replay.log import Log, LogSpec
    from stream.replay.run import Options, Replayed
    from stream.replay.work import Work
    from stream.replay.workers import Outcome, Watching
    from stream.settings import Settings

# Seconds between two lines where there is no terminal to draw a bar on.
_LINE_EVERY_S = 10.0


class _ReplayGroup(TyperGroup):
    """`driftline replay SOURCE` is `driftline replay run SOURCE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See click."""
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["run", *args]
        return super().parse_args(ctx, args)


replay_app = typer.Typer(
    name="replay",
    cls=_ReplayGroup,
    help="Logs of the past through the code of the present. `driftline replay SOURCE...` is short for `driftline "
    "replay run SOURCE...`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(replay_app)

Into = Annotated[
    str,
    typer.Option(
        metavar="folder|shadow|state|live",
        help="folder: lists as files; shadow: shadow topics; state: the workers' changelog, which must be empty; live: "
        "the events topic, as produce does.",
    ),
]
Work_ = Annotated[
    Path | None,
    typer.Option(
        "--work", metavar="DIR", help="Where the replay keeps its states. [default: one of its own under --data-dir]"
    ),
]


@command(
    replay_app,
    settings={
        "model.path": typer.Option("--model", metavar="DIR", help="Folder of the model."),
        "worker.lists": typer.Option(
            "--lists", metavar="chunk|event|none", help="A list a user and chunk, for each event, or states only."
        ),
    },
)
@takes_log
def run(
    run: Run,
    spec: "LogSpec",
    into: Into = "folder",
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of lists, late events and dead letters. [default: WORK/out]"),
    ] = None,
    name: Annotated[str, typer.Option(help="Of the shadow topics.")] = "replay",
    speed: Annotated[
        str, typer.Option(metavar="max|1x|60x", help="How fast event time goes; max: as fast as possible.")
    ] = "max",
    chunk_records: ChunkRecords = 8192,
    processes: Processes = 0,
    share: Annotated[
        str, typer.Option(metavar="K/N", help="Only the K-th of N parts of the partitions; others replay the rest.")
    ] = "1/1",
    judge: Annotated[
        bool, typer.Option("--judge", help="Ask each event how the user's list before it ranked its item.")
    ] = False,
    work: Work_ = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew, whatever an earlier run did.")] = False,
    then: Annotated[
        str | None,
        typer.Option(
            metavar="WHERE",
            help="With --into state, of files: where live goes on: earliest, latest, offset=N, ts=TIME.",
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="With --into state: what changelog and group have is replaced.")
    ] = False,
    local: Annotated[
        bool, typer.Option("--local", help="With --into state: put the stores where a worker on this machine has them.")
    ] = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify", help="Compare states and last lists with the workers', and end with 1 if they differ."
        ),
    ] = False,
    diff: Annotated[
        str | None,
        typer.Option(metavar="live|DIR", help="Compare the lists with the workers', or with another replay's."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write what --diff finds as an HTML page.")
    ] = None,
) -> None:
    """Replay a log through the worker's own code: the same states, the same lists.

    Nothing live is touched without --into live or --into state. A replay that was stopped or killed goes on where it
    was when the same command is given again; Ctrl-C stops it, `driftline replay pause WORK` lets it wait.
    """
    from stream.replay.pace import speed_of
    from stream.replay.run import Options, identity_of, partitions_of, replay, states_only, work_of
    from stream.replay.work import identity_digest

    chosen("--into", into, "folder", "shadow", "state", "live")
    settings = run.settings
    if into == "state":
        settings = states_only(settings)
    options = Options(
        into=into,  # type: ignore[arg-type]  # checked above
        out="" if out is None else str(out),
        name=name if into == "shadow" else "",
        judged=judge,
        chunk_records=chunk_records,
        processes=processes,
        share=_share(share),
        work="" if work is None else str(work),
        fresh=fresh,
    )
    pace = speed_of(speed)
    check_page(report)
    _check_options(into, verify, diff, judge, spec, options.share, then, fresh)
    _check_writes(settings, into, name, spec)
    if into == "state":  # hours of replay must not end in a refusal
        from stream.replay import backfill

        partitions, of_topic = partitions_of(settings, spec, options)
        replay_id = identity_digest(identity_of(settings, spec, options))
        # Records that --to ts=TIME leaves out lie among those that it takes: no offset has all of them behind it.
        of_times = spec.last.startswith("ts=")
        if of_topic and (then is not None or spec.limit is not None or spec.users is not None or of_times):
            raise RefusedError(
                f"--into state of {settings.topics.events} takes all of it up to where live goes on: leave out --then, "
                "--limit, --users and --to ts=TIME."
            )
        standing = backfill.check(settings, partitions, replay_id, then=then or "", has_ends=of_topic, replace=replace)
        if standing == "done":
            run.say("The states are in the changelog already.")
            work_path = work_of(settings, spec, options).path
            _show(run, _install(settings, (work_path, partitions, replay_id), {}, "", replace=replace, local=local))
            return
    where = work_of(settings, spec, options)
    with _stopping(run) as stopping, _progress(run) as tell:
        watching = _watching(pace, stopping, tell)
        if into == "live":
            _live(run, spec, options, where, watching)
            return
        run.say(f"Replaying into {where.path}.")
        found = replay(settings, spec, options, watching=watching, on_bad=tell_bad_rows(run))
    _tell_oddities(run, found.log, found.log_first)
    row = _summary(found, into)
    if found.outcome.stopped:
        run.say("Stopped. The same command goes on where this one was.")
        _show(run, row)
        raise typer.Exit(1)
    same = True
    if into == "state":
        run.say("Writing the states to the changelog ...")
        of = found.work, found.partitions, found.replay_id
        row |= _install(settings, of, found.ends, then or "", replace=replace, local=local)
    if verify:
        from stream.replay.equal import verify as compare

        assert found.out is not None
        verified = compare(settings, found.work, found.out, found.partitions)
        same = verified.states.same and verified.lists.same
        row |= {"state_equal": verified.states.same, "lists_equal": verified.lists.same}
        row["verified"] = msgspec.to_builtins(verified)
    if judge:
        from stream.replay.judge import quality_of, read_answers

        assert found.out is not None
        row["quality"] = quality_of(read_answers(found.out))
    if diff is not None:
        assert found.out is not None
        row["diff"] = _diff(run, settings, found.out, diff, report)
    _show(run, row)
    if not same:
        raise typer.Exit(1)


@command(replay_app)
@takes_log
def inspect(
    run: Run,
    spec: "LogSpec",
) -> None:
    """Show what a log holds, and what of it would be mapped, refused or late, before anything runs."""
    from stream.cli.show_log import show
    from stream.replay.inspect import inspect as look

    show(run, look(spec, run.settings))


@command(replay_app)
def pause(run: Run, work: Annotated[Path, typer.Argument(metavar="WORK", help="The replay's work folder.")]) -> None:
    """Let a running replay wait."""
    _work(work).pause(True)
    run.say(f"The replay in {work} waits: driftline replay resume {work}")


@command(replay_app)
def resume(run: Run, work: Annotated[Path, typer.Argument(metavar="WORK", help="The replay's work folder.")]) -> None:
    """Let a paused replay go on."""
    _work(work).pause(False)
    run.say(f"The replay in {work} goes on.")


def _work(path: Path) -> "Work":
    from stream.replay.work import Work

    return Work(path)


def _share(text: str) -> tuple[int, int]:
    """'2/3' -> (1, 3). Raises RefusedError."""
    k, slash, n = text.partition("/")
    if not (slash and k.isdecimal() and n.isdecimal() and 1 <= int(k) <= int(n)):
        raise RefusedError(f"--share {text} is no K/N with K from 1 to N, such as 1/3.")
    return int(k) - 1, int(n)


def _check_options(
    into: str,
    verify: bool,
    diff: str | None,
    judge: bool,
    spec: "LogSpec",
    share: tuple[int, int],
    then: str | None,
    fresh: bool,
) -> None:
    """Raises RefusedError where options do not go together."""
    from stream.replay.log import TOPIC

    one_topic = len(spec.sources) == 1 and spec.sources[0].startswith(TOPIC)
    if (verify or diff or judge) and into != "folder":
        raise RefusedError(
            "--verify, --diff and --judge look at lists in a folder: leave out --into, or give --into folder."
        )
    whole = (spec.first, spec.last, spec.users, spec.limit) == ("earliest", "latest", None, None)
    if verify and not (one_topic and whole and share == (0, 1)):
        raise RefusedError(
            "--verify compares with the workers of a topic: give topic:NAME alone, all its users, partitions and time."
        )
    if diff and share != (0, 1):
        raise RefusedError("--diff needs the lists of all partitions: leave out --share, or --diff until all are done.")
    if then is not None and into != "state":
        raise RefusedError("--then is for --into state: it says where live goes on after the history.")
    if fresh and share != (0, 1):
        raise RefusedError("--fresh would forget what other shares did, too: give all of them a new --work.")
    if into == "state" and share != (0, 1):
        raise RefusedError("--into state needs all partitions: leave out --share.")


@contextlib.contextmanager
def _stopping(run: Run) -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or SIGTERM came. The second one ends the process at once."""
    told = threading.Event()

    def stop(number: int, _: Any) -> None:
        told.set()
        signal.signal(number, signal.SIG_DFL)
        run.say("Stopping after what is in hand ...")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield told.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watching(
    speed: float | None, stopping: Callable[[], bool], tell: "Callable[[Log, Outcome], None]"
) -> "Callable[[Log, Work], Watching]":
    from stream.replay.pace import Pace
    from stream.replay.workers import Watching

    def watching(log: "Log", work: "Work") -> "Watching":
        return Watching(
            pace=Pace(speed, paused=lambda: work.paused, stopping=stopping),
            on_progress=lambda outcome: tell(log, outcome),
            stopping=stopping,
        )

    return watching


@contextlib.contextmanager
def _progress(run: Run) -> "Iterator[Callable[[Log, Outcome], None]]":
    """What to call with the log and what came of it: a bar on a terminal, else a line now and then."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from stream.contract.times import iso_utc

    def text(outcome: "Outcome") -> str:
        rate = outcome.records / outcome.seconds if outcome.seconds else 0.0
        newest = "" if outcome.newest_ms < 0 else f", at {iso_utc(outcome.newest_ms)}"
        return f"{outcome.records:,} rows{newest}, {rate:,.0f} rows/s"

    if run.verbosity < 0 or not sys.stderr.isatty():
        told_s = 0.0

        def line(log: "Log", outcome: "Outcome") -> None:
            nonlocal told_s
            if outcome.seconds - told_s >= _LINE_EVERY_S:
                told_s = outcome.seconds
                run.say(f"{100 * log.share_done:.0f} %: {text(outcome)}")

        yield line
        return
    with Progress(
        BarColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda log, outcome: bar.update(task, completed=log.share_done, description=text(outcome))


def _install(
    settings: "Settings",
    of: tuple[Path, int, str],
    ends: dict[int, int],
    then: str,
    *,
    replace: bool,
    local: bool,
) -> dict[str, Any]:
    """Make a finished replay the workers' state. of: its work folder, partitions and name."""
    from stream.replay.backfill import install

    done = install(settings, *of, ends=ends or None, then=then, replace=replace, local=local)
    offsets = {str(number): offset for number, offset in sorted(done.offsets.items())}
    return {
        "keys": done.keys,
        "value_bytes": done.value_bytes,
        "install_s": round(done.seconds, 2),
        "live_from": offsets,
    }


def _diff(run: Run, settings: "Settings", out: Path, other: str, report: Path | None) -> dict[str, Any]:
    """What differs between the lists in `out` and others."""
    from stream.replay.comparison import compare_lists
    from stream.replay.page import write_html

    told = compare_lists(settings, out, other)
    if report is not None:
        write_html(told, report)
        run.say(f"The report is in {report}.")
    if run.output is Output.table:
        show_report(run, told)
    return told.document()


def _live(
    run: Run, spec: "LogSpec", options: "Options", where: "Work", watching: "Callable[[Log, Work], Watching]"
) -> None:
    """Produce the log onto the events topic."""
    from stream.pseudonym import pseudonyms_of
    from stream.replay.live import LiveCounts, replay_live
    from stream.replay.log import open_log
    from stream.replay.run import identity_of
    from stream.replay.work import identity_digest
    from stream.replay.workers import Outcome

    identity = identity_of(run.settings, spec, options)
    if options.fresh:
        where.remove()
    pseudonyms = pseudonyms_of(run.settings) if run.settings.events.pseudonyms == "producer" else None
    with where.beginning(identity) as begun_ms:
        log = open_log(spec, run.settings, tell_bad_rows(run), now_ms=begun_ms, pseudonyms=pseudonyms)
    watch = watching(log, where)

    def on_progress(counts: LiveCounts) -> None:
        watch.on_progress(Outcome(records=counts.sent, seconds=counts.seconds, newest_ms=counts.newest_ms))

    done = replay_live(
        run.settings,
        log.blocks(),
        log.files,
        replay_id=f"{identity_digest(identity)}-{begun_ms}",
        marker=where.path / "sent",
        pace=watch.pace,
        on_progress=on_progress,
        stopping=watch.stopping,
    )
    _tell_oddities(run, log.counts, log.first)
    rate = done.sent / done.seconds if done.seconds else 0.0
    _show(
        run,
        {
            "into": "live",
            "sent": done.sent,
            "sent_before": done.before,
            "seconds": round(done.seconds, 2),
            "events_per_s": round(rate),
            "exactly_once": done.exactly_once,
            "log": {name: count for name, count in sorted(log.counts.items()) if count},
            "work": str(where.path),
        },
    )
    if done.stopped:
        run.say("Stopped. The same command goes on where this one was.")
        raise typer.Exit(1)


def _tell_oddities(run: Run, counts: Mapping[str, int], first: Mapping[str, Sequence[str]]) -> None:
    """What the log has that took nothing away: of each kind the first, and how many there are."""
    for what in ("unsorted", "mixed_zones", "duplicate_files"):
        if told := first.get(what):
            run.say(f"driftline: {printable(told[0])} ({what.replace('_', ' ')}: {counts[what]:,} in all)")


def _check_writes(settings: "Settings", into: str, name: str, spec: "LogSpec") -> None:
    """Raises RefusedError for a replay that would touch what is live and does not say so."""
    from stream.replay import guard
    from stream.replay.log import TOPIC
    from stream.replay.shadow import shadow_topics

    topics = settings.topics
    writes = {
        "folder": [],
        "shadow": list(shadow_topics(settings, name).values()) if into == "shadow" else [],
        "state": [topics.changelog],
        "live": [topics.events],
    }
    reads = [text.removeprefix(TOPIC) for text in spec.sources if text.startswith(TOPIC)]
    commits = [settings.worker.group] if into == "state" else []
    guard.check(settings, into, writes=writes[into], commits=commits, reads=reads)


def _summary(found: "Replayed", into: str) -> dict[str, Any]:
    """What is told at the end."""
    from stream.replay.workers import ENDS

    outcome, log = found.outcome, found.log
    return {
        "into": into,
        "records": outcome.records,
        "replayed": outcome.replayed,
        "replayed_before": outcome.before,
        "seconds": round(outcome.seconds, 2),
        "events_per_s": round(outcome.events_per_s),
        **{name: outcome.counts[name] for name in ENDS},
        "lists": outcome.counts["lists"],
        "log": {name: count for name, count in sorted(log.items()) if count},
        "work": str(found.work),
        **({} if found.out is None else {"out": str(found.out)}),
    }


def _show(run: Run, row: dict[str, Any]) -> None:
    if run.output is Output.table:
        run.show([{"what": name, "value": value} for name, value in row.items() if name != "diff"])
    else:
        run.document(row)
