"""Event time on a real Kafka: what is late is on the late topic, with how late, and nowhere else, restarts or not.

partition's watermark ─────────────────────────┐ W, reached in order by phase 1
── W - 60 s - n s ──────────────── W - 60 s ───┴──────────> event time
   late by 60 + n s                on time (grace_s = 60)
"""

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Message, Producer

from stream.audit import read_topic
from stream.contract.control import (
    ERROR_OFFSET,
    ERROR_PARTITION,
    ERROR_REASON,
    LATE_BY_MS,
    LATE_COVERED,
    LATE_EVENT_MS,
    LATE_MISSED,
    LATE_WATERMARK_MS,
)
from stream.engine.partitioner import partition_of
from stream.settings import load_settings
from tests.chaos.world import World, wait_for

pytestmark = pytest.mark.kafka

PARTITIONS = 4
USERS = [f"user-{n}" for n in range(20)]
GRACE_MS = 60_000
HOUR_MS = 3_600_000
NOW_MS = int(time.time() * 1000)
START_MS = NOW_MS - HOUR_MS
ON_TIME, LATE = 400, 30
BACK_MS = (0, HOUR_MS, 48 * HOUR_MS)  # later still: out of the session's window, out of the day's


class Shop:
    """A producer that sets every time itself, and knows the watermark that it has brought each partition to."""

    def __init__(self, world: World) -> None:
        self._topic = world.settings.topics.events
        self._producer = Producer(world.settings.client_properties({"partitioner": "murmur2_random"}))
        self._sent = 0
        self.watermarks = [0] * PARTITIONS
        self.late: dict[bytes, int] = {}
        """Value of each event that must be late -> by how much, ms."""
        self.applied: Counter[str] = Counter()

    def watermark(self, user: str) -> int:
        return self.watermarks[partition_of(user.encode(), PARTITIONS)]

    def send(self, user: str, at_ms: int, *, record_ms: int = NOW_MS, **more: Any) -> bytes:
        event = {
            "event_id": f"e{self._sent}",
            "event_type": "view",
            "user_id": user,
            "item_id": f"i{self._sent * 7 % 500}",
            "occurred_at": at_ms,
            **more,
        }
        self._sent += 1
        value = json.dumps(event).encode()
        self._producer.produce(self._topic, value, user.encode(), timestamp=record_ms, headers=[("trace", b"\xff")])
        return value

    def in_order(self) -> None:
        for n in range(ON_TIME):
            user, at_ms = USERS[n % len(USERS)], START_MS + n * 1000
            self.send(user, at_ms)
            self.applied[user] += 1
            self.watermarks[partition_of(user.encode(), PARTITIONS)] = at_ms

    def late_ones(self, numbers: range) -> None:
        """Each late by a known amount, and after each one that is just on time."""
        for n in numbers:
            user = USERS[n * 3 % len(USERS)]
            late_by_ms = GRACE_MS + n * 1000 + 1 + BACK_MS[n % 3]
            self.late[self.send(user, self.watermark(user) - late_by_ms)] = late_by_ms
            self.send(user, self.watermark(user) - GRACE_MS)
            self.applied[user] += 1

    def wrong_clocks(self) -> None:
        """Senders whose clocks are ahead; none of them moves the watermark."""
        user = USERS[0]
        top_ms = self.watermark(user)
        ahead_ms = NOW_MS + 2 * HOUR_MS  # by its own clock it is this time when NOW_MS is true
        self.send(user, ahead_ms - (NOW_MS - top_ms) - 30_000, sent_at=ahead_ms)  # corrected: 30 s before the top
        self.send(user, top_ms + 200_000, record_ms=top_ms)  # clamped to the top
        self.applied[user] += 2
        self.send(user, top_ms + 86_400_000, record_ms=top_ms)  # refused

    def flush(self) -> None:
        assert self._producer.flush(30) == 0


def _late_topic(world: World) -> dict[bytes, tuple[Message, dict[str, bytes]]]:
    found: dict[bytes, tuple[Message, dict[str, bytes]]] = {}
    for message in read_topic(world.settings, world.settings.topics.late):
        value = message.value() or b""
        assert value not in found, "twice on the late topic"
        found[value] = message, dict(message.headers() or [])
    return found


@pytest.mark.slow
def test_the_late_topic_has_exactly_the_late_events_through_restarts(kafka: str, tmp_path: Path) -> None:
    world = World(kafka, tmp_path, partitions=PARTITIONS)
    world.values |= {"events.grace_s": GRACE_MS // 1000}
    world.settings = load_settings(overrides=world.values, environ={})
    shop = Shop(world)
    worker = world.worker("a")
    counted: Counter[str] = Counter()

    def run() -> None:
        shop.flush()
        worker.start()
        wait_for("all is committed", world.caught_up, 60, [worker])
        for outcome in ("late", "applied", "dead_letter"):
            counted[outcome] += int(worker.metric(f'driftline_events_total{{outcome="{outcome}"'))
        counted["late_topic"] += int(worker.metric('driftline_late_events_total{outcome="late_topic"'))
        counted["clamped"] += int(worker.metric('driftline_future_events_total{outcome="clamped"'))
        counted["refused"] += int(worker.metric('driftline_future_events_total{outcome="refused"'))
        counted["corrected"] += int(worker.metric("driftline_skew_corrected_events_total"))

    try:
        shop.in_order()
        run()
        worker.kill()  # the watermark comes back from the store
        shop.wrong_clocks()
        shop.late_ones(range(LATE // 2))
        run()
        worker.kill()
        worker.lose_disk()  # and from the changelog
        shop.late_ones(range(LATE // 2, LATE))
        run()
        assert worker.stop() == 0
    finally:
        worker.end()

    found = _late_topic(world)
    assert {value: int(headers[LATE_BY_MS]) for value, (_, headers) in found.items()} == shop.late
    for value, (message, headers) in found.items():
        user = json.loads(value)["user_id"]
        assert message.key() == user.encode()
        assert headers["trace"] == b"\xff"
        assert headers[ERROR_REASON] == b"late"
        assert int(headers[LATE_WATERMARK_MS]) == shop.watermark(user)
        assert int(headers[LATE_EVENT_MS]) == json.loads(value)["occurred_at"]
        assert int(headers[ERROR_PARTITION]) == partition_of(user.encode(), PARTITIONS)
        missed = sum(shop.late[value] > back_ms for back_ms in BACK_MS[1:])
        windows = ["session", "day", "month"]
        assert headers[LATE_MISSED].decode() == ",".join(windows[:missed])
        assert headers[LATE_COVERED].decode() == ",".join(windows[missed:])
    assert counted == {
        "late": LATE,
        "late_topic": LATE,
        "applied": shop.applied.total(),
        "dead_letter": 1,
        "clamped": 1,
        "refused": 1,
        "corrected": 1,
    }
    lists = world.last_lists()
    assert {key.decode(): made.events_applied for key, made in lists.items()} == shop.applied
    report = world.audit()
    assert report.exact, report
    assert (report.late, report.lost_events, report.wrongly_late) == (LATE, 0, 0)
    assert report.dead_letters == {"future_time": 1}

    # The same log in one go, by another group.
    fresh = world.elsewhere("fresh")
    other = fresh.worker("b").start()
    try:
        wait_for("the log is read again", fresh.caught_up, 60, [other])
        assert other.stop() == 0
    finally:
        other.end()
    judged = (LATE_BY_MS, LATE_WATERMARK_MS, ERROR_PARTITION, ERROR_OFFSET)
    assert {value: [headers[name] for name in judged] for value, (_, headers) in _late_topic(fresh).items()} == {
        value: [headers[name] for name in judged] for value, (_, headers) in found.items()
    }
    assert fresh.last_lists() == lists
