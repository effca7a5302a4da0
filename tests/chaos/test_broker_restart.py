"""The broker is killed in the middle and comes back: workers wait or are started again, and no event is lost.

0 s          ready + 5 s      + 3 s             caught up
worker ────  kill -9 Kafka    Kafka returns ──> audit
traffic ───────────────────────────────────
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from stream.brokers import LocalKafka
from stream.brokers.local import why_no_local
from tests.chaos.world import Traffic, World, wait_for

pytestmark = [pytest.mark.chaos, pytest.mark.kafka]

EVENTS = 30_000


def test_events_count_once_through_a_broker_that_dies(tmp_path: Path) -> None:
    reason = why_no_local()
    if reason is not None:
        pytest.skip(f"no Kafka that can be killed: {reason}")
    with LocalKafka(tmp_path / "kafka") as kafka:
        world = World(kafka.bootstrap_servers, tmp_path, partitions=4)
        traffic = Traffic(world, events=EVENTS, users=3_000, rate=1_000.0, seed=0)
        worker = world.worker("a").start()
        try:
            wait_for("the worker is ready", lambda: len(worker.partitions()) == 4, 90, [worker])
            traffic.start()
            time.sleep(5)
            kafka.kill()
            time.sleep(3)
            kafka.start()
            traffic.join(180)
            assert not traffic.is_alive()
            assert traffic.undelivered == 0

            def done() -> bool:
                if not worker.alive:  # an orchestrator's part
                    worker.start()
                return world.caught_up()

            wait_for("all is committed", done, 180, [worker])
            report = world.audit()
            assert report.exact, report
            assert report.events == sum(traffic.per_user.values())
            assert worker.stop() == 0
        finally:
            worker.end()
