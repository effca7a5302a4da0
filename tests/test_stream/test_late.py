"""Times of events by their records, and the late topic's records."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from stream.contract.control import (
    ERROR_MESSAGE,
    ERROR_OFFSET,
    ERROR_PARTITION,
    ERROR_REASON,
    ERROR_STAGE,
    ERROR_TOPIC,
    FIRST_SENT,
    LATE_BY_MS,
    LATE_COVERED,
    LATE_EVENT_MS,
    LATE_GRACE_MS,
    LATE_MISSED,
    LATE_WATERMARK_MS,
)
from stream.contract.event import Event, EventDecoder
from stream.errors import EventError
from stream.late import EventClock, first_record_ms, send_late
from stream.metrics import Metrics
from stream.settings import load_settings
from tests.test_stream.test_agents.records import FakePartition, Record, event

RECORD_MS = 1_780_000_000_000
HOUR_MS = 3_600_000


def _clock(**settings: Any) -> EventClock:
    return EventClock(load_settings(overrides={f"events.{k}": v for k, v in settings.items()}, environ={}).events)


def _event(occurred_ms: int, sent_ms: int | None = None) -> Event:
    record = event("ann", "i1", 0, occurred_at=occurred_ms, sent_at=sent_ms)
    return EventDecoder(max_future_ms=None).decode(record.value(), now_ms=RECORD_MS)


def test_an_event_of_the_past_is_of_its_own_time() -> None:
    clock = _clock()
    assert clock.time_ms(_event(RECORD_MS - 5), RECORD_MS) == RECORD_MS - 5
    assert clock.time_ms(_event(RECORD_MS), RECORD_MS) == RECORD_MS
    assert (clock.corrected, clock.clamped, clock.refused) == (0, 0, 0)


def test_one_ahead_of_its_record_is_of_the_records_time() -> None:
    """
    record ├── 300 s (max_future_s) ──┤
           clamped                    refused
    """
    clock = _clock()
    assert clock.time_ms(_event(RECORD_MS + 300_000), RECORD_MS) == RECORD_MS
    with pytest.raises(EventError, match=r"300 s ahead of now, more than events\.max_future_s") as caught:
        clock.time_ms(_event(RECORD_MS + 300_001), RECORD_MS)
    assert caught.value.reason == "future_time"
    assert (clock.clamped, clock.refused) == (1, 1)


def test_by_setting_none_is_refused() -> None:
    clock = _clock(future_policy="clamp")
    assert clock.time_ms(_event(RECORD_MS + 400 * 24 * HOUR_MS), RECORD_MS) == RECORD_MS
    assert (clock.clamped, clock.refused) == (1, 0)


def test_a_sender_whose_clock_is_two_hours_ahead_is_corrected_not_refused() -> None:
    clock = _clock()
    ahead = _event(RECORD_MS + 2 * HOUR_MS - 7000, RECORD_MS + 2 * HOUR_MS)
    assert clock.time_ms(ahead, RECORD_MS) == RECORD_MS - 7000
    assert (clock.corrected, clock.clamped, clock.refused) == (1, 0, 0)


@pytest.mark.parametrize(
    ("correct_skew", "behind_ms", "ahead"),
    [("both", 0, "corrected"), ("ahead", HOUR_MS, "corrected"), ("off", HOUR_MS, "refused")],
)
def test_which_clocks_are_corrected_is_a_setting(correct_skew: str, behind_ms: int, ahead: str) -> None:
    clock = _clock(correct_skew=correct_skew)
    assert clock.time_ms(_event(RECORD_MS - HOUR_MS, RECORD_MS - HOUR_MS), RECORD_MS) == RECORD_MS - behind_ms
    if ahead == "refused":
        with pytest.raises(EventError, match="max_future_s"):
            clock.time_ms(_event(RECORD_MS + HOUR_MS, RECORD_MS + HOUR_MS), RECORD_MS)
    else:
        assert clock.time_ms(_event(RECORD_MS + HOUR_MS, RECORD_MS + HOUR_MS), RECORD_MS) == RECORD_MS


def test_a_log_of_last_year_is_not_corrected() -> None:
    year_ago = RECORD_MS - 365 * 24 * HOUR_MS
    clock = _clock()
    assert clock.time_ms(_event(year_ago - 1000, year_ago), RECORD_MS) == year_ago - 1000
    assert clock.corrected == 0


def test_an_event_that_waited_for_its_key_is_judged_by_its_first_record() -> None:
    first = [("trace", b"1"), (FIRST_SENT, b"%d" % (RECORD_MS - HOUR_MS))]
    assert first_record_ms(first, RECORD_MS) == RECORD_MS - HOUR_MS
    assert first_record_ms([("trace", b"1")], RECORD_MS) == RECORD_MS
    assert first_record_ms([(FIRST_SENT, b"soon")], RECORD_MS) == RECORD_MS


def test_a_header_moves_no_time_past_the_record() -> None:
    assert first_record_ms([(FIRST_SENT, b"%d" % (RECORD_MS + HOUR_MS))], RECORD_MS) == RECORD_MS


def test_what_was_changed_is_counted_once() -> None:
    clock, metrics = _clock(), Metrics(CollectorRegistry())
    clock.time_ms(_event(RECORD_MS + 1), RECORD_MS)
    clock.time_ms(_event(RECORD_MS - HOUR_MS, RECORD_MS - HOUR_MS), RECORD_MS)
    with pytest.raises(EventError):
        clock.time_ms(_event(RECORD_MS + HOUR_MS), RECORD_MS)
    for _ in range(2):
        clock.count(metrics)
    values = {
        (name, outcome): metrics.registry.get_sample_value(name, {"outcome": outcome} if outcome else {})
        for name, outcome in (
            ("driftline_future_events_total", "clamped"),
            ("driftline_future_events_total", "refused"),
            ("driftline_skew_corrected_events_total", ""),
        )
    }
    assert list(values.values()) == [1, 1, 1]


def test_a_late_record_keeps_its_bytes_and_says_how_late_and_what_it_missed() -> None:
    value = event("ann", "i1", 0).value()
    record = Record(value, b"ann", 42, partition=3, headers=[("trace", b"\xff")])
    chunk = FakePartition().chunk([record])
    send_late(
        chunk,
        "late",
        record,  # type: ignore[arg-type]  # a stand-in for Message
        late_by_ms=2 * HOUR_MS,
        watermark_ms=RECORD_MS,
        grace_ms=HOUR_MS,
        windows=[("session", 1800), ("day", 86_400), ("month", 2_592_000)],
    )
    ((topic, sent, key, partition, headers),) = chunk.sends
    assert (topic, sent, key, partition) == ("late", value, b"ann", -1)
    assert headers is not None
    assert headers[0] == ("trace", b"\xff")
    told = {name: (content or b"").decode(errors="replace") for name, content in headers}
    message = told[ERROR_MESSAGE]
    assert "is 7200.000 s behind the newest of its partition (2026-05-28T20:26:40.000Z)" in message
    assert "events.grace_s (3600)" in message
    assert "events.late_policy" in message
    assert {name: told[name] for name in (ERROR_TOPIC, ERROR_PARTITION, ERROR_OFFSET, ERROR_STAGE, ERROR_REASON)} == {
        ERROR_TOPIC: "driftline.events.v1",
        ERROR_PARTITION: "3",
        ERROR_OFFSET: "42",
        ERROR_STAGE: "time",
        ERROR_REASON: "late",
    }
    assert told[LATE_BY_MS] == str(2 * HOUR_MS)
    assert told[LATE_EVENT_MS] == str(RECORD_MS - 2 * HOUR_MS)
    assert told[LATE_WATERMARK_MS] == str(RECORD_MS)
    assert told[LATE_GRACE_MS] == str(HOUR_MS)
    assert (told[LATE_MISSED], told[LATE_COVERED]) == ("session", "day,month")


@given(
    st.integers(-(10**9), 10**9),
    st.none() | st.integers(-(10**9), 10**9),
    st.sampled_from(("both", "ahead", "off")),
    st.sampled_from(("refuse", "clamp")),
)
def test_no_event_is_of_a_time_after_its_record(
    occurred_ms: int, sent_ms: int | None, correct_skew: str, future_policy: str
) -> None:
    """So none moves the watermark past the log's own time, whatever its sender's clocks say."""
    clock = _clock(correct_skew=correct_skew, future_policy=future_policy)
    given_event = _event(RECORD_MS + occurred_ms, None if sent_ms is None else RECORD_MS + sent_ms)
    try:
        at_ms = clock.time_ms(given_event, RECORD_MS)
    except EventError:
        at_ms = None
    if at_ms is None:
        assert clock.refused == 1
        assert future_policy == "refuse"
        assert occurred_ms > 300_000
    else:
        assert at_ms <= RECORD_MS
        assert clock.corrected or at_ms == min(RECORD_MS + occurred_ms, RECORD_MS)
