"""A replay on topics of its own: what a reader of committed data sees is what a replay into a folder writes, once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition

from state.store import RocksStore
from stream.brokers import EmbeddedBroker, reach
from stream.engine.asking import watermarks
from stream.errors import RefusedError, ReplayError, TopicError
from stream.replay.outputs import LISTS
from stream.replay.process import PROGRESS_KEY, store_path
from stream.replay.run import make_share
from stream.replay.shadow import IDENTITY_KEY, ShadowTarget, remove_shadow, shadow_name, shadow_topics
from stream.replay.work import Work
from stream.replay.workers import LocalLane, Outcome, Plan, Watching, run
from stream.settings import Settings, load_settings
from stream.topics import create_topics
from tests.chaos.world import World
from tests.test_stream.test_replay.logs import NOW_MS, blocks, rows, settings_with_model

PARTITIONS = 2
COUNT = 2_500
NAME = "trial"


def replayed(
    settings: Settings,
    work: Path,
    *,
    shadow: str = NAME,
    block: int = 500,
    stopping: Callable[[], bool] = lambda: False,
    identity: str = "one",
) -> Outcome:
    Work(work).begin({"log": identity}, lambda: NOW_MS)
    plan = Plan(
        partitions=PARTITIONS,
        chunk_records=128,
        work=str(work),
        out=None if shadow else str(work / "out"),
        now_ms=NOW_MS,
    )
    lane = LocalLane(make_share(settings, plan, range(PARTITIONS), shadow=shadow, broker=False), range(PARTITIONS))
    try:
        return run(blocks(rows(COUNT), block), ["log.jsonl"], plan, [lane], Watching(stopping=stopping))
    finally:
        lane.close()


def records(settings: Settings, role: str) -> dict[int, list[tuple[bytes | None, bytes | None]]]:
    """Committed keys and values of a shadow topic, by partition."""
    topic = shadow_topics(settings, NAME)[role]
    count = reach(settings.client_properties()).partitions[topic]
    consumer = Consumer(
        settings.client_properties(
            {"group.id": "shadow-test", "enable.partition.eof": True, "isolation.level": "read_committed"}
        )
    )
    consumer.assign([TopicPartition(topic, number, 0) for number in range(count)])
    found: dict[int, list[tuple[bytes | None, bytes | None]]] = {number: [] for number in range(count)}
    waiting = set(found)
    while waiting:
        for message in consumer.consume(1000, 1):
            error = message.error()
            if error is None:
                found[message.partition() or 0].append((message.key(), message.value()))
            else:
                assert error.code() == KafkaError._PARTITION_EOF
                waiting.discard(message.partition() or 0)
    consumer.close()
    return found


def states(work: Path) -> dict[tuple[int, bytes], bytes]:
    found = {}
    for number in range(PARTITIONS):
        store = RocksStore(store_path(work, number))
        own = (PROGRESS_KEY, IDENTITY_KEY)
        found |= {(number, key): value for key, value in store.items() if key not in own}
        store.close()
    return found


def folder_lists(work: Path) -> dict[int, list[bytes]]:
    """The lists of a replay into a folder, by partition; without removals."""
    return {
        number: [
            line
            for line in (work / "out" / LISTS / f"{number:05d}.jsonl").read_bytes().splitlines()
            if b'"removed"' not in line
        ]
        for number in range(PARTITIONS)
    }


def shadow_lists(settings: Settings) -> dict[int, list[bytes]]:
    return {
        number: [value for _, value in found if value is not None]
        for number, found in records(settings, "recommendations").items()
    }


def nothing_live(settings: Settings) -> bool:
    """Whether all live topics are empty, and the live group unknown."""
    consumer = Consumer(settings.client_properties({"group.id": settings.worker.group}))
    known = reach(settings.client_properties()).partitions
    places = [(topic, number) for topic in settings.topics.names().values() for number in range(known[topic])]
    try:
        asked = [TopicPartition(settings.topics.events, number) for number in range(PARTITIONS)]
        return all(watermarks(consumer, *place) == (0, 0) for place in places) and all(
            position.offset < 0 for position in consumer.committed(asked, 20)
        )
    finally:
        consumer.close()


def same_as_folder(settings: Settings, work: Path, folder: Path) -> None:
    assert states(work) == states(folder)
    lists = shadow_lists(settings)
    assert sum(map(len, lists.values())) > 300
    assert lists == folder_lists(folder)


@pytest.fixture
def world(kafka: str, tmp_path: Path) -> World:
    return World(kafka, tmp_path, partitions=PARTITIONS)


@pytest.mark.slow
@pytest.mark.kafka
def test_stopped_and_gone_on_each_list_is_there_once(world: World, tmp_path: Path) -> None:
    settings, work = world.settings, tmp_path / "work"
    whole = replayed(settings, tmp_path / "folder", shadow="")
    for after in (1, 3):
        left = iter(range(after))
        assert replayed(settings, work, stopping=lambda left=left: next(left, None) is None).stopped
    shutil.rmtree(work / "stores")  # the disk is lost: the shadow changelog has it all
    outcome = replayed(settings, work, block=333)
    assert outcome.counts == whole.counts
    same_as_folder(settings, work, tmp_path / "folder")
    assert nothing_live(settings)
    for role, kind in (("late", "late"), ("dead_letters", "dead_letter")):
        assert sum(map(len, records(settings, role).values())) == whole.counts[kind] > 0
    assert replayed(settings, work).counts == whole.counts
    same_as_folder(settings, work, tmp_path / "folder")


@pytest.mark.kafka
def test_the_topics_have_the_shape_of_the_live_ones(world: World, tmp_path: Path) -> None:
    replayed(world.settings, tmp_path / "work", stopping=lambda: True)
    known = reach(world.settings.client_properties()).partitions
    live = world.settings.topics.names()
    shadows = shadow_topics(world.settings, NAME)
    assert {role: known[name] for role, name in shadows.items()} == {role: known[live[role]] for role in shadows}
    assert not {"events", "items", "models"} & shadows.keys()


@pytest.mark.kafka
def test_topics_with_other_partitions_are_refused(world: World, tmp_path: Path) -> None:
    replayed(world.settings, tmp_path / "work", stopping=lambda: True)
    with pytest.raises(TopicError, match="has 2 partitions, and needs 3"):
        ShadowTarget(world.settings, tmp_path / "other", NAME, 3)


@pytest.mark.slow
@pytest.mark.kafka
def test_another_replay_does_not_go_on_there(world: World, tmp_path: Path) -> None:
    settings = world.settings
    replayed(settings, tmp_path / "one")
    with pytest.raises(ReplayError, match="holds another replay"):
        replayed(settings, tmp_path / "two", identity="two")
    remove_shadow(settings, NAME)
    assert not set(shadow_topics(settings, NAME).values()) & reach(settings.client_properties()).partitions.keys()
    remove_shadow(settings, NAME)
    shutil.rmtree(tmp_path / "two")
    replayed(settings, tmp_path / "two", identity="two")
    replayed(settings, tmp_path / "folder", shadow="")
    same_as_folder(settings, tmp_path / "two", tmp_path / "folder")


_KILLED = """
import sys
from pathlib import Path
from stream.settings import load_settings
from tests.test_stream.test_replay.test_shadow import replayed
if __name__ == "__main__":
    replayed(load_settings(None, {values!r}, {{}}), Path(sys.argv[1]), block=50)
"""


@pytest.mark.kafka
@pytest.mark.slow
def test_killed_again_and_again_each_list_is_there_once(world: World, tmp_path: Path) -> None:
    settings, work = world.settings, tmp_path / "work"
    script = tmp_path / "killed.py"
    script.write_text(_KILLED.format(values=world.values))
    command = [sys.executable, str(script), str(work)]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    killed = 0
    for lists in (30, 100, 180, 260, 340):
        process = subprocess.Popen(command, env=environment)
        while process.poll() is None and _count(settings) < lists:
            time.sleep(0.02)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait()
    assert killed >= 2
    subprocess.run(command, check=True, timeout=120, env=environment)
    replayed(settings, tmp_path / "folder", shadow="")
    same_as_folder(settings, work, tmp_path / "folder")


def _count(settings: Settings) -> int:
    """Offsets of the shadow's lists."""
    topic = shadow_topics(settings, NAME)["recommendations"]
    if topic not in reach(settings.client_properties()).partitions:
        return 0
    consumer = Consumer(settings.client_properties({"group.id": "shadow-test"}))
    try:
        return sum(watermarks(consumer, topic, number)[1] for number in range(PARTITIONS))
    finally:
        consumer.close()


def test_on_the_embedded_broker(embedded: EmbeddedBroker, tmp_path: Path) -> None:
    settings = settings_with_model(
        tmp_path, **{"kafka.bootstrap_servers": embedded.bootstrap_servers, "topics.partitions": PARTITIONS}
    )
    create_topics(settings)
    left = iter(range(3))
    assert replayed(settings, tmp_path / "work", stopping=lambda: next(left, None) is None).stopped
    replayed(settings, tmp_path / "work")
    replayed(settings, tmp_path / "folder", shadow="")
    same_as_folder(settings, tmp_path / "work", tmp_path / "folder")
    assert nothing_live(settings)


@pytest.mark.parametrize("name", ["", "a b", "x" * 61, "a/b"])
def test_a_name_is_short_and_plain(name: str) -> None:
    with pytest.raises(RefusedError, match="--name"):
        shadow_name("driftline.recommendations.v1", name)


def test_a_topic_name_has_a_longest() -> None:
    long = load_settings(overrides={"topics.late": "l" * 240}, environ={})
    with pytest.raises(RefusedError, match="249"):
        shadow_topics(long, NAME)
