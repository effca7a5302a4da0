"""When events are due, by a clock that the test moves."""

import itertools
import math

import pytest

from stream.errors import RefusedError
from stream.replay.pace import Pace, speed_of

FIRST_MS = 1_767_323_045_000


class Time:
    """A clock that only sleeping moves, and what else the test adds. `paused_until_s`: of a pause."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.paused_until_s = 0.0
        self.looks = 0

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now_s += seconds

    def paused(self) -> bool:
        self.looks += 1
        return self.now_s < self.paused_until_s

    def pace(self, speed: float | None) -> Pace:
        return Pace(speed, paused=self.paused, clock=self.clock, sleep=self.sleep)


def waited(time: Time, pace: Pace, at_s: float) -> float:
    before_s = time.now_s
    pace.wait(FIRST_MS + int(at_s * 1000))
    return time.now_s - before_s


@pytest.mark.parametrize(("text", "speed"), [("max", None), ("1x", 1.0), ("60x", 60.0), ("0.5x", 0.5), ("2", 2.0)])
def test_speeds(text: str, speed: float | None) -> None:
    assert speed_of(text) == speed


@pytest.mark.parametrize("text", ["", "fast", "0x", "-1x", "x", "1xx", "9" * 400 + "x"])
def test_what_is_no_speed(text: str) -> None:
    with pytest.raises(RefusedError, match=r"none of max, 1x, 60x"):
        speed_of(text)


@pytest.mark.parametrize("speed", [0.5, 1.0, 60.0])
def test_event_time_drives(speed: float) -> None:
    time = Time()
    pace = time.pace(speed)
    assert waited(time, pace, 0) == 0
    for at_s in (1, 1, 4, 100):
        waited(time, pace, at_s)
        assert time.now_s - 1000 == pytest.approx(at_s / speed)


def test_max_does_not_wait() -> None:
    time = Time()
    pace = time.pace(None)
    assert [waited(time, pace, at_s) for at_s in (0, 1e6, 5, 1e9)] == [0, 0, 0, 0]


def test_older_events_and_those_without_a_time_are_due_at_once_and_change_nothing() -> None:
    time = Time()
    pace = time.pace(1.0)
    waited(time, pace, 0)
    waited(time, pace, 10)
    assert waited(time, pace, -100_000) == 0
    before_s = time.now_s
    pace.wait(-1)
    assert time.now_s == before_s
    assert waited(time, pace, 12) == pytest.approx(2)


def test_a_log_that_begins_without_times_starts_its_clock_with_the_first() -> None:
    time = Time()
    pace = time.pace(1.0)
    pace.wait(-1)
    time.now_s += 500
    assert waited(time, pace, 0) == 0
    assert waited(time, pace, 3) == pytest.approx(3)


def test_no_burst_after_it_stood_still() -> None:
    """As after SIGSTOP, or behind a broker that took nothing."""
    time = Time()
    pace = time.pace(1.0)
    waited(time, pace, 0)
    time.now_s += 3600
    assert waited(time, pace, 1) == 0
    assert [waited(time, pace, at_s) for at_s in (2, 3, 4)] == pytest.approx([1, 1, 1])


def test_jitter_is_made_up_for() -> None:
    time = Time()
    pace = time.pace(1.0)
    for at_s in range(200):
        waited(time, pace, at_s)
        time.now_s += 0.9
    assert time.now_s - 1000 == pytest.approx(199.9)


@pytest.mark.parametrize("speed", [1.0, None])
def test_pause(speed: float | None) -> None:
    time = Time()
    pace = time.pace(speed)
    waited(time, pace, 0)
    time.paused_until_s = time.now_s + 60
    time.now_s += 1
    assert waited(time, pace, 1) == pytest.approx(59, abs=0.3)
    after = [waited(time, pace, at_s) for at_s in (2, 3)]
    assert after == ([0, 0] if speed is None else pytest.approx([1, 1]))


def test_a_pause_is_looked_for_now_and_then_only() -> None:
    time = Time()
    pace = time.pace(None)
    for _ in range(10_000):
        pace.wait(FIRST_MS)
        time.now_s += 0.0001
    assert 2 <= time.looks <= 7


def test_who_stops_does_not_wait() -> None:
    time = Time()
    asked = itertools.count()
    pace = Pace(1.0, stopping=lambda: next(asked) > 3, clock=time.clock, sleep=time.sleep)
    pace.wait(FIRST_MS)
    assert waited(time, pace, 1e6) < 1


def test_due_tells_without_waiting() -> None:
    time = Time()
    pace = time.pace(2.0)
    assert pace.due_s(FIRST_MS) == 0
    pace.wait(FIRST_MS)
    assert pace.due_s(FIRST_MS + 10_000) == pytest.approx(5)
    time.now_s += 2
    assert pace.due_s(FIRST_MS + 10_000) == pytest.approx(3)
    assert pace.due_s(-1) == 0
    time.paused_until_s = time.now_s + 1
    time.now_s += 0.5
    assert pace.due_s(-1) == math.inf
