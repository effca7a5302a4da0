"""History becomes the state of workers: nothing twice, nothing left out, and no way to begin in the middle.

history (files)                      events topic
-2**40 ................ -2**40+n     0 1 2 3 4 ...
├────── replay, install ──────┤      ├─ the worker goes on here
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from state.codec import decode_state
from state.interest import InterestState
from state.store import MemoryStore, RocksStore
from stream.brokers import EmbeddedBroker
from stream.contract.control import ErasureConfirmed, encode_control, user_hash
from stream.contract.recommendation import Source
from stream.engine.cycle import UNFINISHED_OFFSET, Partition
from stream.engine.partitioner import partition_of
from stream.engine.recovery import recover
from stream.errors import RefusedError, ReplayError
from stream.replay import backfill
from stream.replay.backfill import HISTORY_FIRST_OFFSET, check, install
from stream.replay.process import PROGRESS_KEY, Share, store_path
from stream.replay.rows import Row
from stream.replay.run import make_share, states_only
from stream.replay.topic_range import TopicRange
from stream.replay.workers import LocalLane, Outcome, Plan, Watching, run
from stream.settings import Settings
from stream.topics import create_topics
from tests.chaos.world import World, wait_for
from tests.test_stream.test_replay.logs import NOW_MS, blocks, rows, settings_with_model

PARTITIONS = 2
ID = "0123456789ab"


def history_share(settings: Settings, plan: Plan, numbers: Sequence[int]) -> Share:
    """As `--into state` makes it."""
    return make_share(states_only(settings), plan, numbers, broker=True)


def replayed(
    settings: Settings, work: Path, log: Sequence[Row], *, make: Callable[..., Any] = history_share, **more: Any
) -> Outcome:
    """The log in this process, as history."""
    plan = Plan(
        **{
            "partitions": PARTITIONS,
            "chunk_records": 256,
            "work": str(work),
            "out": None,
            "now_ms": NOW_MS,
            "first_offset": HISTORY_FIRST_OFFSET,
            **more,
        }
    )
    lane = LocalLane(make(settings, plan, range(PARTITIONS)), range(PARTITIONS))
    try:
        return run(blocks(log, 500), ["log.jsonl"], plan, [lane], Watching())
    finally:
        lane.close()


def produce(settings: Settings, log: Sequence[Row]) -> None:
    """The rows onto the events topic, with the time at which a replay of a file says they came."""
    producer = Producer(settings.client_properties({"partitioner": "murmur2_random"}))
    for row in log:
        producer.produce(settings.topics.events, row.value, row.key, timestamp=NOW_MS)
    assert producer.flush(30) == 0


def in_changelog(settings: Settings) -> dict[tuple[int, bytes], bytes]:
    """What a worker with an empty disk would recover, by partition and key."""
    found = {}
    for number in range(PARTITIONS):
        store = MemoryStore()
        topics = settings.topics
        recover([Partition(topics.events, number, topics.changelog, store, 0)], settings.client_properties())
        found |= {(number, key): value for key, value in store.items()}
    return found


def in_stores(work: Path) -> dict[tuple[int, bytes], bytes]:
    found = {}
    for number in range(PARTITIONS):
        store = RocksStore(store_path(work, number))
        found |= {(number, key): value for key, value in store.items() if key != PROGRESS_KEY}
        store.close()
    return found


def states(found: dict[tuple[int, bytes], bytes]) -> dict[tuple[int, bytes], InterestState]:
    """Users' states, without where in the log their last event was."""
    return {
        place: msgspec.structs.replace(decode_state(value), last_offset=0)
        for place, value in found.items()
        if not place[1].startswith(b"\0")
    }


def committed(settings: Settings) -> list[int]:
    consumer = Consumer(settings.client_properties({"group.id": settings.worker.group}))
    asked = [TopicPartition(settings.topics.events, number) for number in range(PARTITIONS)]
    offsets = [position.offset for position in consumer.committed(asked, 20)]
    consumer.close()
    return offsets


def on_this_machine(world: World, name: str) -> Settings:
    """The settings of a worker of the world, with its data folder."""
    worker = world.settings.worker.model_copy(update={"data_dir": world.folder / name})
    return world.settings.model_copy(update={"worker": worker})


# ---------------------------------------------------------------------- the whole way


@pytest.mark.slow
@pytest.mark.kafka
def test_history_from_files_then_live_without_gap_or_overlap(kafka: str, tmp_path: Path) -> None:
    world = World(kafka, tmp_path, partitions=PARTITIONS)
    log = rows(6_000)
    history, live = log[:5_000], log[5_000:]
    settings = on_this_machine(world, "a")
    replayed(settings, tmp_path / "work", history)
    expected_keys = len(in_stores(tmp_path / "work"))
    first, second = world.worker("a"), world.worker("b")
    try:
        done = install(settings, tmp_path / "work", PARTITIONS, ID, local=True)
        assert (done.keys, done.tombstones, done.moved) == (expected_keys, 0, [0, 1])
        assert done.offsets == {0: 0, 1: 0}
        assert not any(store_path(tmp_path / "work", number).exists() for number in range(PARTITIONS))

        first.start()  # on the stores of the replay
        produce(settings, live[:500])
        wait_for("all is committed", world.caught_up, 60, [first])
        assert first.log.read_text().count("recovered partitions=[0, 1] records=0 ") == 1
        first.kill()
        produce(settings, live[500:])
        second.start()  # on an empty disk: from the changelog
        wait_for("all is committed", world.caught_up, 60, [second])
        second.stop()

        replayed(settings, tmp_path / "whole", log)
        whole = states(in_stores(tmp_path / "whole"))
        assert states(in_changelog(settings)) == whole
        assert sum(state.events_applied for state in whole.values()) > 5_000
    finally:
        first.end()
        second.end()


@pytest.mark.slow
@pytest.mark.kafka
def test_history_of_the_events_topic_then_live_is_the_live_run(kafka: str, tmp_path: Path) -> None:
    world = World(kafka, tmp_path, partitions=PARTITIONS)
    log = rows(3_000)
    produce(world.settings, log[:2_000])
    span = TopicRange(world.settings, world.settings.topics.events)
    produce(world.settings, log[2_000:2_400])  # after the range's end was fixed
    read = [row for block in span.blocks({}) for row in block]
    assert len(read) == sum(span.ends.values()) == 2_000
    replayed(world.settings, tmp_path / "work", read, keeps_places=True, first_offset=0)

    worker, other = world.worker("a"), world.elsewhere("fresh")
    fresh = other.worker("fresh")
    try:
        done = install(world.settings, tmp_path / "work", PARTITIONS, ID, ends=span.ends)
        assert done.offsets == span.ends
        produce(world.settings, log[2_400:])
        worker.start()
        wait_for("all is committed", world.caught_up, 60, [worker])
        fresh.start()
        wait_for("a run from the beginning is through", other.caught_up, 60, [fresh])

        def users(of: Settings) -> dict[tuple[int, bytes], bytes]:
            return {place: value for place, value in in_changelog(of).items() if not place[1].startswith(b"\0")}

        assert users(world.settings) == users(other.settings)
        lists, others = world.last_lists(), other.last_lists()
        assert lists
        assert lists == {key: others[key] for key in lists}
    finally:
        worker.end()
        fresh.end()


# ---------------------------------------------------------------------- crashes


class KilledError(Exception):
    """In place of kill -9."""


@pytest.mark.slow
@pytest.mark.kafka
@pytest.mark.parametrize("after", ["mark", "some transactions", "all records"])
def test_a_crash_stops_every_worker_until_the_backfill_was_run_again(
    kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    world = World(kafka, tmp_path, partitions=PARTITIONS)
    settings, work = world.settings, tmp_path / "work"
    replayed(settings, work, rows(2_000))
    monkeypatch.setattr(backfill, "_TRANSACTION_RECORDS", 8)
    commits: list[int] = []

    def die(*_: Any) -> None:
        raise KilledError

    def die_at(limit: int) -> Callable[..., None]:
        write = backfill._Writer.write

        def counted(self: Any, *record: Any) -> None:
            commits.append(1)
            if len(commits) > limit:
                raise KilledError  # in the middle of a transaction, which stays open
            write(self, *record)

        return counted

    with monkeypatch.context() as patched:
        if after == "all records":
            patched.setattr(backfill, "_write_done", die)
        else:
            patched.setattr(backfill._Writer, "write", die if after == "mark" else die_at(29))
        with pytest.raises(KilledError):
            install(settings, work, PARTITIONS, ID)
    assert committed(settings) == [UNFINISHED_OFFSET] * PARTITIONS
    assert check(settings, PARTITIONS, ID, then="", has_ends=False) == "unfinished"
    with pytest.raises(RefusedError, match="another backfill"):
        check(settings, PARTITIONS, "another", then="", has_ends=False)

    worker = world.worker("a")
    try:
        worker.start()
        wait_for("the worker ends", lambda: not worker.alive, 60, [worker])
        assert worker.exit_code == 1
        assert "is not finished. Run it again" in worker.log.read_text()
    finally:
        worker.end()

    store = RocksStore(store_path(work, 0))  # the replay went on meanwhile: one user is gone, one is new
    gone = next(key for key, _ in store.items() if not key.startswith(b"\0"))
    store.write([(gone, None), (b"new", b"value")], None)
    store.close()
    done = install(settings, work, PARTITIONS, ID)
    assert done.tombstones == (0 if after == "mark" else 1)
    assert in_changelog(settings) == in_stores(work)
    assert committed(settings) == [0] * PARTITIONS
    assert check(settings, PARTITIONS, ID, then="", has_ends=False) == "done"
    assert install(settings, work, PARTITIONS, ID).keys == 0


@pytest.mark.kafka
def test_a_crash_before_the_stores_were_moved_is_mended(
    kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(kafka, tmp_path, partitions=PARTITIONS)
    settings, work = on_this_machine(world, "a"), tmp_path / "work"
    replayed(settings, work, rows(500))
    install(settings, work, PARTITIONS, ID)

    def other_disk(*_: Any) -> None:
        raise OSError

    with monkeypatch.context() as patched:
        patched.setattr(backfill.Path, "rename", other_disk)
        with pytest.raises(OSError):
            install(settings, work, PARTITIONS, ID, local=True)
    assert install(settings, work, PARTITIONS, ID, local=True).moved == [0, 1]
    assert install(settings, work, PARTITIONS, ID, local=True).moved == []
    for number in range(PARTITIONS):
        store = RocksStore(settings.worker.data_dir / settings.worker.group / f"{settings.topics.events}-{number}.db")
        assert store.position > 0
        assert store.get_many([PROGRESS_KEY]) == [None]
        store.close()


# ---------------------------------------------------------------------- refusals


@pytest.mark.slow
@pytest.mark.kafka
def test_what_is_there_is_not_overwritten_unless_asked(kafka: str, tmp_path: Path) -> None:
    world = World(kafka, tmp_path, partitions=PARTITIONS)
    settings, work = world.settings, tmp_path / "work"
    produce(settings, rows(200, seed=7))
    worker = world.worker("a").start()
    try:
        wait_for("all is committed", world.caught_up, 60, [worker])
        with pytest.raises(RefusedError, match="1 workers of group"):
            check(settings, PARTITIONS, ID, then="latest", has_ends=False, replace=True)
    finally:
        worker.stop()
    with pytest.raises(RefusedError, match="--then"):
        check(settings, PARTITIONS, ID, then="", has_ends=False)
    with pytest.raises(RefusedError, match="has committed offsets"):
        check(settings, PARTITIONS, ID, then="latest", has_ends=False)
    with pytest.raises(RefusedError, match=r"offset=100000: offset 100000 of"):
        check(settings, PARTITIONS, ID, then="offset=100000", has_ends=False, replace=True)
    with pytest.raises(RefusedError, match="has 3 partitions and"):
        check(settings, 3, ID, then="latest", has_ends=False)

    other = settings.model_copy(update={"worker": settings.worker.model_copy(update={"group": f"{world.name}-new"})})
    with pytest.raises(RefusedError, match="holds records"):
        check(other, PARTITIONS, ID, then="latest", has_ends=False)

    before = in_changelog(settings)
    replayed(settings, work, rows(800, seed=3, users=5))
    done = install(settings, work, PARTITIONS, ID, then="latest", replace=True)
    stands = in_stores(work)
    assert done.tombstones == len(before.keys() - stands.keys()) > 0
    assert in_changelog(settings) == stands
    assert sum(done.offsets.values()) > 200 - 1


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("then", "offsets"), [("earliest", [0, 0]), ("latest", [30, 30]), ("offset=7", [7, 7]), ("ts=", [20, 30])]
)
def test_where_live_goes_on(kafka: str, tmp_path: Path, then: str, offsets: list[int]) -> None:
    world = World(kafka, tmp_path, partitions=PARTITIONS)
    settings, work = world.settings, tmp_path / "work"
    producer = Producer(settings.client_properties())
    for n in range(30):  # a minute apart; those of partition 1 an hour earlier
        for number in range(PARTITIONS):
            at_ms = NOW_MS + n * 60_000 - number * 3_600_000
            producer.produce(settings.topics.events, b"{}", b"x", number, timestamp=at_ms)
    assert producer.flush(30) == 0
    if then == "ts=":
        then += str(NOW_MS + 20 * 60_000)
    replayed(settings, work, rows(100))
    assert list(install(settings, work, PARTITIONS, ID, then=then).offsets.values()) == offsets
    assert committed(settings) == offsets


@pytest.mark.kafka
def test_states_that_know_what_live_would_read_again_are_refused(kafka: str, tmp_path: Path) -> None:
    world = World(kafka, tmp_path, partitions=PARTITIONS)
    produce(world.settings, rows(300))
    replayed(world.settings, tmp_path / "work", rows(300), first_offset=0)
    with pytest.raises(ReplayError, match="know of offset"):
        install(world.settings, tmp_path / "work", PARTITIONS, ID, then="earliest")


@pytest.mark.kafka
def test_states_of_some_partitions_are_not_all(kafka: str, tmp_path: Path) -> None:
    world = World(kafka, tmp_path, partitions=PARTITIONS)
    with pytest.raises(ReplayError, match=r"no states of partitions \[0, 1\]"):
        install(world.settings, tmp_path / "work", PARTITIONS, ID)
    assert committed(world.settings) == [-1001, -1001]


def embedded_settings(embedded: EmbeddedBroker, folder: Path) -> Settings:
    settings = settings_with_model(
        folder, **{"kafka.bootstrap_servers": embedded.bootstrap_servers, "topics.partitions": PARTITIONS}
    )
    create_topics(settings)
    return settings


def test_the_embedded_broker_is_refused(embedded: EmbeddedBroker, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="real Kafka"):
        check(embedded_settings(embedded, tmp_path), PARTITIONS, ID, then="", has_ends=False)


# ---------------------------------------------------------------------- states of history


def test_an_erased_user_stays_erased(embedded: EmbeddedBroker, tmp_path: Path) -> None:
    settings = embedded_settings(embedded, tmp_path)
    log = rows(1_000)
    gone = log[0].key
    done = ErasureConfirmed(
        user_hash=user_hash(gone),
        erased_at="2026-01-02T03:04:05.000Z",
        source=Source(settings.topics.events, partition_of(gone, PARTITIONS), 5),  # long gone from the topic
        requested_at="2026-01-02T03:04:05.000Z",
    )
    producer = Producer(settings.client_properties())
    producer.produce(settings.topics.erasures, encode_control(done), done.key)
    assert producer.flush(10) == 0
    outcome = replayed(settings, tmp_path / "work", log)
    known = {key for _, key in in_stores(tmp_path / "work")}
    assert gone not in known
    assert log[1].key in known
    assert outcome.counts["erased"] >= sum(row.key == gone for row in log) - len(log) // 97 - 1
    assert outcome.counts["lists"] == 0


def test_popularity_goes_on_behind_history(tmp_path: Path) -> None:
    settings = settings_with_model(tmp_path, **{"ranking.trend_refresh_events": 64, "worker.lists": "chunk"})
    log = rows(3_000)

    def lists(name: str, first_offset: int) -> list[dict[str, Any]]:
        """What a replay of the end of the log tells of new users, after its beginning was history."""
        work, out = tmp_path / name, tmp_path / name / "out"

        def make(*more: Any) -> Any:
            return make_share(*more, broker=False)

        replayed(settings, work, log[:2_000], make=make, first_offset=first_offset)
        plan = {"first_offset": 2_048 if first_offset == 0 else 0, "out": str(out)}
        fresh = [
            row._replace(value=row.value.replace(b'"user_id":"u', b'"user_id":"n'), key=b"n" + row.key[1:])
            for row in log[2_000:]
            if row.value is not None
        ]
        replayed(settings, work, fresh, make=make, **plan)
        made = [json.loads(line) for path in sorted(out.glob("lists/*")) for line in path.read_text().splitlines()]
        return [{"user": one.get("user_id"), "items": [i["item_id"] for i in one.get("items", ())]} for one in made]

    assert HISTORY_FIRST_OFFSET % 64 == HISTORY_FIRST_OFFSET % 256 == 0
    later, behind = lists("later", 0), lists("behind", HISTORY_FIRST_OFFSET)
    assert len(later) > 20
    assert behind == later
