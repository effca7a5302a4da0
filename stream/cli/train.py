"""`driftline train`: a model from a log of events."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from stream.cli.common import Output, Run, app, command
from stream.errors import RefusedError

# Seconds between two lines where there is no terminal to draw a bar on.
_LINE_EVERY_S = 10.0


@command(app)
def train(
    run: Run,
    data: Annotated[
        list[Path], typer.Argument(metavar="DATA...", help=".jsonl, .csv or .parquet; several are one log.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the model; an older model there is replaced.")],
    name: Annotated[str, typer.Option(help="The model's name, shown in every list.")] = "glr",
    seconds: Annotated[float, typer.Option(min=1, help="Time for the network to learn in.")] = 60.0,
    min_item_events: Annotated[int, typer.Option(min=1, help="Leave out items with fewer events.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Threads to train with.")] = 1,
    seed: Annotated[int, typer.Option(help="Same data, steps and seed: same model.")] = 1,
) -> None:
    """Train a model on a log of events and write it as a folder that `driftline worker --model` takes.

    The newest twentieth of the log is held out to tell how good the model is (hr@20: how often the next item is
    among twenty).
    """
    from model.artifact import MANIFEST, save_artifact  # late: torch
    from model.training.dataset import load_dataset
    from model.training.loop import TrainSettings
    from model.training.loop import train as train_model

    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / MANIFEST).exists())):
        raise RefusedError(f"{out} is there and holds no model. Give an empty folder, or a new one, with --out.")
    log = load_dataset(data, min_item_events=min_item_events, session_gap_s=run.settings.state.session_gap_s)
    run.say(f"{len(log)} events, {log.items} items. Training for {seconds:g} s at most ...")
    settings = TrainSettings(name=name, time_budget_s=seconds, threads=threads, seed=seed)
    with training_progress(run, seconds) as progress:
        artifact = train_model(log, settings, progress)
    save_artifact(out, artifact)
    run.say(f"The model is in {out}. Use it: driftline worker --model {out}")
    row = {"name": artifact.name, "version": artifact.version, "items": log.items, **artifact.metrics}
    if run.output is Output.table:
        run.show([row])
    else:
        run.document(row)


@contextmanager
def training_progress(run: Run, seconds: float) -> Iterator[Callable[[int, float, float, float], None]]:
    """What to call with step, loss, hit rate and seconds left: a bar on a terminal, else a line now and then."""
    if run.verbosity < 0 or not sys.stderr.isatty():
        told_s = time.monotonic()

        def tell(step: int, loss: float, hit_rate: float, left_s: float) -> None:
            nonlocal told_s
            if time.monotonic() - told_s >= _LINE_EVERY_S:
                told_s = time.monotonic()
                run.say(_line(step, loss, hit_rate, left_s))

        yield tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    with Progress(BarColumn(), TextColumn("{task.description}"), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=seconds)

        def draw(step: int, loss: float, hit_rate: float, left_s: float) -> None:
            bar.update(task, completed=seconds - left_s, description=_line(step, loss, hit_rate, left_s))

        yield draw


def _line(step: int, loss: float, hit_rate: float, left_s: float) -> str:
    rate = "" if math.isnan(hit_rate) else f", hr@20 {hit_rate:.3f}"
    return f"step {step}, loss {loss:.3f}{rate}, {left_s:.0f} s left"
