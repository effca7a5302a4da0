"""What Faust offers goes on working on our transport, and what cannot work is refused."""

import asyncio
import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faust
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from faust.exceptions import ImproperlyConfigured

from stream.brokers.local import free_port
from stream.engine import ChunkTopic

pytestmark = pytest.mark.kafka

APP = Path(__file__).with_name("features_app.py")


def _new_name(name: str, servers: str) -> str:
    """A name of its own for the app (a given broker outlives a test run), with its chunk topic and changelog."""
    name = f"{name}-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": servers})
    topics = [NewTopic(f"{name}-{role}", 4, 1) for role in ("events", "changelog")]
    for future in admin.create_topics(topics).values():
        future.result(20)
    return name


def _produce(servers: str, topic: str, values: list[tuple[bytes, bytes]]) -> None:
    producer = Producer({"bootstrap.servers": servers, "partitioner": "murmur2_random"})
    for key, value in values:
        producer.produce(topic, value, key)
    assert producer.flush(20) == 0


@contextmanager
def _running(servers: str, name: str, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int, Path]]:
    port, log = free_port(), folder / "log.txt"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, str(APP), servers, name, str(folder), str(port)], stdout=out, stderr=out
        )
    try:
        yield process, port, log
    finally:
        process.kill()
        process.wait()


def _seen(port: int) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/seen", timeout=5) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except (urllib.error.URLError, ConnectionError):
        return {}


def _wait(until: Callable[[], bool], log: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, log.read_text()[-4000:]
        time.sleep(0.2)


def test_agents_timers_tasks_topics_ask_and_web_work_beside_a_chunk_agent(kafka: str, tmp_path: Path) -> None:
    name = _new_name("features", kafka)
    _produce(kafka, f"{name}-events", [(b"user-%d" % (i % 50), b"v%d" % i) for i in range(500)])
    _produce(kafka, f"{name}-events", [(b"user-7", b"last")])

    def done() -> bool:
        seen = _seen(port)
        return bool(seen.get("ask") == 42 and seen["records"] >= 501 and seen["stored"])

    with _running(kafka, name, tmp_path) as (process, port, log):
        _wait(done, log)
        seen = _seen(port)
        assert seen["task"] == 1
        assert seen["timer"] >= 2
        assert seen["sent_offset"] >= 0  # a timer's send is acknowledged with its offset
        assert seen["items"] >= 1  # an ordinary agent, typed records
        assert seen["plain"] >= 2  # send in a chunk, and send_soon
        assert seen["assigned"] >= 1
        assert seen["leader"] is True
        assert seen["records"] == 501
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()[-4000:]


def test_an_agent_that_fails_ends_the_process_and_loses_nothing(kafka: str, tmp_path: Path) -> None:
    name = _new_name("boom", kafka)
    _produce(kafka, f"{name}-events", [(b"user-1", b"boom")])
    with _running(kafka, name, tmp_path) as (process, _, log):
        assert process.wait(60) != 0
        assert "an agent that fails" in log.read_text()
    # Nothing was committed: the next process meets the same record.
    with _running(kafka, name, tmp_path) as (process, _, log):
        assert process.wait(60) != 0
        assert "an agent that fails" in log.read_text()


def _subscribe(app: faust.App, topic: str) -> None:
    async def subscribe() -> None:
        await app.consumer.subscribe([topic])

    asyncio.run(subscribe())


def test_a_faust_table_is_refused_with_the_way_out() -> None:
    app = faust.App("tables", broker="rdkafka://127.0.0.1:9", web_enabled=False)
    app.Table("counts", default=int)
    with pytest.raises(ImproperlyConfigured, match="ChunkTopic"):
        _subscribe(app, "x")


def test_two_agents_on_one_chunk_topic_are_refused() -> None:
    app = faust.App("twice", broker="rdkafka://127.0.0.1:9", web_enabled=False)
    for _ in range(2):
        app.topics.add(app.topic("events", schema=ChunkTopic(), acks=False))
    with pytest.raises(ImproperlyConfigured, match="one owner"):
        _subscribe(app, "events")
