"""One log through two models or settings side by side, and what differs.

                            ┌──> shares of a: agent, judge, last lists ──> WORK/a ─┐
    Log ──(read once)──> run┤                                                      ├──> Report
                            └──> shares of b: agent, judge, last lists ──> WORK/b ─┘

Both see the very same rows. Of the lists only each user's last is kept, in the stores; what else agents send is left
out. Run again after a kill, it goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from model.artifact import Artifact, load_artifact
from model.recommender import Portion
from state.store import RocksStore
from stream.engine import Chunk
from stream.errors import RefusedError
from stream.event_file import BadRow
from stream.reading import Start, partition_count, read
from stream.replay.diff import diff
from stream.replay.judge import ANSWERS, Judge, K, compared, has_answers, read_answers
from stream.replay.lists import Side, Vocabulary, read_folder, read_records
from stream.replay.log import TOPIC, Log, LogSpec, open_log
from stream.replay.process import FolderTarget, Share, store_path
from stream.replay.report import Report
from stream.replay.run import Options, identity_of
from stream.replay.work import Work, identity_digest
from stream.replay.workers import Lane, LocalLane, Outcome, Plan, ProcessLane, Watching, run
from stream.settings import Settings

SIDES = ("a", "b")
LIVE = "live"
"""In place of a folder: the lists of the workers."""

_LAST_LIST = b"\0last-list "  # no user's key begins with NUL
_SCAN = 256


class Keeper:
    """Judges a chunk, keeps the last list of each user in the store, and lets nothing but answers out.

    Args:
        recommendations: topic that lists are sent to.
        places: how many places of a list are judged.
    """

    def __init__(self, recommendations: str, places: int) -> None:
        self._recommendations = recommendations
        self._judge = Judge(recommendations, places)

    def observe(self, chunk: Chunk, portion: Portion) -> None:
        """See the observer of stream.replay.process.Share."""
        self._judge.observe(chunk, portion)
        last: dict[bytes, bytes | None] = {}
        for topic, value, key, _, _ in chunk.sends:
            if topic == self._recommendations:
                last[key or b""] = value
        for user, made in last.items():
            chunk.put(_LAST_LIST + user, made)
        chunk.sends = [send for send in chunk.sends if send[0] == ANSWERS]


def judged_share(settings: Settings, plan: Plan, places: int, broker: bool, numbers: Sequence[int]) -> Share:
    """A share of one side; made in its own process. broker: see Share. Raises as Share."""
    keeper = Keeper(settings.topics.recommendations, places)
    target = FolderTarget(settings, Path(plan.work), Path(plan.work))
    return Share(
        settings,
        target,
        numbers,
        plan.partitions,
        plan.chunk_records,
        plan.now_ms,
        reads_broker=broker,
        observer=keeper.observe,
    )


def kept_lists(name: str, work: Path, partitions: int, words: Vocabulary, places: int) -> Side:
    """The last lists that the replay of a side left in its stores."""
    side = Side(name, words, places)
    for number in range(partitions):
        store = RocksStore(store_path(work, number))
        try:
            after = _LAST_LIST
            while found := store.scan(after, _SCAN):
                for key, value in found:
                    if key.startswith(_LAST_LIST):
                        side.put(value)
                after = found[-1][0]
                if not after.startswith(_LAST_LIST):
                    break
        finally:
            store.close()
    return side


def compare(
    spec: LogSpec,
    settings: Sequence[Settings],
    work: Path | None = None,
    *,
    fresh: bool = False,
    told: Sequence[dict[str, str]] = ({}, {}),
    k: Sequence[int] = K,
    processes: int = 1,
    chunk_records: int = 8192,
    on_bad: Callable[[BadRow], None] = lambda _: None,
    on_progress: Callable[[Outcome, Log], None] = lambda _, __: None,
) -> tuple[Report, Outcome]:
    """Replay a log with the settings of a and of b, and compare their lists.

    settings: of a and b; the models are theirs (`model.path`). work: a folder for both, that is kept; None: one under
    worker.data_dir that is removed in the end. fresh: forget what an earlier run did there. told: what to say of each
    side in the report, beside its model. k: of the metrics, the first decides. processes: with 2 or more each side
    has half of them, of its own.

    Raises:
        RefusedError: the log cannot be read, or `work` holds something else.
        ArtifactError: a model cannot be used.
        ReplayError: the replay or the comparison cannot go on.
    """
    if settings[0].topics.partitions != settings[1].topics.partitions:
        raise RefusedError("a and b must share topics.partitions: which events come together depends on it.")
    artifacts = [load_artifact(Path(each.model.path)) for each in settings]
    of_topics = [text for text in spec.sources if text.startswith(TOPIC)]
    keeps_places = len(spec.sources) == len(of_topics) == 1
    partitions = settings[0].topics.partitions
    if keeps_places:
        partitions = partition_count(settings[0], of_topics[0].removeprefix(TOPIC))
    identity = _identity(spec, settings, artifacts, tuple(k), chunk_records)
    held = Work(work or settings[0].worker.data_dir / "compare" / identity_digest(identity))
    if fresh:
        held.remove()
    begun_ms = held.begin(identity)
    folders = [held.path / side for side in SIDES]
    plans = [
        Plan(
            partitions=partitions,
            chunk_records=chunk_records,
            work=str(folder),
            out=None,
            keeps_places=keeps_places,
            now_ms=begun_ms,
        )
        for folder in folders
    ]
    places = max(k)
    log = open_log(spec, settings[0], on_bad, now_ms=begun_ms)
    lanes: list[Lane] = []
    try:
        for each, plan in zip(settings, plans, strict=True):
            lanes += _lanes(partial(judged_share, each, plan, places, bool(of_topics)), partitions, processes // 2)
        watching = Watching(on_progress=lambda outcome: on_progress(outcome, log))
        reached = _since(lanes)
        since = reached if keeps_places and spec.limit is None else {}  # else rows are counted from the first on
        outcome = run(log.blocks(since), log.files, plans[0], lanes, watching)
    finally:
        for lane in lanes:
            lane.close()

    words = Vocabulary()
    a, b = (kept_lists(*side, partitions, words, places) for side in zip(SIDES, folders, strict=True))
    categories = {item: category for artifact in artifacts for item, category in categories_of(artifact).items()}
    quality = compared(*map(read_answers, folders), k=k) if all(map(has_answers, folders)) else None
    facts = [
        {"model": f"{artifact.name} {artifact.version}", **more} for artifact, more in zip(artifacts, told, strict=True)
    ]
    report = Report(
        title="Two replays of one log",
        a=facts[0],
        b=facts[1],
        log=", ".join(spec.sources),
        quality=quality,
        diff=diff(a, b, categories=categories, k=sorted({5, *k})),
    )
    if work is None:
        held.remove()
    return report, outcome


def compare_lists(settings: Settings, out: Path, other: str) -> Report:
    """The last lists of a replay (b) beside those of the workers or of another replay (a).

    Where both replays were judged, their quality is compared, too. settings: name the topics and the model, whose
    items' categories are told. out: the replay's folder; other: "live" or a folder.

    Raises:
        ReplayError: there are no lists.
        ReadError, TopicError, BrokerError: the topic of lists cannot be read.
        ArtifactError: the model cannot be used.
    """
    artifact = load_artifact(Path(settings.model.path))
    words = Vocabulary()
    quality = None
    if other == LIVE:
        topic = settings.topics.recommendations
        messages = read(settings, topic, Start(), follow=False)
        a = read_records(((message.key(), message.value()) for message in messages), words)
    else:
        a = read_folder(Path(other), words)
        if has_answers(Path(other)) and has_answers(out):
            quality = compared(read_answers(Path(other)), read_answers(out))
    return Report(
        title="A replay beside other lists",
        a={"lists": f"the workers', of {topic}" if other == LIVE else other},
        b={"lists": str(out), "model": f"{artifact.name} {artifact.version}"},
        quality=quality,
        diff=diff(a, read_folder(out, words), categories=categories_of(artifact)),
    )


def categories_of(artifact: Artifact) -> dict[str, str]:
    """The category of each item that a model knows, '' for none."""
    return dict(zip(artifact.item_ids, artifact.item_categories, strict=True))


def _lanes(make: Callable[[Sequence[int]], Share], partitions: int, processes: int) -> list[Lane]:
    numbers = range(partitions)
    if not processes:
        return [LocalLane(make(numbers), numbers)]
    return [ProcessLane(make, numbers[at::processes]) for at in range(min(processes, partitions))]


def _since(lanes: Sequence[Lane]) -> dict[int, int]:
    """By partition the first offset that one of the sides does not know; absent where one knows nothing."""
    known: dict[int, list[int]] = {}
    for lane in lanes:
        for number, offset in lane.next_offsets().items():
            known.setdefault(number, []).append(offset)
    return {number: min(offsets) for number, offsets in known.items() if len(offsets) == len(SIDES)}


def _identity(
    spec: LogSpec, settings: Sequence[Settings], artifacts: Sequence[Artifact], k: tuple[int, ...], chunk_records: int
) -> dict[str, Any]:
    """All that the results depend on. Of models their content, too: one that was trained anew is another."""
    options = Options(judged=True, chunk_records=chunk_records)
    return {
        **{side: identity_of(each, spec, options) for side, each in zip(SIDES, settings, strict=True)},
        "models": [[artifact.name, artifact.version, artifact.checksum] for artifact in artifacts],
        "k": k,
    }
