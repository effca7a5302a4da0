"""A whole replay on one screen: what it is -> its log -> shares of its partitions -> where it goes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import msgspec

from model.artifact import MANIFEST
from stream.errors import RefusedError
from stream.event_file import BadRow
from stream.pseudonym import pseudonyms_of
from stream.reading import partition_count
from stream.replay.backfill import HISTORY_FIRST_OFFSET
from stream.replay.judge import Judge
from stream.replay.log import TOPIC, Log, LogSpec, open_log
from stream.replay.outputs import claim
from stream.replay.process import FolderTarget, Share, Target
from stream.replay.shadow import ShadowTarget, remove_shadow
from stream.replay.topic_range import TopicRange
from stream.replay.work import Work, identity_digest
from stream.replay.workers import Lane, LocalLane, Outcome, Plan, ProcessLane, Watching, run
from stream.settings import Settings

_RESULTS_DEPEND_ON = ("state", "events", "weights", "ranking", "catalog", "topics")
"""Sections of settings; of the others only which lists are made and the model."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Where a replay goes, and how."""

    into: Literal["folder", "shadow", "state", "live"] = "folder"
    """live: see stream.replay.live; `replay` does the others."""
    out: str = ""
    """Folder of lists, late events, dead letters; the work folder's own `out` when empty. A shadow has topics."""
    name: str = ""
    """Of the shadow topics."""
    judged: bool = False
    """Whether each event is asked how the list before it ranked its item: see stream.replay.judge."""
    chunk_records: int = 8192
    processes: int = 0
    """0: as many as there are cores."""
    share: tuple[int, int] = (0, 1)
    """(k, n): this run takes the k-th of n parts of the partitions."""
    work: str = ""
    """The work folder; one of its own under worker.data_dir when empty."""
    fresh: bool = False
    """Forget what an earlier run of this replay did."""


class Replayed(msgspec.Struct):
    """What came of a replay."""

    outcome: Outcome
    log: Counter[str]
    """What the log held: see Log.counts."""
    log_first: dict[str, list[str]]
    """The first examples of it: see Log.first."""
    replay_id: str
    """Tells it from others: see `identity_of`."""
    work: Path
    out: Path | None
    partitions: int
    ends: dict[int, int]
    """Of a replay of one topic: the offset after the last by partition, where live goes on; else empty."""


def identity_of(settings: Settings, spec: LogSpec, options: Options) -> dict[str, Any]:
    """All that the results of a replay depend on, but the log's content."""
    shown = settings.model_dump(mode="json")
    log = msgspec.to_builtins(spec, order="sorted")
    if options.into == "live":  # as they are: another model must not have them sent again
        return {"log": log, "into": ["live", settings.topics.events], "events": shown["events"]}
    return {
        "log": log,
        "settings": {section: shown[section] for section in _RESULTS_DEPEND_ON},
        "lists": settings.worker.lists,
        "model": _model_digest(Path(settings.model.path)),
        "into": [options.into, options.name, options.judged],
        "chunk_records": options.chunk_records,
    }


def _model_digest(folder: Path) -> str:
    """Of the manifest, which holds the checksums of all else; '' where there is none: loading it says so."""
    file = folder / MANIFEST
    return blake2b(file.read_bytes(), digest_size=16).hexdigest() if file.is_file() else ""


def work_of(settings: Settings, spec: LogSpec, options: Options) -> Work:
    """The work folder of a replay."""
    if options.work:
        return Work(Path(options.work))
    return Work(settings.worker.data_dir / "replay" / identity_digest(identity_of(settings, spec, options)))


def replay(
    settings: Settings,
    spec: LogSpec,
    options: Options,
    *,
    watching: Callable[[Log, Work], Watching] = lambda _, __: Watching(),
    on_bad: Callable[[BadRow], None] = lambda _: None,
) -> Replayed:
    """Replay a log in process; what an earlier run of it did is not done again.

    Args:
        settings: as a worker's; `worker.lists` says which lists are made.
        spec: the log.
        options: where to, and how.
        watching: what to ask and tell meanwhile, of this log.
        on_bad: told of each row that is left out.

    Raises:
        RefusedError: it is not begun.
        ReplayError: it cannot go on; run again, it goes on where it stopped.
        ArtifactError: the model cannot be used.
    """
    if options.into == "state":
        settings = states_only(settings)
    partitions, keeps_places = partitions_of(settings, spec, options)
    work = work_of(settings, spec, options)
    if options.fresh:
        work.remove()
        if options.into == "shadow":
            remove_shadow(settings, options.name)
    out = None if options.into == "shadow" else Path(options.out) if options.out else work.path / "out"
    pseudonyms = pseudonyms_of(settings) if settings.events.pseudonyms == "producer" else None
    identity = identity_of(settings, spec, options)
    replay_id = identity_digest(identity)
    broker = options.into != "folder" or any(text.startswith(TOPIC) for text in spec.sources)
    with work.beginning(identity) as begun_ms:
        log = open_log(spec, settings, on_bad, now_ms=begun_ms, pseudonyms=pseudonyms)
        plan = Plan(
            partitions=partitions,
            chunk_records=options.chunk_records,
            work=str(work.path),
            out=None if out is None else str(out),
            # Erasures, of which a broker tells, have places in the events topic: files stand before them all.
            first_offset=HISTORY_FIRST_OFFSET if broker and not keeps_places else 0,
            keeps_places=keeps_places,
            now_ms=begun_ms,
            share=options.share,
        )
        make = partial(
            make_share,
            settings,
            plan,
            shadow=options.name if options.into == "shadow" else "",
            judged=options.judged,
            broker=broker,
        )
        if options.out and out is not None:
            claim(out, replay_id)
        shares = lanes(make, plan, options.processes or os.cpu_count() or 1)
    try:
        reached = {number: offset for lane in shares for number, offset in lane.next_offsets().items()}
        since = reached if keeps_places and spec.limit is None else {}  # else rows are counted from the first on
        outcome = run(log.blocks(since), log.files, plan, shares, watching(log, work))
    finally:
        for lane in shares:
            lane.close()
    ends = log.sources[0].ends if keeps_places and isinstance(log.sources[0], TopicRange) else {}
    return Replayed(outcome, log.counts, log.first, replay_id, work.path, out, partitions, dict(ends))


def states_only(settings: Settings) -> Settings:
    """The same without lists: of a replay into the state."""
    return settings.model_copy(update={"worker": settings.worker.model_copy(update={"lists": "none"})})


def partitions_of(settings: Settings, spec: LogSpec, options: Options) -> tuple[int, bool]:
    """How many partitions a replay has, and whether rows keep the places they have in one topic.

    Raises BrokerError, TopicError.
    """
    topic = spec.sources[0].removeprefix(TOPIC)
    one_topic = len(spec.sources) == 1 and spec.sources[0].startswith(TOPIC)
    # For the state only the offsets of the events topic itself are places: live goes on behind them.
    if one_topic and (options.into != "state" or topic == settings.topics.events):
        return partition_count(settings, topic), True
    if options.into == "folder":
        return settings.topics.partitions, False
    return partition_count(settings, settings.topics.events), False


def make_share(
    settings: Settings, plan: Plan, numbers: Sequence[int], *, shadow: str = "", judged: bool = False, broker: bool
) -> Share:
    """The share of some partitions, in whatever process. broker: whether one tells of items and erased users.

    Raises as Share.
    """
    target: Target
    if shadow:
        target = ShadowTarget(settings, Path(plan.work), shadow, plan.partitions)
    else:
        target = FolderTarget(settings, Path(plan.work), None if plan.out is None else Path(plan.out))
    more: Mapping[str, Any] = {"observer": Judge(settings.topics.recommendations).observe} if judged else {}
    return Share(
        settings,
        target,
        numbers,
        plan.partitions,
        plan.chunk_records,
        plan.now_ms,
        reads_broker=broker,
        past=plan.first_offset < 0,
        **more,
    )


def lanes(make: Callable[[Sequence[int]], Share], plan: Plan, processes: int) -> list[Lane]:
    """The shares of this replay in so many processes; 1: in this one. Raises RefusedError, and as Share."""
    k, n = plan.share
    numbers = [number for number in range(plan.partitions) if number % n == k]
    if not numbers:
        raise RefusedError(f"--share {k + 1}/{n}: there are only {plan.partitions} partitions; give fewer shares.")
    if processes <= 1:
        return [LocalLane(make(numbers), numbers)]
    return [ProcessLane(make, numbers[at::processes]) for at in range(min(processes, len(numbers)))]
