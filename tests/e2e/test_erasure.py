"""Erasure on a real Kafka: of an erased user no value is left, on the topics or on the worker's disk.

    events of ann and others ──> erase ann --wait ──> events of others, until Kafka's cleaner has run
                                                      changelog, lists: read whole, uncommitted too
                                                      the worker's disk: every file, as bytes

Kafka cleans a segment once it is closed, and closes it when a record comes after segment.ms: here within seconds, in
the settings of `driftline topics create` within a day or two.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from stream.audit import read_topic
from stream.contract.control import decode_erasure, user_hash
from stream.engine.asking import watermarks
from stream.engine.partitioner import partition_of
from stream.pseudonym import KEY_VARIABLE, Pseudonyms
from tests.chaos.world import World, wait_for

pytestmark = pytest.mark.kafka

PARTITIONS = 2
QUICK = {
    "segment.ms": "500",
    "min.cleanable.dirty.ratio": "0.001",
    "max.compaction.lag.ms": "1000",
    "delete.retention.ms": "500",
}


def _compact_quickly(world: World) -> None:
    admin = AdminClient({"bootstrap.servers": world.settings.kafka.bootstrap_servers})
    changes = [
        ConfigResource(
            ResourceType.TOPIC,
            topic,
            incremental_configs=[
                ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in QUICK.items()
            ],
        )
        for topic in (world.settings.topics.changelog, world.settings.topics.recommendations)
    ]
    for answer in admin.incremental_alter_configs(changes).values():
        answer.result(20)


class Sender:
    """Views of users."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._producer = Producer(world.settings.client_properties({"partitioner": "murmur2_random"}))
        self._sent = 0

    def send(self, users: list[str], events: int, key: bytes | None = None, at_ms: int | None = None) -> None:
        for _ in range(events):
            for user in users:
                self._sent += 1
                event = {
                    "event_id": f"{user}-{self._sent}",
                    "event_type": "view",
                    "user_id": user,
                    "item_id": f"i{self._sent % self._world.items}",
                    "occurred_at": at_ms or int(time.time() * 1000),
                }
                self._producer.produce(
                    self._world.settings.topics.events, json.dumps(event).encode(), key or user.encode()
                )
        assert self._producer.flush(30) == 0


def _records(world: World, topic: str) -> list[tuple[bytes | None, bytes | None]]:
    """Key and value of every record, of aborted transactions too: all that the broker gives out."""
    consumer = Consumer(
        world.settings.client_properties(
            {"group.id": "looks", "enable.partition.eof": True, "isolation.level": "read_uncommitted"}
        )
    )
    try:
        numbers = range(PARTITIONS)
        consumer.assign([TopicPartition(topic, n, watermarks(consumer, topic, n)[0]) for n in numbers])
        waiting, found = set(numbers), []
        while waiting:
            for message in consumer.consume(1000, 1):
                if message.error() is None:
                    found.append((message.key(), message.value()))
                else:
                    assert message.error().code() == KafkaError._PARTITION_EOF
                    waiting.discard(message.partition())
        return found
    finally:
        consumer.close()


def _marks(values: list[bytes], others: bytes) -> list[bytes]:
    """Runs of 16 bytes that only the user's values hold."""
    runs = {value[at : at + 16] for value in values for at in range(1, len(value) - 16, 16)}
    return [run for run in runs if len(set(run)) > 8 and run not in others]


def _files_with(folder: Path, marks: list[bytes]) -> set[str]:
    found = set()
    for file in folder.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            found |= {file.name for mark in marks if mark in content}
    return found


def _driftline(world: World, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    flags = [f"--set={name}={value}" for name, value in world.values.items()]
    command = [sys.executable, "-m", "stream.cli", *words, *flags]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=90, check=False, env={**_environment(), **environ}
    )


def _environment() -> dict[str, str]:
    import os

    return {name: value for name, value in os.environ.items() if not name.startswith("DRIFTLINE_")}


def _states(world: World) -> dict[bytes, bytes]:
    """The last state of every user, by the changelog."""
    states: dict[bytes, bytes] = {}
    for message in read_topic(world.settings, world.settings.topics.changelog):
        key, value = message.key() or b"", message.value()
        if key[:1] == b"\0":
            continue
        if value is None:
            states.pop(key, None)
        else:
            states[key] = value
    return states


@pytest.mark.slow
def test_of_an_erased_user_no_value_is_left(kafka: str, tmp_path: Path) -> None:
    world = World(kafka, tmp_path, partitions=PARTITIONS)
    _compact_quickly(world)
    topics = world.settings.topics
    ann = f"ann-{uuid.uuid4().hex}"
    key = ann.encode()
    sender = Sender(world)
    others = [f"other{n}" for n in range(40)]
    worker = world.worker("a").start("--set=worker.purge_after_s=1")
    try:
        for _ in range(3):  # several versions of the state, in several segments
            sender.send([ann, *others], 4)
            wait_for("all is committed", world.caught_up, 60, [worker])
        values = [value for k, value in _records(world, topics.changelog) if k == key and value]
        rest = b"".join(value or b"" for k, value in _records(world, topics.changelog) if k != key)
        marks = _marks(values, rest)
        assert len(marks) > 5
        assert worker.stop() == 0
        stored = tmp_path / "a"
        assert _files_with(stored, marks), "the state should be on the disk before it is erased"

        worker.start("--set=worker.purge_after_s=1")
        done = _driftline(world, "erase", ann, "--wait", "-o", "json")
        assert done.returncode == 0, done.stderr
        (row,) = json.loads(done.stdout)
        assert row["user_hash"] == user_hash(key)
        assert row["partition"] == partition_of(key, PARTITIONS)
        assert row["confirmed_at"]

        def left() -> list[str]:
            return [
                topic
                for topic in (topics.changelog, topics.recommendations)
                for k, value in _records(world, topic)
                if value is not None and (k == key or key in value or any(mark in value for mark in marks))
            ]

        def cleaned() -> bool:
            sender.send(others, 1)  # a record that comes after segment.ms lets the cleaner at the old segment
            return not left()

        wait_for("Kafka's cleaner has run", cleaned, 90, [worker])
        wait_for("the store is purged", lambda: not _files_with(stored, marks), 30, [worker])
        assert worker.alive
        assert worker.metric("driftline_erasures_total") == 1
        assert worker.stop() == 0
    finally:
        worker.end()
    assert _files_with(stored, marks) == set()
    assert ann not in worker.log.read_text(), "a log line names the user"
    assert _driftline(world, "get", ann).returncode == 1
    report = world.audit()
    assert report.erasures == 1
    assert report.unerased_users == report.lost_events == report.doubled_events == report.missing_users == 0


@pytest.mark.slow
def test_it_holds_in_a_log_that_is_read_again(kafka: str, tmp_path: Path) -> None:
    """By another group with an empty changelog, and by a worker that lost its disk."""
    world = World(kafka, tmp_path, partitions=PARTITIONS)
    sender = Sender(world)
    others = [f"other{n}" for n in range(10)]
    worker = world.worker("a").start()
    fresh_world = world.elsewhere("again")
    fresh = fresh_world.worker("fresh")
    try:
        sender.send(["ann", "bob", *others], 5)
        sender.send(["ann"], 1, key=b"a wrong key")
        wait_for("all is committed", world.caught_up, 60, [worker])
        for user in ("ann", "bob"):
            assert _driftline(world, "erase", user, "--wait", "-q").returncode == 0
        assert _driftline(world, "erase", "bob", "--wait", "-q").returncode == 0  # twice is harmless
        sender.send(["bob", *others], 2)
        wait_for("all is committed", world.caught_up, 60, [worker])
        states = _states(world)
        assert b"ann" not in states
        assert world.last_lists()[b"bob"].events_applied == 2
        report = world.audit()
        assert report.exact, report

        fresh.start()
        wait_for("all is read again", fresh_world.caught_up, 60, [fresh])
        assert _states(fresh_world) == states
        assert not any(
            message.key() == b"ann" and message.value() is not None
            for message in read_topic(fresh_world.settings, fresh_world.settings.topics.changelog)
        ), "a state of an erased user was made on the way"
        assert fresh.metric('driftline_events_total{outcome="erased"') == 6 + 5 + 1  # the first of two erasures, too

        worker.kill()
        worker.lose_disk()
        worker.start()
        sender.send(others, 1)
        wait_for("all is committed", world.caught_up, 60, [worker])
        assert b"ann" not in _states(world)
        assert world.audit().exact
    finally:
        worker.end()
        fresh.end()
    confirmations = [
        decode_erasure(message.value() or b"") for message in read_topic(world.settings, world.settings.topics.erasures)
    ]
    assert {done.user_hash for done in confirmations} == {user_hash(b"ann"), user_hash(b"bob")}


def test_idle_users_lose_state_and_list_and_nobody_else(kafka: str, tmp_path: Path) -> None:
    world = World(kafka, tmp_path, partitions=PARTITIONS)
    sender = Sender(world)
    old, new = [f"old{n}" for n in range(300)], [f"new{n}" for n in range(20)]
    worker = world.worker("a").start()
    try:
        sender.send([*old, "back"], 2, at_ms=int(time.time() * 1000) - 401 * 86_400_000)
        wait_for("all is committed", world.caught_up, 60, [worker])
        assert len(_states(world)) == 301

        def swept() -> bool:
            sender.send(new, 1)  # the sweep goes on with the stream
            wait_for("all is committed", world.caught_up, 60, [worker])
            return len(_states(world)) == 20

        wait_for("the sweep has seen all", swept, 60, [worker])
        sender.send(["back"], 1)
        wait_for("all is committed", world.caught_up, 60, [worker])
        told = json.loads(_driftline(world, "state", "stats", "-o", "json").stdout)["total"]
        assert worker.metric("driftline_expired_users_total") == 301
    finally:
        worker.end()
    assert told["users"] == 21
    assert told["bytes"] == sum(map(len, _states(world).values()))
    assert world.last_lists()[b"back"].events_applied == 1
    report = world.audit()
    assert report.exact, report
    assert report.expired_users == 300


@pytest.mark.parametrize("mode", [pytest.param("producer", marks=pytest.mark.slow), "worker"])
def test_pseudonyms_keep_ids_out_and_everything_is_found_by_the_real_id(kafka: str, tmp_path: Path, mode: str) -> None:
    world = World(kafka, tmp_path, partitions=PARTITIONS)
    world.values["events.pseudonyms"] = mode
    secret = {KEY_VARIABLE: "a-key-for-this-test-only"}
    ann = f"ann-{uuid.uuid4().hex}"
    name = Pseudonyms(secret[KEY_VARIABLE]).of(ann)
    file = tmp_path / "events.jsonl"
    line: dict[str, Any] = {"event_type": "view", "user_id": ann, "occurred_at": int(time.time() * 1000)}
    file.write_text("".join(json.dumps({**line, "event_id": f"e{n}", "item_id": f"i{n}"}) + "\n" for n in range(3)))
    worker = world.worker("a")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY_VARIABLE, secret[KEY_VARIABLE])
        worker.start()
    try:
        assert _driftline(world, "produce", str(file), **secret).returncode == 0
        wait_for("all is committed", world.caught_up, 60, [worker])
        topics = world.settings.topics
        hidden = [topics.changelog, topics.recommendations, *([topics.events] if mode == "producer" else [])]
        for topic in hidden:
            records = _records(world, topic)
            assert not any(ann.encode() in (k or b"") + (v or b"") for k, v in records), topic
            assert any(name.encode() == k for k, _ in records), topic
        found = _driftline(world, "get", ann, "-o", "json", **secret)
        assert json.loads(found.stdout)["user_id"] == name, found.stderr
        tail = _driftline(world, "tail", "--user", ann, "--from", "earliest", "--no-follow", "-o", "json", **secret)
        assert tail.stdout.count(name) >= 1
        assert _driftline(world, "erase", ann, "--wait", **secret).returncode == 0
        assert _driftline(world, "get", ann, **secret).returncode == 1
        assert worker.stop() == 0
    finally:
        worker.end()
    assert ann not in worker.log.read_text()
    assert not _files_with(tmp_path / "a", [ann.encode()])
