"""
offset   0 1 2 3 | 4 5 6 7 | 8 ...      refresh_events = 4
epoch       0    |    1    | 2
"""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state import trend as trend_module
from state.errors import StateCorruptError
from state.trend import SNAPSHOT_KEY, Trend, delta_key

HALF_LIFE_S = 1000.0
Event = tuple[int, float, int]  # item, weight, time in ms


def new() -> Trend:
    return Trend(HALF_LIFE_S, refresh_events=4)


def test_a_list_sees_the_epochs_before_its_own_only() -> None:
    trend = new()
    for offset in range(4):
        trend.add(offset, item=7, weight=1.0, time_ms=0)
        assert trend.snapshot == {}
    trend.enter(4)
    assert trend.snapshot == {7: 4.0}
    assert (trend.epoch, trend.epoch_of(7), trend.epoch_of(8)) == (1, 1, 2)
    trend.add(5, item=8, weight=2.0, time_ms=0)
    assert trend.snapshot == {7: 4.0}
    trend.add(11, item=9, weight=1.0, time_ms=0)
    assert trend.snapshot == {7: 4.0, 8: 2.0}


def test_counts_halve_in_a_half_life_and_late_events_are_worth_their_age() -> None:
    trend = new()
    trend.add(0, item=1, weight=8.0, time_ms=0)
    trend.add(1, item=2, weight=1.0, time_ms=2_000_000)
    trend.add(2, item=1, weight=1.0, time_ms=1_000_000)  # a half-life late
    trend.enter(4)
    assert trend.snapshot == pytest.approx({1: 8 / 4 + 1 / 2, 2: 1.0})


def test_what_is_against_an_item_does_not_count() -> None:
    trend = new()
    trend.add(0, item=1, weight=-5.0, time_ms=0)
    trend.add(1, item=1, weight=float("nan"), time_ms=0)
    trend.enter(4)
    assert trend.snapshot == {}
    assert trend.drain() == []


def test_the_version_changes_with_the_snapshot_only() -> None:
    trend = new()
    before = trend.version
    trend.enter(40)
    assert trend.version == before
    trend.add(41, item=1, weight=1.0, time_ms=0)
    assert trend.version == before
    trend.enter(44)
    assert trend.version != before


def test_a_clock_that_was_wrong_once_does_not_wipe_the_counts() -> None:
    trend = new()
    trend.add(0, item=1, weight=1.0, time_ms=0)  # 1970
    trend.add(1, item=2, weight=1.0, time_ms=1_700_000_000_000)
    trend.enter(4)
    assert trend.snapshot == {1: 0.0, 2: 1.0}


def test_only_the_most_popular_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trend_module, "MAX_ITEMS", 2)
    trend = new()
    for offset, item in enumerate((5, 6, 4, 4)):
        trend.add(offset, item, weight=1.0, time_ms=0)
    trend.enter(4)
    assert trend.snapshot == {4: 2.0, 5: 1.0}  # of equals the smaller key


# --- changelog


def apply_records(store: dict[bytes, bytes], trend: Trend) -> None:
    records = trend.drain()
    assert len({key for key, _ in records}) == len(records)
    for key, value in records:
        assert key.startswith(b"\0")
        if value is None:
            del store[key]  # a tombstone is only written for what is there
        else:
            store[key] = value


def test_a_border_writes_the_snapshot_and_deletes_the_deltas() -> None:
    store: dict[bytes, bytes] = {}
    trend = new()
    for offset in range(3):
        trend.add(offset, item=1, weight=1.0, time_ms=0)
        apply_records(store, trend)
    assert set(store) == {delta_key(0), delta_key(1), delta_key(2)}
    trend.add(4, item=1, weight=1.0, time_ms=0)
    apply_records(store, trend)
    assert set(store) == {SNAPSHOT_KEY, delta_key(0)}
    assert trend.drain() == []


events = st.lists(
    st.tuples(st.integers(1, 6), st.floats(0.1, 10), st.integers(0, 10**13)) | st.just((0, 0.0, 0)), max_size=60
)


@settings(max_examples=120)
@given(events, st.data())
def test_neither_cuts_nor_crashes_change_a_snapshot(log: list[Event], data: st.DataObject) -> None:
    whole = new()
    expected = []
    for offset, (item, weight, time_ms) in enumerate(log):
        whole.add(offset, item, weight, time_ms)
        expected.append(list(whole.snapshot.items()))

    store: dict[bytes, bytes] = {}
    trend = new()
    offset = 0
    while offset < len(log):
        # A chunk, then drained; or lost before that, and read again from the last drain.
        end = min(offset + data.draw(st.integers(1, 11)), len(log))
        crash = data.draw(st.sampled_from(["no", "before", "after"]))
        for at in range(offset, end):
            trend.add(at, *log[at])
            assert list(trend.snapshot.items()) == expected[at]
        if crash != "before":
            apply_records(store, trend)
            offset = end
        if crash != "no":
            trend = Trend.load(store.get, HALF_LIFE_S, 4)


def test_a_loaded_trend_goes_on_like_one_that_never_stopped() -> None:
    draw = random.Random(3)
    store: dict[bytes, bytes] = {}
    one, other = new(), new()
    for offset in range(200):
        event = draw.randrange(20), draw.random(), draw.randrange(10**9)
        one.add(offset, *event)
        other.add(offset, *event)
        apply_records(store, other)
        other = Trend.load(store.get, HALF_LIFE_S, 4)
        assert other.snapshot == one.snapshot
        assert other.snapshot_time_ms == one.snapshot_time_ms


def test_another_refresh_is_taken_up_where_the_old_one_stood() -> None:
    store: dict[bytes, bytes] = {}
    trend = new()
    for offset in range(41):
        trend.add(offset, item=1, weight=1.0, time_ms=0)
    apply_records(store, trend)
    loaded = Trend.load(store.get, HALF_LIFE_S, 10)
    assert loaded.snapshot == {1: 40.0}
    assert loaded.epoch == 4
    loaded.enter(50)
    assert loaded.snapshot == {1: 41.0}


@pytest.mark.parametrize("key", [SNAPSHOT_KEY, delta_key(0)])
@pytest.mark.parametrize("damage", [b"", b"x", b"\x01" + bytes(50)])
def test_a_damaged_record_is_refused(key: bytes, damage: bytes) -> None:
    with pytest.raises(StateCorruptError, match="delete its data folder"):
        Trend.load({key: damage}.get, HALF_LIFE_S, 4)


@pytest.mark.parametrize(("half_life_s", "refresh_events"), [(0, 4), (10, 0)])
def test_settings_that_cannot_work_are_refused(half_life_s: float, refresh_events: int) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Trend(half_life_s, refresh_events)


def test_a_delta_of_an_older_epoch_is_no_longer_one() -> None:
    """Its tombstone may have been compacted away before a store that was long away saw it."""
    trend, store = new(), dict[bytes, bytes | None]()
    for offset in range(3):
        trend.add(offset, item=offset, weight=1.0, time_ms=0)
        store.update(trend.drain())
    old = dict(store)
    trend.add(4, item=9, weight=1.0, time_ms=0)
    store.update(trend.drain())
    left = {**old, **{key: value for key, value in store.items() if value is not None}}
    assert left[delta_key(1)] is not None  # the stale one, beside the new snapshot
    loaded = Trend.load(left.get, HALF_LIFE_S, refresh_events=4)
    assert (loaded.epoch, loaded.snapshot) == (trend.epoch, trend.snapshot)


def test_no_record_outgrows_what_a_broker_takes() -> None:
    """An event may have a thousand items, and a chunk many such events: the partition would stop for good."""
    trend, store = new(), dict[bytes, bytes | None]()
    trend.refresh_events = 100
    for item in range(50_000):
        trend.add(0, item=item + 1, weight=1.0, time_ms=0)
    store.update(trend.drain())
    assert len(store) == 3
    assert max(len(value or b"") for value in store.values()) < 500_000
    loaded = Trend.load(store.get, HALF_LIFE_S, refresh_events=100)
    for one in (trend, loaded):
        one.enter(100)
    assert loaded.snapshot == trend.snapshot
