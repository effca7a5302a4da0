"""`driftline demo`: the screen."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from stream.cli.common import Output, Run, app, command

if TYPE_CHECKING:
    from stream.demo import Progress

# Seconds between two lines where there is no terminal.
_LINE_EVERY_S = 10.0

_NAMES = {
    "live": "live: a list after each event",
    "daily": "the same, made once a day",
    "personal": "own counts, then popularity",
    "popular": "popularity of 7 days",
}

_HONEST = """\
What this shows: purchases of real-looking households (Complete Journey, one grocer, one year), each asked for before \
it is learnt. Freshness pays inside the basket: at its first item a list of this morning is as good, after it the live \
list pulls ahead.
What it cannot show: clicks and views (the data has purchases only), the order in which a basket was filled (it is \
drawn once by a fixed seed), what people would have bought had they seen the lists. Most purchases are repeats, so a \
household's own counts are hard to beat."""


@command(app)
def demo(
    run: Run,
    steps: Annotated[int, typer.Option(min=1, help="Of the network's training; 2,400 take two minutes.")] = 2400,
    every: Annotated[int, typer.Option(min=1, help="Stream every n-th household.")] = 8,
    figures: Annotated[Path, typer.Option(metavar="FILE", help="Where the figures go, as JSON.")] = Path(
        "build/demo.json"
    ),
    model_out: Annotated[Path | None, typer.Option(metavar="DIR", help="Keep the model here.")] = None,
) -> None:
    """Train on real purchases, stream the rest of the year through a worker, and watch lists follow.

    Needs nothing but this package with its extra `demo`: the broker is librdkafka's own. Ends by itself within some
    minutes and leaves nothing running.
    """
    from model.artifact import save_artifact
    from model.training.journey import load_journey
    from stream.demo import prepare_model, run_stream

    began_s = time.monotonic()
    run.say("reading Complete Journey")
    journey = load_journey()
    run.say(f"{int(journey.data.is_item.sum()):,} purchases of {journey.data.items:,} product types")
    with tempfile.TemporaryDirectory(prefix="driftline-demo-") as name:
        folder = Path(name)
        with _training(run, steps) as progress:
            artifact = prepare_model(journey, folder, steps, progress, run.say)
        if model_out is not None:
            save_artifact(model_out, artifact)
        run.say("starting a worker on the embedded broker; first the households' past, then the rest of the year")
        try:
            with _screen(run) as tell:
                found = run_stream(journey, folder, tell, every=every)
        except Exception:
            log = folder / "worker.log"
            if log.exists():
                run.say(log.read_text(errors="replace")[-3000:])
            raise
    found["whole_s"] = time.monotonic() - began_s
    figures.parent.mkdir(parents=True, exist_ok=True)
    figures.write_text(json.dumps(found, indent=1))
    if run.output is not Output.table:
        run.document(found)
        return
    Console().print(_scores(found["hr@20"], found["ndcg@20"]))
    first, later = found["first_of_basket_hr@20"], found["later_in_basket_hr@20"]
    print(
        f"First item of a basket: live {first['live']:.3f}, daily {first['daily']:.3f}; "
        f"items after it: live {later['live']:.3f}, daily {later['daily']:.3f}.\n"
        f"{found['events']:,} events, {found['events_per_s']:,.0f} a second, each with its list; with "
        f"{found['in_flight']} under way at once p50 {found['latency_ms']['p50']:.0f} ms, "
        f"p99 {found['latency_ms']['p99']:.0f} ms. "
        f"All took {found['whole_s']:.0f} s; the figures are in {figures}.\n\n{_HONEST}"
    )


@contextlib.contextmanager
def _training(run: Run, steps: int) -> Iterator[Any]:
    """The same progress as `driftline train` shows."""
    from stream.cli.train import training_progress

    run.say(f"training on January to mid-April, {steps:,} steps on one core")
    with training_progress(run) as progress:
        yield progress


def _scores(hr: dict[str, float], ndcg: dict[str, float]) -> Table:
    table = Table(title="next product of the basket, in the first 20?", title_justify="left", box=None)
    table.add_column("list")
    table.add_column("HR@20", justify="right")
    table.add_column("NDCG@20", justify="right")
    for name, text in _NAMES.items():
        table.add_row(text, f"{hr[name]:.4f}", f"{ndcg[name]:.4f}", style="bold" if name == "live" else "")
    return table


@contextlib.contextmanager
def _screen(run: Run) -> Iterator[Any]:
    """What to call with a Progress: one screen on a terminal, else a line now and then."""
    if run.verbosity >= 0 and sys.stderr.isatty():
        with Live(console=Console(stderr=True), refresh_per_second=4, transient=True) as live:
            yield lambda progress: live.update(_picture(progress))
        return
    told_s = 0.0

    def tell(progress: Progress) -> None:
        nonlocal told_s
        now_s = time.monotonic()
        if now_s - told_s >= _LINE_EVERY_S:
            told_s = now_s
            run.say(_line(progress))
            for moment in _moments(progress):
                run.say(f"    {moment.plain}")

    yield tell


def _line(progress: Progress) -> str:
    text = (
        f"{progress.stage} {progress.done:,}/{progress.total:,} ({progress.at}) {progress.events_per_s:,.0f} events/s, "
        f"p50 {progress.latency_ms[0]:.0f} ms p99 {progress.latency_ms[1]:.0f} ms"
    )
    if progress.judge is None:
        return text
    return text + "  HR@20: " + ", ".join(f"{n} {s.hr:.3f}" for n, s in progress.judge.scores.items())


def _moments(progress: Progress) -> list[Text]:
    """Each shown household: what it bought, its list after that; what the event brought in is marked."""
    texts = []
    for moments in progress.judge.shown.values() if progress.judge else ():
        for moment in moments:
            text = Text()
            text.append(f"{moment.household} {moment.at} bought {moment.bought}", style="bold")
            for place, (name, reason) in enumerate(moment.after, 1):
                fresh = name not in moment.before
                text.append(f"\n      {place}. {'+ ' if fresh else '  '}{name}", style="green" if fresh else "")
                text.append(f"  ({reason})", style="dim")
            texts.append(text)
    return texts


def _picture(progress: Progress) -> Group:
    head = Text(
        f"{progress.stage}  {progress.at}  {progress.done:,} of {progress.total:,} events  "
        f"{progress.events_per_s:,.0f} a second  p50 {progress.latency_ms[0]:.0f} ms  "
        f"p99 {progress.latency_ms[1]:.0f} ms"
    )
    parts: list[Any] = [head, ProgressBar(progress.total, progress.done, width=80)]
    if progress.judge is not None:
        scores = progress.judge.scores
        parts.append(_scores({n: s.hr for n, s in scores.items()}, {n: s.ndcg for n, s in scores.items()}))
        parts += [Panel(text, width=100) for text in _moments(progress)]
        parts.append(Text("+ new in the list since the last event", style="dim"))
    return Group(*parts)
