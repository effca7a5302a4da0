"""Each kind of difference between a replay and the live workers is found, and named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Producer

from state.store import MemoryStore, RocksStore
from stream.brokers import EmbeddedBroker
from stream.errors import ReplayError
from stream.replay import equal
from stream.replay.equal import Compared, Verified, verify
from stream.replay.process import store_path
from stream.replay.run import make_share
from stream.replay.workers import LocalLane, Plan, Watching, run
from stream.settings import Settings
from stream.topics import create_topics
from tests.test_stream.test_replay.logs import NOW_MS, blocks, rows, settings_with_model

PARTITIONS = 2
COUNT = 600
Values = dict[bytes, bytes]
Live = dict[tuple[str, int], Values]
"""By role (states, lists) and partition what the last records of the live topics hold."""


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Path]:
    """A replay's folder: states in it, lists in its `out`."""
    folder = tmp_path_factory.mktemp("replayed")
    settings = settings_with_model(folder)
    plan = Plan(partitions=PARTITIONS, chunk_records=64, work=str(folder), out=str(folder / "out"), now_ms=NOW_MS)
    lane = LocalLane(make_share(settings, plan, range(PARTITIONS), broker=False), range(PARTITIONS))
    run(blocks(rows(COUNT), 100), ["log.jsonl"], plan, [lane], Watching())
    lane.close()
    return settings, folder


@pytest.fixture
def live(replayed: tuple[Settings, Path]) -> Live:
    """What workers of the same log would have left; lists made at another time."""
    _, folder = replayed
    found: Live = {}
    for number in range(PARTITIONS):
        store = RocksStore(store_path(folder, number))
        found["states", number] = dict(store.items())
        store.close()
        lists = found["lists", number] = {}
        for line in (folder / "out" / "lists" / f"{number:05d}.jsonl").read_bytes().splitlines():
            made = msgspec.json.decode(line)
            if "removed" in made:
                lists.pop(made["removed"].encode(), None)
            else:
                lists[made["user_id"].encode()] = msgspec.json.encode(made | {"generated_at": "some other time"})
    return found


@pytest.fixture
def verified(replayed: tuple[Settings, Path], live: Live, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Verified]:
    """Verifies against `live` as it is then."""
    settings, folder = replayed

    def compacted(_: Settings, topic: str, number: int, path: Path) -> MemoryStore:
        store = MemoryStore()
        role = "states" if topic == settings.topics.changelog else "lists"
        store.write(list(live[role, number].items()), None)
        return store

    monkeypatch.setattr(equal, "_compacted", compacted)
    return lambda: verify(settings, folder, folder / "out", PARTITIONS)


def a_user(live: Live, role: str = "states", number: int = 1) -> bytes:
    return max(key for key in live[role, number] if not key.startswith(b"\0"))


def test_the_same_is_the_same(verified: Callable[[], Verified], live: Live) -> None:
    found = verified()
    users = sum(not key.startswith(b"\0") for number in range(PARTITIONS) for key in live["states", number])
    assert users > 20
    assert found.states == Compared(equal=users)
    assert found.lists == Compared(equal=sum(len(live["lists", number]) for number in range(PARTITIONS)))
    assert found.states.same
    assert found.lists.same


def test_nothing_is_not_the_same(verified: Callable[[], Verified], live: Live) -> None:
    assert not Compared().same
    for values in live.values():
        values.clear()
    found = verified()
    assert not found.states.same
    assert found.states.only_replay > 20


@pytest.mark.parametrize("at", [1, 20, -1])
def test_one_byte_of_a_state(verified: Callable[[], Verified], live: Live, at: int) -> None:
    user = a_user(live)
    value = bytearray(live["states", 1][user])
    value[at] ^= 1
    live["states", 1][user] = bytes(value)
    found = verified()
    assert (found.states.different, found.states.differing, found.states.same) == (1, [user.decode()], False)
    assert found.lists.same


def test_one_item_of_a_list(verified: Callable[[], Verified], live: Live) -> None:
    user = a_user(live, "lists")
    made = msgspec.json.decode(live["lists", 1][user])
    made["items"][-1]["item_id"] = "another"
    live["lists", 1][user] = msgspec.json.encode(made)
    found = verified()
    assert (found.lists.different, found.lists.differing, found.lists.same) == (1, [user.decode()], False)
    assert found.states.same


def test_two_items_of_a_list_in_another_order(verified: Callable[[], Verified], live: Live) -> None:
    user = a_user(live, "lists")
    made = msgspec.json.decode(live["lists", 1][user])
    made["items"][0], made["items"][1] = made["items"][1], made["items"][0]
    live["lists", 1][user] = msgspec.json.encode(made)
    assert verified().lists.different == 1


def test_a_list_that_the_replay_took_back(
    replayed: tuple[Settings, Path], live: Live, verified: Callable[[], Verified]
) -> None:
    """A tombstone is the last word: the live side has no list then, or differs."""
    _, folder = replayed
    file = folder / "out" / "lists" / "00001.jsonl"
    before, user = file.read_bytes(), a_user(live, "lists")
    file.write_bytes(before + msgspec.json.encode({"removed": user.decode()}) + b"\n")
    try:
        assert verified().lists.only_live == 1
        del live["lists", 1][user]
        assert verified().lists.same
    finally:
        file.write_bytes(before)


@pytest.mark.parametrize("role", ["states", "lists"])
def test_a_user_that_one_side_lacks(verified: Callable[[], Verified], live: Live, role: str) -> None:
    user = a_user(live, role)
    value = live[role, 1].pop(user)
    live[role, 1][b"zz"] = value
    found = getattr(verified(), role)
    assert (found.only_replay, found.only_live, found.different, found.same) == (1, 1, 0, False)
    assert found.differing == [user.decode(), "zz"]


def test_a_user_in_another_partition(verified: Callable[[], Verified], live: Live) -> None:
    user = a_user(live)
    live["states", 0][user] = live["states", 1].pop(user)
    found = verified()
    assert (found.states.only_replay, found.states.only_live) == (1, 1)


def test_what_a_partition_keeps_for_itself_is_not_compared(verified: Callable[[], Verified], live: Live) -> None:
    live["states", 0][b"\0watermark"] = b"another"
    assert verified().states.same


def test_only_the_first_few_are_named(verified: Callable[[], Verified], live: Live) -> None:
    for number in range(PARTITIONS):
        live["states", number] = dict.fromkeys(live["states", number], b"another")
    found = verified().states
    assert found.equal == 0
    assert found.different > len(found.differing) == 5


def test_a_replay_of_a_share_is_refused(replayed: tuple[Settings, Path], tmp_path: Path) -> None:
    settings, _ = replayed
    with pytest.raises(ReplayError, match=r"is missing: is .* the work folder of a replay of all partitions"):
        verify(settings, tmp_path, tmp_path / "out", PARTITIONS)


def test_topics_are_read_to_their_end(
    replayed: tuple[Settings, Path], live: Live, embedded: EmbeddedBroker, tmp_path: Path
) -> None:
    settings, folder = replayed
    shutil.copytree(folder, tmp_path / "copy")
    kafka = settings.kafka.model_copy(update={"bootstrap_servers": embedded.bootstrap_servers})
    topics = settings.topics.model_copy(update={"partitions": PARTITIONS})
    settings = settings.model_copy(update={"kafka": kafka, "topics": topics})
    create_topics(settings)
    producer = Producer(settings.client_properties())
    for (role, number), values in live.items():
        topic = topics.changelog if role == "states" else topics.recommendations
        for key, value in values.items():
            producer.produce(topic, b"{}", key, partition=number)  # an older value
            producer.produce(topic, value, key, partition=number)
    user = a_user(live, "lists")
    producer.produce(topics.recommendations, None, user, partition=1)
    assert producer.flush(30) == 0
    found = verify(settings, tmp_path / "copy", tmp_path / "copy" / "out", PARTITIONS)
    assert found.states.same
    assert (found.lists.only_replay, found.lists.differing) == (1, [user.decode()])
