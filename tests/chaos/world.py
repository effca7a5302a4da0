"""A small world for tests that need a whole cluster: a model, topics, producers, worker processes.

Everything is on loopback, bounded in count and time, and ends with the test.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from model.artifact import save_artifact, untrained_artifact
from stream.audit import AuditReport, audit, read_topic
from stream.brokers.local import free_port
from stream.contract.recommendation import Recommendation, decode_recommendation
from stream.engine.asking import patiently
from stream.settings import Settings, load_settings
from stream.topics import create_topics

EVENT_TYPES = ("view", "click", "add_to_cart", "purchase")


class World:
    """Topics of its own on a given Kafka, a model of `items` items, and a folder for everything."""

    def __init__(self, servers: str, folder: Path, *, partitions: int = 8, items: int = 500) -> None:
        self.folder = folder
        self.items = items
        self.name = f"world-{uuid.uuid4().hex[:8]}"
        model = folder / "model"
        save_artifact(
            model,
            untrained_artifact(
                [f"i{i}" for i in range(items)], [f"c{i % 20}" for i in range(items)], dim=16, hidden=16, seed=7
            ),
        )
        roles = Settings().topics.names()
        self.values: dict[str, Any] = {
            "kafka.bootstrap_servers": servers,
            "worker.group": self.name,
            "model.path": str(model),
            "topics.partitions": partitions,
            **{f"topics.{role}": f"{self.name}.{role}" for role in roles},
        }
        self.settings = load_settings(overrides=self.values, environ={})
        create_topics(self.settings)

    def elsewhere(self, name: str) -> World:
        """The same log and model, read by another group into topics of its own."""
        other = object.__new__(World)
        other.folder, other.items, other.name = self.folder, self.items, f"{self.name}-{name}"
        other.values = {
            **self.values,
            "worker.group": other.name,
            # The log holds strays already under their own key; to send them on again would write to it.
            "events.mismatched_key": "dead_letter",
            **{
                f"topics.{role}": f"{other.name}.{role}"
                for role in ("recommendations", "changelog", "rekey", "late", "dead_letters")
            },
        }
        other.settings = load_settings(overrides=other.values, environ={})
        create_topics(other.settings)
        return other

    def worker(self, name: str) -> Worker:
        """A worker process; not started yet."""
        return Worker(self, name)

    def audit(self) -> AuditReport:
        """See stream.audit."""
        return audit(self.settings)

    def last_lists(self) -> dict[bytes, Recommendation]:
        """The last list of every user, without what differs between two runs: the time it was made."""
        last: dict[bytes, Recommendation] = {}
        for message in read_topic(self.settings, self.settings.topics.recommendations):
            value = message.value()
            if value is not None:
                made = decode_recommendation(value)
                last[message.key() or b""] = msgspec.structs.replace(
                    made, generated_at="", source=msgspec.structs.replace(made.source, topic="")
                )
        return last

    def caught_up(self) -> bool:
        """Whether the group has committed every record, the re-keyed included."""
        topics = self.settings.topics
        return not (
            _records_after_commit(self.settings, topics.events, self.name)
            or _records_after_commit(self.settings, topics.rekey, f"{self.name}.{topics.rekey}")
        )


def _records_after_commit(settings: Settings, topic: str, group: str) -> int:
    """Records that the group has not committed. They are read: the end of a partition may be a transaction's
    marker, which has an offset and is no record."""
    consumer = Consumer(
        {
            "bootstrap.servers": settings.kafka.bootstrap_servers,
            "group.id": group,
            "enable.auto.commit": False,  # it only looks
            "enable.partition.eof": True,
        }
    )
    try:
        asked = [
            TopicPartition(topic, n)
            for n in patiently(lambda: consumer.list_topics(topic, 20)).topics[topic].partitions
        ]
        positions = patiently(lambda: consumer.committed(asked, 20), 90)  # a broker that just came back takes a while
        consumer.assign([TopicPartition(topic, p.partition, max(p.offset, 0)) for p in positions])
        waiting, records, end_s = {p.partition for p in positions}, 0, time.monotonic() + 120
        while waiting:
            assert time.monotonic() < end_s, f"{topic}: no end of {waiting}"
            for message in consumer.consume(5_000, 1):
                if message.error() is None:
                    records += 1
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    waiting.discard(message.partition())  # a marker that comes later gives a second end
                else:
                    raise KafkaException(message.error())
        return records
    finally:
        consumer.close()


class Worker:
    """A `driftline worker` process that can be killed, stopped, continued and started again."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._name = name
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.log = world.folder / f"{world.name}-{name}.log"
        self.starts = 0

    def start(self, *more: str) -> Worker:
        """Start it, on the same data folder as before."""
        self.port = free_port()
        flags = [f"--set={name}={value}" for name, value in self._world.values.items()]
        flags += [
            f"--set=worker.web_port={self.port}",
            f"--set=worker.data_dir={self._world.folder / self._name}",
            *more,
        ]
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "stream.cli", "worker", *flags],
                stdout=out,
                stderr=out,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        self.starts += 1
        return self

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        return None if self._process is None else self._process.poll()

    def partitions(self) -> list[str]:
        """Assigned partitions of the events topic; none while it is not ready."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health/ready", timeout=2) as answer:
                found: list[str] = json.load(answer)["partitions"]
                return [p for p in found if p.startswith(self._world.settings.topics.events + "-")]
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return []

    def metrics(self) -> str:
        """The Prometheus text of the worker."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            text: str = answer.read().decode()
            return text

    def metric(self, name: str) -> float:
        """The sum of all samples whose line begins with `name`."""
        lines = [line for line in self.metrics().splitlines() if line.startswith(name)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def lose_disk(self) -> None:
        """Remove the local stores, which may be lost at any time."""
        shutil.rmtree(self._world.folder / self._name, ignore_errors=True)

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9."""
        self.signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def stop(self, seconds: float = 30) -> int:
        """SIGTERM; the exit code."""
        if not self.alive:
            return self.exit_code or 0
        self.signal(signal.SIGTERM)
        assert self._process is not None
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def end(self) -> None:
        """Make sure that nothing is left running."""
        if self.alive:
            self.signal(signal.SIGCONT)
            self.kill()


class Traffic(threading.Thread):
    """Events of `users` users at a steady rate, some of them sent twice, broken, or under a wrong key."""

    def __init__(self, world: World, *, events: int, users: int, rate: float, seed: int) -> None:
        super().__init__(daemon=True)
        self._world, self._events, self._users, self._rate = world, events, users, rate
        self._random = random.Random(seed)
        self.sent = 0
        self.duplicates = 0
        self.broken = 0
        self.rekeyed = 0
        self.undelivered = 0
        self.per_user: dict[str, int] = {}

    def run(self) -> None:
        producer = Producer(
            self._world.settings.client_properties({"linger.ms": 5, "partitioner": "murmur2_random", "acks": "all"})
        )
        topic = self._world.settings.topics.events
        draw = self._random
        started_s = time.monotonic()
        again: list[tuple[bytes, bytes]] = []
        for i in range(self._events):
            user = f"u{draw.randrange(self._users):05d}"
            event = {
                "event_id": f"{self._world.name}-{i}",
                "event_type": draw.choice(EVENT_TYPES),
                "user_id": user,
                "item_id": f"i{draw.randrange(self._world.items)}",
                "occurred_at": int(time.time() * 1000),
            }
            value, key = json.dumps(event).encode(), user.encode()
            chance = draw.random()
            if chance < 0.002:  # broken: to be dead letters
                producer.produce(topic, value[:-7], key)
                self.broken += 1
            self.per_user[user] = self.per_user.get(user, 0) + 1
            if 0.002 <= chance < 0.004:  # under a key that is not its user
                producer.produce(topic, value, b"session-%d" % i)
                self.rekeyed += 1
            else:
                producer.produce(topic, value, key)
                if chance > 0.99:
                    again.append((key, value))
            if len(again) > 5:  # sent twice by their producer, a little later
                key, value = again.pop(0)
                producer.produce(topic, value, key)
                self.duplicates += 1
            self.sent = i + 1
            if i % 50 == 0:
                producer.poll(0)
                ahead_s = (i / self._rate) - (time.monotonic() - started_s)
                if ahead_s > 0:
                    time.sleep(ahead_s)
        self.undelivered = producer.flush(60)


def wait_for(what: str, until: Callable[[], bool], seconds: float, logs: list[Worker] | None = None) -> None:
    """Wait until `until` holds; the tail of the workers' logs when it does not."""
    end = time.monotonic() + seconds
    while not until():
        if time.monotonic() > end:
            tails = "\n".join(f"--- {w.log.name}\n{w.log.read_text()[-3000:]}" for w in logs or [])
            raise AssertionError(f"{what}: not within {seconds:.0f} s\n{tails}")
        time.sleep(0.2)
