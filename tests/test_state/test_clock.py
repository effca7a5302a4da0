"""Event time: the watermark of a partition, what is late, whose clock is off."""

import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from state.clock import WATERMARK_KEY, SkewSettings, Watermark, covering_windows, skew_ms
from state.errors import StateCorruptError, StateError

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
NOW_MS = 1_780_000_000_000

# --- watermark


def _late_by(times_ms: list[int], grace_ms: int, watermark: Watermark | None = None) -> list[int]:
    watermark = watermark or Watermark()
    return [watermark.late_by_ms(time_ms, grace_ms) for time_ms in times_ms]


def test_an_event_is_late_when_it_is_more_than_the_grace_behind_the_newest_before_it() -> None:
    """
    offset      0    1    2    3    4    5    6      grace 10
    time      100  105  120  110  109  130  119
    watermark   -  100  105  120  120  120  130
    behind      -    .    .   10   11    .   11
                               |    |         |
                           on time late      late
    """
    assert _late_by([100, 105, 120, 110, 109, 130, 119], 10) == [0, 0, 0, 0, 11, 0, 11]


def test_a_late_event_does_not_move_the_watermark_and_neither_does_one_within_the_grace() -> None:
    watermark = Watermark(120)
    assert [watermark.late_by_ms(time_ms, 10) for time_ms in (50, 115)] == [70, 0]
    assert watermark.time_ms == 120


def test_nothing_is_late_before_the_first_event() -> None:
    assert Watermark().late_by_ms(1, 0) == 0


def test_without_grace_whatever_is_older_is_late_and_an_equal_time_is_not() -> None:
    assert _late_by([100, 100, 99, 101], 0) == [0, 0, 1, 0]


def test_partitions_have_watermarks_of_their_own_and_an_idle_one_holds_none_back() -> None:
    """
    partition 0   10:00 ─────────────────── idle ───────────────────────────
    partition 1   10:00   11:00   12:00   13:00   11:30 is late here by 1:30
    """
    idle, busy = Watermark(), Watermark()
    start = NOW_MS
    assert idle.late_by_ms(start, HOUR_MS) == 0
    hours = [start, start + HOUR_MS, start + 2 * HOUR_MS, start + 3 * HOUR_MS, start + 3 * HOUR_MS // 2]
    assert _late_by(hours, HOUR_MS, busy) == [0, 0, 0, 0, 3 * HOUR_MS // 2]
    assert idle.time_ms == start
    assert idle.late_by_ms(start + 1, HOUR_MS) == 0


# --- changelog


def test_a_record_is_written_only_when_the_watermark_moved() -> None:
    watermark = Watermark()
    assert watermark.drain() == []
    watermark.late_by_ms(100, 10)
    ((key, value),) = watermark.drain()
    assert key == WATERMARK_KEY
    assert value is not None
    assert len(value) == 9
    assert watermark.drain() == []
    watermark.late_by_ms(95, 10)
    assert watermark.drain() == []


def test_its_key_is_no_users() -> None:
    assert WATERMARK_KEY.startswith(b"\0")


@pytest.mark.parametrize("record", [b"", b"\x01", b"\x02" + bytes(8), bytes(9), struct.pack("<Bqb", 1, 5, 0)])
def test_a_record_that_cannot_be_read_says_what_to_do(record: bytes) -> None:
    with pytest.raises(StateCorruptError, match="delete its data folder"):
        Watermark.load(lambda _: record)


@settings(max_examples=200)
@given(st.lists(st.integers(0, 200), max_size=60), st.integers(0, 40), st.data())
def test_late_are_those_that_a_naive_count_names_however_the_log_is_cut_and_restarted(
    offsets_ms: list[int], grace_ms: int, data: st.DataObject
) -> None:
    times_ms = [NOW_MS + offset_ms for offset_ms in offsets_ms]
    naive = []
    for position, time_ms in enumerate(times_ms):
        behind_ms = max(times_ms[:position], default=0) - time_ms
        naive.append(behind_ms if behind_ms > grace_ms else 0)

    store: dict[bytes, bytes | None] = {}
    found: list[int] = []
    position = 0
    watermark = Watermark.load(store.get)
    while position < len(times_ms):
        size = data.draw(st.integers(1, 9))
        what = data.draw(st.sampled_from(("commit", "commit and restart", "abort")))
        judged = _late_by(times_ms[position : position + size], grace_ms, watermark)
        if what == "abort":  # drained, but its transaction came to nothing: read again from the last commit
            watermark.drain()
            watermark = Watermark.load(store.get)
            if data.draw(st.booleans()):
                continue
            judged = _late_by(times_ms[position : position + size], grace_ms, watermark)
        store.update(watermark.drain())
        if what == "commit and restart":
            watermark = Watermark.load(store.get)
        found += judged
        position += size
    assert found == naive


# --- clocks of senders


def test_a_sender_whose_clock_is_ahead_is_put_right() -> None:
    """
    true time     10:00 occurs   10:01 sent = record
    its clock     12:00          12:01                    error -2 h: occurred 12:00 -> 10:00
    """
    record = NOW_MS
    sent, occurred = record + 2 * HOUR_MS, record + 2 * HOUR_MS - MINUTE_MS
    skew = skew_ms(occurred, sent, record, SkewSettings())
    assert skew == -2 * HOUR_MS
    assert occurred + skew == record - MINUTE_MS


def test_and_so_is_one_behind() -> None:
    sent = NOW_MS - 3 * HOUR_MS
    assert skew_ms(sent - 5000, sent, NOW_MS, SkewSettings()) == 3 * HOUR_MS


def test_what_waited_at_the_sender_before_it_was_sent_is_left() -> None:
    """A phone without a network: five hours pass between occurred_at and sent_at, by one and the same clock."""
    assert skew_ms(NOW_MS - 5 * HOUR_MS, NOW_MS - 1000, NOW_MS, SkewSettings()) == 0


@pytest.mark.parametrize(
    ("error_ms", "corrected"),
    [
        (60_000, False),
        (-60_000, False),
        (60_001, True),
        (-60_001, True),
        (86_400_000, True),
        (-86_400_000, True),
        (86_400_001, False),  # last year's log
        (-86_400_001, False),
    ],
)
def test_too_small_is_the_way_to_the_broker_and_too_large_another_era(error_ms: int, corrected: bool) -> None:
    sent = NOW_MS - error_ms
    assert skew_ms(sent, sent, NOW_MS, SkewSettings()) == (error_ms if corrected else 0)


def test_a_clock_behind_may_be_left_alone_because_a_long_way_looks_the_same() -> None:
    only_ahead = SkewSettings(behind=False)
    assert skew_ms(NOW_MS - HOUR_MS, NOW_MS - HOUR_MS, NOW_MS, only_ahead) == 0
    assert skew_ms(NOW_MS + HOUR_MS, NOW_MS + HOUR_MS, NOW_MS, only_ahead) == -HOUR_MS


def test_an_event_sent_before_it_occurred_has_two_clocks_and_neither_is_trusted() -> None:
    sent = NOW_MS - 2 * HOUR_MS
    assert skew_ms(sent + MINUTE_MS, sent, NOW_MS, SkewSettings()) == 2 * HOUR_MS
    assert skew_ms(sent + MINUTE_MS + 1, sent, NOW_MS, SkewSettings()) == 0


@pytest.mark.parametrize(("threshold_ms", "max_ms"), [(0, 1), (-1, 1), (2, 1)])
def test_settings_that_correct_nothing_are_refused(threshold_ms: int, max_ms: int) -> None:
    with pytest.raises(StateError, match="set the threshold"):
        SkewSettings(threshold_ms=threshold_ms, max_ms=max_ms)


@given(st.integers(0, 10**8), st.integers(-(10**8), 10**8))
@example(0, 60_001)
def test_a_corrected_event_is_as_long_before_its_record_as_it_was_before_it_was_sent(
    waited_ms: int, error_ms: int
) -> None:
    sent = NOW_MS - error_ms
    occurred = sent - waited_ms
    skew = skew_ms(occurred, sent, NOW_MS, SkewSettings())
    assert skew == 0 or NOW_MS - (occurred + skew) == waited_ms


# --- windows


def test_the_windows_that_an_event_missed() -> None:
    """
                        event                                      watermark
    session (30 min)      |                              [───────────]
    day                   |   [──────────────────────────────────────]
    month       [─────────|──────────────────────────────────────────]
    """
    windows = [("session", 1800), ("day", 86_400), ("month", 2_592_000)]
    assert covering_windows(NOW_MS - 2 * 86_400_000, NOW_MS, windows) == (["session", "day"], ["month"])


def test_a_window_holds_what_is_newer_than_its_size() -> None:
    assert covering_windows(NOW_MS - 9_999, NOW_MS, [("w", 10)]) == ([], ["w"])
    assert covering_windows(NOW_MS - 10_000, NOW_MS, [("w", 10)]) == (["w"], [])
