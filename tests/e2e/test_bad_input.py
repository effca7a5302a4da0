"""Nothing that anyone can put on the events topic stops a worker, and nothing is lost: on a real Kafka."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from stream.audit import read_topic
from stream.contract.control import (
    ERROR_MESSAGE,
    ERROR_OFFSET,
    ERROR_PARTITION,
    ERROR_REASON,
    ERROR_STAGE,
    ERROR_TOPIC,
)
from tests.chaos.world import World, wait_for

pytestmark = pytest.mark.kafka

NOW_MS = int(time.time() * 1000)
GOOD: dict[str, Any] = {
    "event_id": "e1",
    "event_type": "view",
    "user_id": "ann",
    "item_id": "i1",
    "occurred_at": NOW_MS,
}


def _event(**changes: Any) -> bytes:
    merged = {**GOOD, **changes}
    return json.dumps({name: value for name, value in merged.items() if value is not None}).encode()


# reason -> value, key, headers
BAD: dict[str, tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]] = {
    "not_json": (b"\x00\x01 not json", b"ann", []),
    "wrong_type": (_event(item_id={"id": 1}), b"ann", []),
    "unknown_event_type": (_event(event_type="teleport"), b"ann", []),
    "no_user": (_event(user_id=None), b"ann", []),
    "no_item": (_event(item_id=None), b"ann", []),
    "future_time": (_event(occurred_at=NOW_MS + 400 * 86_400_000), b"ann", []),
    "too_large": (b"x" * (2 << 20), b"ann", []),
    "null_value": (None, b"ann", []),
    "bad_header": (_event(), b"ann", [("ce_specversion", b"1.0"), ("ce_id", b"\xff\xfe"), ("ce_type", b"view")]),
}


def test_none_stops_the_worker_and_each_is_a_dead_letter(kafka: str, tmp_path: Path) -> None:
    world = World(kafka, tmp_path, partitions=4)
    topics = world.settings.topics
    _allow_large_records(kafka, topics.events)
    producer = Producer(
        {"bootstrap.servers": kafka, "partitioner": "murmur2_random", "message.max.bytes": 4 << 20, "linger.ms": 0}
    )
    refused: list[Any] = []
    for value, key, headers in BAD.values():
        producer.produce(topics.events, value, key, headers=headers, on_delivery=lambda error, _: refused.append(error))
    producer.produce(topics.events, _event(event_id="stray", user_id="cat"), b"another user's key")
    for sent_at in (NOW_MS, NOW_MS + 1):  # no id, sent twice: known again by its content
        producer.produce(topics.events, _event(event_id=None, user_id="dan", sent_at=sent_at), b"dan")
    # Another tenant's bob, under the key of ours.
    producer.produce(topics.events, _event(event_id="last", user_id="bob", tenant="acme"), b"bob")
    producer.produce(topics.events, _event(event_id="last", user_id="bob"), b"bob", headers=[("x", b"\xff")])
    assert producer.flush(30) == 0
    assert refused == [None] * len(BAD)

    with_worker = world.worker("a").start()
    try:
        wait_for("all is committed", world.caught_up, 60, [with_worker])
        assert with_worker.alive
        metrics = with_worker.metrics()
        assert with_worker.stop() == 0
    finally:
        with_worker.end()

    found: dict[str, Any] = {}
    for message in read_topic(world.settings, topics.dead_letters):
        headers = dict(message.headers() or [])
        found[headers[ERROR_REASON].decode()] = message, headers
    assert found.keys() == BAD.keys()
    for reason, (value, key, own) in BAD.items():
        message, headers = found[reason]
        assert message.value() == value, reason
        assert message.key() == key
        assert headers[ERROR_TOPIC].decode() == topics.events
        assert headers[ERROR_PARTITION].isdigit()
        assert headers[ERROR_OFFSET].isdigit()
        assert headers[ERROR_STAGE] == b"decode"
        assert headers[ERROR_MESSAGE]
        assert all(headers[name] == content for name, content in own)
        assert f'driftline_dead_letters_total{{reason="{reason}",stage="decode"}} 1.0' in metrics
    # A key of another user: sent on under its own, and counted there. A foreign header harms nobody.
    assert {key.decode(): made.events_applied for key, made in world.last_lists().items()} == {
        "bob": 1,
        "cat": 1,
        "dan": 1,
        "acme\x1fbob": 1,
    }
    assert 'driftline_events_total{outcome="rekeyed",type="view"} 2.0' in metrics
    assert 'driftline_events_total{outcome="duplicate",type="view"} 1.0' in metrics
    report = world.audit()
    assert report.exact, report
    assert sum(report.dead_letters.values()) == len(BAD)


def _allow_large_records(kafka: str, topic: str) -> None:
    """2 MB only reach a topic that takes them."""
    change = ConfigEntry("max.message.bytes", str(4 << 20), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[change])
    admin = AdminClient({"bootstrap.servers": kafka})
    admin.incremental_alter_configs([resource])[resource].result(20)
    time.sleep(2)  # the broker applies it a moment later
