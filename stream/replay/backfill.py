"""States from history into the live changelog, so that a worker starts with years of it and goes on live.

    log ──> replay in process ──> WORK/stores ──install──> changelog, then the group's offsets ──> a worker goes on

A replay of history makes no lists (`run.states_only`). Rows of files stand before the log: their offsets begin at
HISTORY_FIRST_OFFSET, far below the events topic's first. `install` then does this, in this order:

    1  the group's offsets := UNFINISHED_OFFSET of all partitions       a worker that starts ends with an error
    2  changelog: tombstones for keys that no store has, then every key and value    transactions of some thousand
    3  WORK/installed.json: where the changelog ends, where live goes on
    4  the group's offsets := where live goes on, of all partitions in one request   a worker may start
    5  the stores become the worker's own, if it runs on this machine

Steps 1 and 4 are refused by the broker while the group has a member, so no worker is there from 1 to 4, and one that
starts meanwhile ends at once. A crash before 4 leaves the mark of 1, with the name of this replay beside it: the same
command again writes everything again, which gives the same state, for a key's last value counts and what is no longer
in the stores gets a tombstone. A producer of the crashed run that is still alive is fenced by its transactional.id. A
crash after 4 leaves a finished backfill; run again, only 5 is done.

Kafka forgets the offsets of a group without members after `offsets.retention.minutes` (a week by default), these and
the mark of 1 as well: start a worker within that time.

Users whose erasure was confirmed on the erasures topic stay erased: of rows of files, which nobody can place before or
after the erasure, none of such a user is taken. What is not there after a backfill: lists, until a user's next event.

No sorted (SST) files are written: the replay's stores are RocksDB already, and moving their folders is all there is to
do. Elsewhere they would bring little: writing states is 3.6 % of a replay's CPU time, and 300,000 states of 880 bytes
took 1.2 s by RocksStore.write, as sorted files 0.8 s and 3.2 s to take those in (tests/bench/bench_backfill.py --sst).
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from state.store import MemoryStore, RocksStore
from stream.engine.asking import patiently, watermarks
from stream.engine.consumer import local_store
from stream.engine.cycle import UNFINISHED_OFFSET, Partition, produce_one, retrying, too_large
from stream.engine.recovery import recover
from stream.errors import EngineError, RefusedError, ReplayError
from stream.reading import Start
from stream.replay.process import PROGRESS_KEY, read_progress, store_path
from stream.settings import Settings
from stream.topics import check_topics
from stream.worker import only_owner

logger = logging.getLogger(__name__)

HISTORY_FIRST_OFFSET = -(2**40)
"""The first offset of rows of files: a million million of them fit before the log's own first offset, 0."""

_MARK = "driftline backfill "
_FILE = "installed.json"
_ASK_S = 30.0
# A commit costs some ms, a thousand records as much.
_TRANSACTION_RECORDS = 8_192
_TRANSACTION_TIMEOUT_MS = 60_000
_QUEUE_KBYTES = 64 << 10
# A worker that started meanwhile leaves the group within a second or so.
_MEMBER_LEAVES_S = 20.0


@dataclass
class Installed:
    """What `install` did."""

    keys: int = 0
    """Written to the changelog."""
    value_bytes: int = 0
    tombstones: int = 0
    offsets: dict[int, int] = field(default_factory=dict)
    """Where live goes on, by partition."""
    moved: list[int] = field(default_factory=list)
    """Partitions whose store became the worker's."""
    seconds: float = 0.0


class _Done(msgspec.Struct):
    """WORK/installed.json."""

    replay_id: str
    changelog_ends: dict[int, int]
    offsets: dict[int, int]


def check(
    settings: Settings, partitions: int, replay_id: str, *, then: str, has_ends: bool, replace: bool = False
) -> Literal["free", "unfinished", "done"]:
    """Whether history may become the state of `worker.group`; to be asked before it is replayed.

    Args:
        settings: all settings.
        partitions: of the replay.
        replay_id: names this replay, the same whenever it goes on: see work.identity_digest.
        then: where live goes on after files; see `install`.
        has_ends: the log is a range of the events topic: live goes on where it ends.
        replace: what is there may be replaced.

    Returns:
        "free": nothing is there yet, or it is to be replaced; "unfinished": this backfill, begun; "done": this
        backfill, and no worker has gone on with it yet.

    Raises:
        RefusedError: it may not; says why and what to do.
    """
    cluster = check_topics(settings)
    topics, group = settings.topics, settings.worker.group
    if cluster.embedded:
        raise RefusedError(
            "a backfill needs a real Kafka: the embedded broker forgets its topics when it ends, and readers of it see "
            "transactions that are not committed."
        )
    if cluster.partitions[topics.events] != partitions:
        raise RefusedError(
            f"the replay has {partitions} partitions and {topics.events} has {cluster.partitions[topics.events]}: the "
            "log must be that topic, or files."
        )
    _refuse_members(settings)
    with _looking(settings) as consumer:
        if not has_ends:
            _live_offsets(consumer, settings, partitions, None, then)
        standing = _standing(consumer, settings, partitions, replay_id)
        if standing == "done" or replace:
            return "done" if standing == "done" else "free"
        if standing == "other":
            raise RefusedError(
                f"the group {group} has committed offsets of {topics.events}, so it has a state already (or another "
                "backfill of it was begun). Fill the state of a new group with a changelog of its own (--group, "
                "--set topics.changelog=NAME), or replace this one's: --replace."
            )
        written = [n for n in range(partitions) if len(range(*watermarks(consumer, topics.changelog, n)))]
        if written and standing == "free":
            raise RefusedError(
                f"{topics.changelog} holds records (partitions {written}), of a state that was there before. Name a "
                "new changelog (--set topics.changelog=NAME, and driftline topics create), or replace it: --replace."
            )
        return "unfinished" if standing == "unfinished" else "free"


def install(
    settings: Settings,
    work: Path,
    partitions: int,
    replay_id: str,
    *,
    ends: Mapping[int, int] | None = None,
    then: str = "",
    replace: bool = False,
    local: bool = False,
    on_progress: Callable[[int, int], None] = lambda _, __: None,
) -> Installed:
    """Make the stores of a finished replay the state of `worker.group`.

    Args:
        settings: all settings.
        work: the replay's work folder, closed.
        partitions: of the replay: WORK has a store for each.
        replay_id: see `check`.
        ends: of a range of the events topic, the offset after its end, of every partition (TopicRange.ends).
        then: of files, where live goes on in the events topic: earliest, latest, offset=N, ts=TIME; not needed while
            that topic is empty.
        replace: what the changelog and the group have is replaced.
        local: the worker runs on this machine: it gets the stores, and need not read the changelog.
        on_progress: told partitions done and keys written.

    Raises:
        RefusedError: see `check`.
        ReplayError: it cannot go on; run again.
    """
    began_s = time.monotonic()
    done = Installed()
    with contextlib.ExitStack() as held:
        if local:
            held.enter_context(only_owner(settings.worker.data_dir / settings.worker.group))
        standing = check(settings, partitions, replay_id, then=then, has_ends=ends is not None, replace=replace)
        try:
            if standing != "done":
                _install(settings, work, partitions, replay_id, ends, then, done, on_progress)
        except (KafkaException, EngineError) as error:
            told = error.args[0].str() if isinstance(error, KafkaException) else str(error)
            raise ReplayError(f"the states were not written, or not all: {told}. Mend that and run it again.") from None
        found = _read_done(work, replay_id)
        done.offsets = found.offsets
        if local:
            done.moved = _move(settings, work, found)
    done.seconds = time.monotonic() - began_s
    return done


# ---------------------------------------------------------------------- what is there


@contextlib.contextmanager
def _looking(settings: Settings) -> Iterator[Consumer]:
    """A client in the worker's group that never joins it."""
    more = {
        "group.id": settings.worker.group,
        "enable.auto.commit": False,
        "isolation.level": "read_uncommitted",  # a topic's end, and not that of its transactions so far
    }
    consumer = Consumer(settings.client_properties(more))
    try:
        yield consumer
    finally:
        consumer.close()


def _refuse_members(settings: Settings) -> None:
    group = settings.worker.group
    admin = AdminClient(settings.client_properties())  # must outlive its answer
    try:
        members = admin.describe_consumer_groups([group], request_timeout=_ASK_S)[group].result().members
    except KafkaException as error:
        raise RefusedError(f"the broker did not tell of group {group}: {error.args[0].str()}.") from None
    if members:
        raise RefusedError(f"{len(members)} workers of group {group} run: stop them, then run this again.")


def _committed(consumer: Consumer, settings: Settings, partitions: int) -> list[TopicPartition]:
    asked = [TopicPartition(settings.topics.events, number) for number in range(partitions)]
    return patiently(lambda: consumer.committed(asked, _ASK_S))


def _standing(
    consumer: Consumer, settings: Settings, partitions: int, replay_id: str
) -> Literal["free", "unfinished", "done", "other"]:
    """What the group's offsets say."""
    there = [position for position in _committed(consumer, settings, partitions) if position.offset >= 0]
    if not there:
        return "free"
    if not any(position.metadata == _MARK + replay_id for position in there):
        return "other"
    return "unfinished" if there[0].offset == UNFINISHED_OFFSET else "done"


def _live_offsets(
    consumer: Consumer, settings: Settings, partitions: int, ends: Mapping[int, int] | None, then: str
) -> dict[int, int]:
    """Where live goes on, by partition. Raises RefusedError when that is nowhere in the events topic."""
    topic = settings.topics.events
    held = {number: watermarks(consumer, topic, number) for number in range(partitions)}
    if ends is not None:
        wanted, what = dict(ends), "the range's end"
    elif then:
        wanted, what = _places_of(consumer, topic, held, then), f"--then {then}"
    elif all(low == high for low, high in held.values()):
        wanted, what = {number: high for number, (_, high) in held.items()}, "the end"
    else:
        raise RefusedError(
            f"{topic} holds events: say where live goes on after the history with --then earliest, latest, offset=N or "
            "ts=TIME."
        )
    for number, offset in wanted.items():
        low, high = held[number]
        if not low <= offset <= high:
            raise RefusedError(
                f"live cannot go on at {what}: offset {offset} of {topic}[{number}], which holds offsets {low} to "
                f"{high - 1}. Where retention has removed what comes next, replay again, up to the present end."
            )
    return wanted


def _places_of(consumer: Consumer, topic: str, held: Mapping[int, tuple[int, int]], then: str) -> dict[int, int]:
    start = Start.parse(then, time.time_ns() // 1_000_000, "--then")
    if start.since_ms is not None:
        asked = [TopicPartition(topic, number, start.since_ms) for number in held]
        found = patiently(lambda: consumer.offsets_for_times(asked, timeout=_ASK_S))
        # Where there is no record of that time yet, the next one is of a later time.
        return {at.partition: at.offset if at.offset >= 0 else held[at.partition][1] for at in found}
    return {
        number: {OFFSET_BEGINNING: low, OFFSET_END: high}.get(start.offset, start.offset)
        for number, (low, high) in held.items()
    }


# ---------------------------------------------------------------------- the changelog


def _install(
    settings: Settings,
    work: Path,
    partitions: int,
    replay_id: str,
    ends: Mapping[int, int] | None,
    then: str,
    done: Installed,
    on_progress: Callable[[int, int], None],
) -> None:
    """Steps 1 to 4."""
    missing = [number for number in range(partitions) if not store_path(work, number).exists()]
    if missing:
        raise ReplayError(
            f"{work} has no states of partitions {missing}. Were they replayed elsewhere (--share)? Bring all stores "
            "together in one work folder, then run this again."
        )
    topics = settings.topics
    with _looking(settings) as consumer:
        offsets = _live_offsets(consumer, settings, partitions, ends, then)
        if len(offsets) != partitions:
            raise ReplayError(f"the range of {topics.events} does not name the end of every partition. Report this.")
        mark = _MARK + replay_id
        _commit(consumer, settings, dict.fromkeys(range(partitions), UNFINISHED_OFFSET), mark)
        writer = _Writer(settings)  # from here on nobody else writes: an earlier run's producer is fenced
        for number in range(partitions):
            store = RocksStore(store_path(work, number))
            try:
                reached = read_progress(store).next_offset
                if reached is not None and reached > offsets[number]:
                    raise ReplayError(
                        f"the states of partition {number} know of offset {reached - 1}, and live would go on at "
                        f"{offsets[number]}: begin anew with --fresh."
                    )
                for key in _leftover(settings, number, store):
                    writer.write(number, key, None)
                    done.tombstones += 1
                for key, value in store.items():
                    if key != PROGRESS_KEY:
                        writer.write(number, key, value)
                        done.keys += 1
                        done.value_bytes += len(value)
            finally:
                store.close()
            on_progress(number + 1, done.keys)
        writer.close()
        written = {number: watermarks(consumer, topics.changelog, number)[1] for number in range(partitions)}
        _write_done(work, _Done(replay_id, written, offsets))
        _commit(consumer, settings, offsets, mark)
    logger.info("backfill of group %s: %d keys, live goes on at %s", settings.worker.group, done.keys, offsets)


def _commit(consumer: Consumer, settings: Settings, offsets: Mapping[int, int], mark: str) -> None:
    """The group's offsets of all partitions, in one request. Raises ReplayError while the group has members."""
    asked = [TopicPartition(settings.topics.events, number, offset, mark) for number, offset in sorted(offsets.items())]
    end_s = time.monotonic() + _MEMBER_LEAVES_S
    while True:
        try:
            answers = patiently(lambda: consumer.commit(offsets=asked, asynchronous=False))
        except KafkaException as error:
            code = error.args[0].code()
            if code not in (KafkaError.UNKNOWN_MEMBER_ID, KafkaError.ILLEGAL_GENERATION):
                raise
            if time.monotonic() > end_s:
                raise ReplayError(
                    f"workers of group {settings.worker.group} run: stop them, then run this again."
                ) from None
            time.sleep(0.5)
            continue
        failed = [answer.error for answer in answers or () if answer.error is not None]
        if failed:
            raise KafkaException(failed[0])
        return


class _Keys(MemoryStore):
    """Notes which keys of a changelog have a value there and none in a store."""

    def __init__(self, store: RocksStore) -> None:
        super().__init__()
        self._store = store
        self.keys: set[bytes] = set()

    def write(self, puts: Sequence[tuple[bytes, bytes | None]], position: int | None) -> None:
        """See Store."""
        last = dict(puts)
        names = list(last)
        for key, here in zip(names, self._store.get_many(names), strict=True):
            if last[key] is None:
                self.keys.discard(key)
            elif here is None:
                self.keys.add(key)
        super().write((), position)


def _leftover(settings: Settings, number: int, store: RocksStore) -> list[bytes]:
    """Keys in the changelog, of an earlier run or of what is replaced, that the state does not have."""
    keys = _Keys(store)
    topics = settings.topics
    recover([Partition(topics.events, number, topics.changelog, keys, 0)], settings.client_properties())
    return sorted(keys.keys)


class _Writer:
    """Writes the changelog in transactions; one at a time may, for a cluster's changelog and group."""

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.topics.changelog
        self._refused: list[EngineError] = []
        self._count = 0
        self._producer = Producer(
            settings.client_properties(
                {
                    "transactional.id": f"driftline-backfill-{settings.worker.group}-{self._topic}",
                    "transaction.timeout.ms": _TRANSACTION_TIMEOUT_MS,
                    "linger.ms": 5,
                    "retry.backoff.ms": 5,
                    "batch.num.messages": 10_000,
                    "queue.buffering.max.messages": 2 * _TRANSACTION_RECORDS,
                    "queue.buffering.max.kbytes": _QUEUE_KBYTES,
                    "message.max.bytes": 64 << 20,  # the topic decides what is too large
                }
            )
        )
        retrying(self._producer.init_transactions, _ASK_S)

    def write(self, number: int, key: bytes, value: bytes | None) -> None:
        """One record. Raises KafkaException, EngineError."""
        if self._count % _TRANSACTION_RECORDS == 0:
            if self._count:
                self._end()
            self._producer.begin_transaction()
        self._count += 1
        produce_one(self._producer, self._topic, value, key, number, on_delivery=self._delivered)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            self._refused.append(too_large(message))

    def _end(self) -> None:
        try:
            retrying(self._producer.commit_transaction, _ASK_S)
        except KafkaException:
            if self._refused:
                raise self._refused[0] from None
            raise

    def close(self) -> None:
        """What was written stands when this returns. Raises KafkaException, EngineError."""
        if self._count:
            self._end()


# ---------------------------------------------------------------------- the work folder and the worker's


def _write_done(work: Path, done: _Done) -> None:
    written = work / f"{_FILE}.new"
    with written.open("wb") as file:
        file.write(msgspec.json.encode(done))
        file.flush()
        os.fsync(file.fileno())
    written.replace(work / _FILE)


def _read_done(work: Path, replay_id: str) -> _Done:
    try:
        done = msgspec.json.decode((work / _FILE).read_bytes(), type=_Done)
    except (FileNotFoundError, msgspec.DecodeError):
        done = None
    if done is None or done.replay_id != replay_id:
        raise RefusedError(f"this backfill was done already, and not from {work}: nothing is left to do.")
    return done


def _move(settings: Settings, work: Path, done: _Done) -> list[int]:
    """Give the worker of this machine the stores that it has not; returns their partitions."""
    moved = []
    folder = settings.worker.data_dir / settings.worker.group
    for number, end in done.changelog_ends.items():
        ours, theirs = store_path(work, number), local_store(folder, settings.topics.events, number)
        if theirs.exists() or not ours.exists():
            continue  # moved already, or one that knows where to go on in the changelog
        store = RocksStore(ours)
        store.write([(PROGRESS_KEY, None)], end)
        store.close()
        try:
            ours.rename(theirs)
        except OSError:  # another file system
            half = theirs.with_suffix(".moving")
            shutil.rmtree(half, ignore_errors=True)
            shutil.copytree(ours, half)
            half.rename(theirs)
            shutil.rmtree(ours)
        moved.append(number)
    return moved
