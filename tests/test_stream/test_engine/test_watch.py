"""Stalls are seen from outside, and lag is asked of the broker."""

import time
from types import SimpleNamespace
from typing import Any

import pytest

from stream.brokers import EmbeddedBroker
from stream.engine import watch as watching
from stream.engine.watch import Watch


def _cycle(**fields: Any) -> Any:
    """What a watch reads of a cycle."""
    return SimpleNamespace(**{"alive_s": time.monotonic(), "expected_offsets": dict, **fields})


def _wait(until: Any) -> None:
    end_s = time.monotonic() + 10
    while not until():
        assert time.monotonic() < end_s
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_EVERY_S", 0.05)


def test_the_slowest_cycle_counts() -> None:
    cycles = {"a": _cycle(), "b": _cycle(alive_s=time.monotonic() - 40)}
    assert 39 < Watch(cycles, {}).age_s() < 45
    assert Watch({}, {}).age_s() == 0


def test_a_cycle_that_stands_still_ends_the_process(caplog: pytest.LogCaptureFixture) -> None:
    ended: list[int] = []
    watch = Watch({"a": _cycle(alive_s=time.monotonic() - 1_000)}, {"bootstrap.servers": "127.0.0.1:1"}, ended.append)
    watch.start()
    _wait(lambda: ended)
    watch.stop()
    assert ended[0] == 1
    assert "stuck" in caplog.text


def test_one_that_moves_does_not() -> None:
    ended: list[int] = []
    watch = Watch({"a": _cycle()}, {"bootstrap.servers": "127.0.0.1:1"}, ended.append)
    watch.start()
    time.sleep(0.5)
    watch.stop()
    assert not ended


def test_lag_is_the_brokers_end_less_what_is_expected(embedded: EmbeddedBroker) -> None:
    from confluent_kafka import Producer

    embedded.create_topic("events", 2)
    producer = Producer({"bootstrap.servers": embedded.bootstrap_servers})
    for _ in range(10):
        producer.produce("events", b"x", partition=1)
    assert producer.flush(10) == 0
    cycles = {"events": _cycle(expected_offsets=lambda: {0: 0, 1: 4})}
    watch = Watch(cycles, {"bootstrap.servers": embedded.bootstrap_servers})
    watch.start()
    _wait(lambda: watch.lag_records)
    watch.stop()
    assert watch.lag_records == {("events", 0): 0, ("events", 1): 6}
