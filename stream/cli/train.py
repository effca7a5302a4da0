"""`driftline train`: a model from a log of events."""

import contextlib
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from stream.cli.common import Output, Run, app, command
from stream.errors import RefusedError
from stream.reading import End, Start, records

# Seconds between two lines where there is no terminal to draw a bar on.
_LINE_EVERY_S = 10.0


class HeldOut(StrEnum):
    """Protocols: see model.training.protocol."""

    all = "all"
    leave_one_out = "leave-one-out"
    temporal = "temporal"


class Device(StrEnum):
    """Where to train."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


@command(app)
def train(
    run: Run,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the model; an older model there is replaced.")],
    data: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[DATA]...",
            help="Files or folders of events (JSON lines, CSV, Parquet) or of a published layout, also as .gz; several "
            "are one log.",
        ),
    ] = None,
    topic: Annotated[
        str | None, typer.Option(metavar="NAME", help="Train on a range of this topic of events and not on files.")
    ] = None,
    start: Annotated[
        str, typer.Option("--from", metavar="WHERE", help="earliest, offset=N, ts=TIME or last=30m: of records.")
    ] = "earliest",
    end: Annotated[str, typer.Option("--to", metavar="WHERE", help="latest, offset=N or ts=TIME.")] = "latest",
    layout: Annotated[
        str | None, typer.Option(help="What the files are, where their names and content do not tell.")
    ] = None,
    items: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What the items are: a catalogue as `driftline produce --items` takes it."),
    ] = None,
    items_topic: Annotated[
        str | None, typer.Option(metavar="NAME", help="The same from this topic of items, as it is now.")
    ] = None,
    protocol: Annotated[
        HeldOut,
        typer.Option(help="What is held out for a test: nothing, each user's last item, or the newest events."),
    ] = HeldOut.all,
    name: Annotated[str, typer.Option(help="The model's name, shown in every list.")] = "glr",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the events.")] = 30,
    max_steps: Annotated[
        int, typer.Option(min=0, help="Steps of the training at most; 0: as the epochs have.")
    ] = 20_000,
    dropout: Annotated[float, typer.Option(min=0, max=0.9, help="Share of activations left out in training.")] = 0.2,
    content: Annotated[
        bool, typer.Option(help="Let category, brand, price and words of name and text add to an item's embedding.")
    ] = True,
    max_seconds: Annotated[
        float, typer.Option("--max-seconds", "--seconds", min=1, help="Stop here, though steps are left.")
    ] = 3600.0,
    patience: Annotated[
        int, typer.Option(min=0, help="Stop after so many judgements without a better one; 0: do not.")
    ] = 0,
    min_item_events: Annotated[int, typer.Option(min=1, help="Leave out items with fewer events.")] = 1,
    threads: Annotated[int, typer.Option(min=0, help="Threads to train with; 0: all cores.")] = 0,
    device: Annotated[Device, typer.Option(help="Where to train; auto: on a GPU if there is one.")] = Device.auto,
    seed: Annotated[
        int, typer.Option(min=0, max=2**31 - 1, help="Same data, settings, threads and seed: same model.")
    ] = 1,
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where to go on from after a kill. [default: OUT.checkpoint, beside OUT]"),
    ] = None,
    checkpoint_every: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="How often to save it.")] = 60.0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew, whatever the checkpoint holds.")] = False,
    memory_events: Annotated[
        int, typer.Option(min=0, help="A log of more events is trained on from disk, a part in memory at a time.")
    ] = 5_000_000,
) -> None:
    """Train a model on a log of events and write it as a folder that `driftline worker --model` takes.

    A part of the log validates: it tells how good the model is (hr@10: how often the next item is among ten). A
    training that was killed goes on where it last saved, to the same model; the same command starts it again.

    What an item is (category, item_name, brand, price) is taken from its first event that tells it. A catalogue goes
    before that, by its name, category (a path may be written A > B > C), brand, price (all in one currency) and text;
    its items that are in no event are left out. What items have in common helps those that few took.
    """
    from model.artifact import MANIFEST, save_artifact  # late: torch
    from model.training.checkpoint import Checkpoint
    from model.training.choose import Lists
    from model.training.dataset import LogReader
    from model.training.loop import train as train_model
    from model.training.settings import TrainSettings
    from model.training.shards import ROWS_OF_A_SHARD, Shards, estimate_rows
    from model.training.source import in_memory
    from stream.cli.topic_log import read_topic
    from stream.cli.train_items import item_file, items_of_file, items_of_topic

    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / MANIFEST).exists())):
        raise RefusedError(f"{out} is there and holds no model. Give an empty folder, or a new one, with --out.")
    if (topic is None) == (not data):
        raise RefusedError("Give files or folders of events, or a topic with --topic: one of the two.")
    if items is not None and items_topic is not None:
        raise RefusedError("Give a catalogue as a file with --items, or a topic with --items-topic: one of the two.")
    if min_item_events > 1 and protocol is not HeldOut.all:
        raise RefusedError(
            f"--min-item-events would change what {protocol} holds out, and `driftline evaluate` would ask what was "
            "learnt. Leave these items out of the files, or train with --protocol all."
        )
    catalog = None if items is None else item_file(items)
    span = Start.parse(start, int(time.time() * 1000)), End.parse(end)
    settings = TrainSettings(
        name=name,
        protocol=protocol.value,
        epochs=epochs,
        max_steps=max_steps,
        dropout=dropout,
        content=content,
        max_seconds=max_seconds,
        patience=patience,
        threads=threads,
        device=device.value,
        seed=seed,
    )
    folder = checkpoint or out.with_name(f"{out.name}.checkpoint")
    if fresh:
        Checkpoint(folder).remove()
    elif Checkpoint(folder).file.exists():
        run.say(f"Going on from {folder}.")
    with contextlib.ExitStack() as stack:
        gap_s = run.settings.state.session_gap_s
        broken: Counter[str] = Counter()
        files = data or []
        label = topic or ", ".join(path.name for path in files)
        rows = estimate_rows(files, layout)
        if topic is not None:
            rows = records(run.settings, topic, *span)
        parts = None
        if rows > memory_events:
            run.say(f"About {rows:,} events: reading them into parts on disk, in {folder} ...")
            parts = Shards(folder / "shards", rows // ROWS_OF_A_SHARD + 1, session_gap_s=gap_s)
            stack.enter_context(parts)
        reader = LogReader() if parts is None else parts.reader
        if topic is None:
            steps = reader.read_files(files, layout)
        else:
            steps = read_topic(run.settings, topic, *span, reader, broken)
        if parts is None:
            for _ in steps:
                pass
        else:
            parts.write(steps)
        if catalog is not None:
            described = reader.describe(
                items_of_file(catalog, reader.item_numbers, run.settings.catalog.category_level)
            )
            run.say(f"{items} tells of {described:,} of the log's {len(reader.item_numbers):,} items.")
        elif items_topic is not None:
            found, broken_items = items_of_topic(run.settings, items_topic, reader.item_numbers)
            described = reader.describe(found)
            left_out = f"; {broken_items:,} broken records were left out" if broken_items else ""
            run.say(f"{items_topic} tells of {described:,} of the log's {len(reader.item_numbers):,} items{left_out}.")
        if parts is None:
            log = reader.dataset(min_item_events=min_item_events, session_gap_s=gap_s, source=label)
            source = in_memory(log, settings)
        else:
            source = parts.source(settings, min_item_events=min_item_events, name=label)
        if broken:
            told = ", ".join(f"{reason} {count:,}" for reason, count in broken.most_common())
            run.say(f"{broken.total():,} broken events were left out: {told}.")
        order = "" if source.catalog.has_time else ", in order, without times"
        run.say(f"{source.fingerprint['events']:,} events, {source.catalog.items:,} items{order}.")
        progress = stack.enter_context(training_progress(run))
        artifact = train_model(
            source,
            settings,
            progress,
            checkpoint=folder,
            checkpoint_every_s=checkpoint_every,
            lists=Lists(run.settings.ranking_settings(), run.settings.state_settings()),
        )
    with contextlib.suppress(OSError):  # not empty where time was over, not there where nothing was saved
        folder.rmdir()
    save_artifact(out, artifact)
    stopped = artifact.settings["stopped"]
    if stopped == "time":
        run.say(
            f"Time was over after {artifact.metrics['steps']:,.0f} steps, before the schedule's end; give more with "
            "--max-seconds and the same command goes on there."
        )
    run.say(f"The model is in {out}. Use it: driftline worker --model {out}")
    row = {
        "name": artifact.name,
        "version": artifact.version,
        "items": artifact.items,
        "protocol": protocol.value,
        "stopped": stopped,
        **({"broken_events": broken.total()} if topic is not None else {}),
        **artifact.metrics,
    }
    if run.output is Output.table:
        run.show([row])
    else:
        run.document(row)


@contextmanager
def training_progress(run: Run) -> Iterator[Callable[[int, float, float, float], None]]:
    """What to call with step, loss, hit rate and seconds left: a bar on a terminal, else a line now and then."""
    began_s = told_s = time.monotonic()
    if run.verbosity < 0 or not sys.stderr.isatty():

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
        task = bar.add_task("", total=1.0)

        def draw(step: int, loss: float, hit_rate: float, left_s: float) -> None:
            spent_s = time.monotonic() - began_s
            bar.update(task, completed=spent_s / (spent_s + left_s), description=_line(step, loss, hit_rate, left_s))

        yield draw


def _line(step: int, loss: float, hit_rate: float, left_s: float) -> str:
    rate = "" if math.isnan(hit_rate) else f", hr@10 {hit_rate:.3f}"
    return f"step {step}, loss {loss:.3f}{rate}, {left_s:.0f} s left"
