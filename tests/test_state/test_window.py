"""
Small windows for reading: panes of 10 s (window of 30 s), of 60 s (of 120 s) and of 300 s (of 900 s).

    seconds     0     60    120   180   240   300   360   420   480   540   600 ...
    panes of 10 |||||||||||||||||||||||||||||||||||||||||||||||||||||||||||||||
    panes of 60 |     |     |     |     |     |     |     |     |     |     |
    of 300      |                             |                             |

    at t = 425    short window of 30 s:             [400 .. 430)
                  middle one of 120 s:        [360   ..   480)
                  long one of 900 s:    all from -300, that is from 0

A window ends with the pane that t is in, and so begins at (t // pane + 1) * pane - size.
"""

import random
import struct
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.errors import StateCorruptError, StateError
from state.keys import key_of
from state.window import CELL, MAX_UNITS, UNITS, Window, Windows, WindowSettings, interest_key, units_of

Event = tuple[int, int, int]  # time in s, key, units

DAY_S = 86_400
MANY = 10_000


def small(open_cells: int = MANY, middle: int = MANY, long: int = MANY, grace_s: int = 40) -> Windows:
    return Windows(
        WindowSettings(
            (
                Window("short", 30, 10, open_cells),
                Window("middle", 120, 60, middle),
                Window("long", 900, 300, long),
            ),
            grace_s,
        )
    )


def added(windows: Windows, events: Iterable[Event], packed: bytes = b"") -> bytes:
    for event in events:
        packed = windows.add(packed, *event)
    return packed


def recomputed(windows: Windows, events: Sequence[Event], at_s: int) -> dict[int, tuple[float, ...]]:
    """The windows from the raw events: what `view` must give where no bound is hit."""
    found: dict[int, list[float]] = defaultdict(lambda: [0.0] * len(windows.settings.windows))
    for time_s, key, units in events:
        for column, window in enumerate(windows.settings.windows):
            begin_s = (at_s // window.pane_s + 1) * window.pane_s - window.size_s
            if begin_s <= time_s <= at_s and units:
                found[key][column] += units / UNITS
    return {key: tuple(weights) for key, weights in found.items() if key in _seen(windows, events, at_s)}


def _seen(windows: Windows, events: Sequence[Event], at_s: int) -> set[int]:
    begins = [(at_s // w.pane_s + 1) * w.pane_s - w.size_s for w in windows.settings.windows]
    return {key for time_s, key, units in events if units and min(begins) <= time_s <= at_s}


def cells_of(windows: Windows, packed: bytes) -> list[object]:
    """What packed windows hold, whatever the order of their cells."""
    newest_s, folded_s, folded, opened = windows._split(packed or windows._adopt(packed))
    return [newest_s, folded_s, sorted(CELL.iter_unpack(folded)), sorted(CELL.iter_unpack(opened))]


times = st.integers(0, 3000)
keys = st.integers(1, 5)
units = st.integers(-50, 50)
event_lists = st.lists(st.tuples(times, keys, units), max_size=80)
crowded = st.lists(st.tuples(st.integers(0, 600), st.integers(1, 12), st.integers(1, 4)), min_size=30, max_size=120)


# --- windows


def test_an_event_is_in_a_window_until_the_window_has_slid_past_its_pane() -> None:
    windows = small()
    packed = windows.add(b"", 425, 7, 3 * UNITS)
    assert windows.view(packed, 425) == {7: (3.0, 3.0, 3.0)}
    assert windows.view(packed, 449) == {7: (3.0, 3.0, 3.0)}
    assert windows.view(packed, 450) == {7: (0.0, 3.0, 3.0)}  # [430, 460)
    assert windows.view(packed, 539) == {7: (0.0, 3.0, 3.0)}
    assert windows.view(packed, 540) == {7: (0.0, 0.0, 3.0)}  # [480, 600)
    assert windows.view(packed, 1199) == {7: (0.0, 0.0, 3.0)}
    assert windows.view(packed, 1200) == {}  # [600, 1500)


def test_the_same_when_later_events_have_folded_it() -> None:
    windows = small()
    for later_s, expected in [(449, (3.0, 3.0, 3.0)), (539, (0.0, 3.0, 3.0)), (1199, (0.0, 0.0, 3.0)), (1200, None)]:
        packed = added(windows, [(425, 7, 3 * UNITS), (later_s - 5, 8, 1), (later_s, 8, 1)])
        assert windows.view(packed, later_s).get(7) == expected


def test_an_event_in_the_grace_period_lands_in_its_own_pane() -> None:
    windows = small()
    in_order = added(windows, [(425, 7, 1), (460, 8, 1)])
    out_of_order = added(windows, [(460, 8, 1), (425, 7, 1)])
    assert cells_of(windows, in_order) == cells_of(windows, out_of_order)


def test_a_late_event_lands_in_the_windows_that_still_cover_it() -> None:
    windows = small()
    packed = windows.add(b"", 900, 8, 1)
    packed = added(windows, [(845, 1, UNITS), (610, 2, UNITS), (100, 3, UNITS)], packed)  # 40 s are in time
    assert windows.view(packed, 900)[1] == (0.0, 1.0, 1.0)
    assert windows.view(packed, 900)[2] == (0.0, 0.0, 1.0)
    assert windows.view(packed, 1199)[2] == (0.0, 0.0, 1.0)
    assert 3 in windows.view(packed, 899)
    packed = windows.add(added(windows, [(1200, 8, 1), (1300, 8, 1)]), 100, 3, UNITS)
    assert 3 not in windows.view(packed, 1300)


@given(event_lists)
def test_the_panes_give_what_the_raw_events_give(events: list[Event]) -> None:
    """In any order at all: as long as no bound is hit, an event is counted where its time belongs."""
    windows = small()
    packed = added(windows, events)
    newest_s = windows.newest_s(packed)
    for at_s in (newest_s, newest_s + 7, newest_s + 300):
        assert windows.view(packed, at_s) == recomputed(windows, events, at_s)


@given(event_lists, st.integers(0, 80))
def test_any_number_and_size_of_windows(events: list[Event], grace_s: int) -> None:
    for shape in (
        [Window("only", 100, 20, MANY)],
        [Window("a", 1, 1, MANY), Window("b", 2000, 1, MANY)],
        [Window("a", 40, 10, MANY), Window("b", 600, 60, MANY)],
        [Window("a", 20, 10, MANY), Window("b", 40, 10, MANY), Window("c", 60, 60, MANY), Window("d", 600, 60, MANY)],
    ):
        windows = Windows(WindowSettings(tuple(shape), grace_s))
        packed = added(windows, events)
        at_s = windows.newest_s(packed)
        assert windows.view(packed, at_s) == recomputed(windows, events, at_s)


def test_the_default_windows_hold_a_user_in_400_bytes() -> None:
    assert WindowSettings().max_bytes() <= 400


# --- order of arrival


def shuffled(events: list[Event], within_s: int, seed: int) -> list[Event]:
    """The events in another order, none behind one that is more than `within_s` newer."""
    draw = random.Random(seed)
    return sorted(events, key=lambda event: event[0] + draw.uniform(0, within_s))


@settings(max_examples=300)
@given(st.one_of(event_lists, crowded), st.integers(0, 2**32), st.integers(1, 8), st.integers(0, 150))
def test_the_order_within_the_grace_period_does_not_matter(
    events: list[Event], seed: int, folded: int, grace_s: int
) -> None:
    """Also where the folded cells are over their bounds: the bytes are those of the events in order of time."""
    windows = small(middle=1, long=folded, grace_s=grace_s)
    in_order = cells_of(windows, added(windows, sorted(events)))
    assert cells_of(windows, added(windows, shuffled(events, grace_s, seed))) == in_order


@settings(max_examples=300)
@given(event_lists, st.integers(0, 2**32), st.integers(1, 6))
def test_nor_does_it_where_open_cells_are_over_their_bound(events: list[Event], seed: int, open_cells: int) -> None:
    windows = small(open_cells=open_cells)
    in_order = added(windows, sorted(events))
    other = added(windows, shuffled(events, 40, seed))
    at_s = windows.newest_s(in_order)
    assert windows.view(other, at_s) == windows.view(in_order, at_s)


@given(event_lists, st.integers(0, 2**32))
def test_nor_does_the_order_of_a_whole_history_without_bounds(events: list[Event], seed: int) -> None:
    windows = small()
    at_s = max((event[0] for event in events), default=0)
    mixed = shuffled(events, 10**6, seed)
    assert windows.view(added(windows, mixed), at_s) == windows.view(added(windows, events), at_s)


# --- bounds


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.integers(), st.integers(0, 2**33), times),
            st.integers(),
            st.one_of(st.integers(), units, st.just(MAX_UNITS)),
        ),
        max_size=120,
    ),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_hostile_events_never_exceed_the_bound(events: list[Event], open_cells: int, middle: int, long: int) -> None:
    for windows in (small(open_cells, middle, long), Windows(WindowSettings())):
        packed = b""
        for event in events:
            packed = windows.add(packed, *event)
            assert len(packed) <= windows.settings.max_bytes()
            windows.check(packed)
        windows.view(packed, windows.newest_s(packed))


@given(event_lists, st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_bounds_only_ever_hide_weight(events: list[Event], open_cells: int, middle: int, long: int) -> None:
    windows = small(open_cells, middle, long)
    events = [(time_s, key, abs(units)) for time_s, key, units in events]
    packed = added(windows, sorted(events))
    at_s = windows.newest_s(packed)
    full = recomputed(windows, events, at_s)
    for key, weights in windows.view(packed, at_s).items():
        assert all(weight <= most for weight, most in zip(weights, full[key], strict=True))


def test_the_smallest_cells_go_and_their_weight_stays_with_their_key() -> None:
    windows = Windows(WindowSettings((Window("short", 10, 10, MANY), Window("long", 3000, 300, 4)), 0))
    events = [(0, 1, 2), (300, 1, 1), (600, 2, 50), (610, 3, 3), (620, 1, 60)]
    packed = added(windows, [*events, (2000, 9, 1)])  # the last has them all folded
    # Over the bound of 4 at the fifth cell: two go. The 1 of key 1 is added to the older 2, which is to go too.
    assert {key: weights[1] * UNITS for key, weights in windows.view(packed, 2000).items()} == {
        1: 60,
        2: 50,
        3: 3,
        9: 1,
    }
    events[0] = (0, 1, 20)
    packed = added(windows, [*events, (2000, 9, 1)])
    assert {key: weights[1] * UNITS for key, weights in windows.view(packed, 2000).items()} == {1: 81, 2: 50, 9: 1}


def test_cells_that_have_left_a_window_are_joined_in_the_panes_of_the_next() -> None:
    """45 cells in 3 panes of 300 s: joined they are 9, and none need go from the 20 that there are."""
    windows = small(middle=10, long=10)
    events = [(60 * minute, key, 1 + minute) for minute in range(15) for key in (1, 2, 3)]
    packed = added(windows, [*events, (1000, 9, 1)])
    for at_s in (1000, 1199, 1200, 1499, 1500):
        assert windows.view(packed, at_s) == recomputed(windows, [*events, (1000, 9, 1)], at_s)
    folded = windows._split(packed)[2]
    assert 9 <= len(folded) // CELL.size <= 20


def test_a_cell_is_not_found_across_two_others() -> None:
    """The last of the events looks for bytes that stand at the end of one cell and the beginning of the next."""
    windows = small()
    pane = 425 // 10
    events = [(425, 5, 77), (425, 65_536 + pane, 1), (425, 77, 3)]
    assert windows.view(added(windows, events), 425) == recomputed(windows, events, 425)
    pane = 425 // 60
    events = [(425, 5, 77), (425, 65_536 + pane, 1), (425, 77, 3), (900, 9, 1)]
    assert windows.view(added(windows, sorted(events)), 900) == recomputed(windows, events, 900)


@pytest.mark.parametrize("idle_s", [65_530, 65_536, 65_540, 3 * 65_536, 2**31])
def test_after_a_long_time_old_panes_are_not_taken_for_new_ones(idle_s: int) -> None:
    """Pane numbers are kept modulo 2**16."""
    windows = Windows(WindowSettings((Window("short", 10, 1, 20), Window("long", 30_000, 1, 20)), 0))
    events = [(1000, 1, 1), (1005, 2, 1), (1100, 3, 1), (1100 + idle_s, 4, 1), (1120 + idle_s, 5, 1)]
    for count in range(1, len(events) + 1):
        packed = added(windows, events[:count])
        at_s = events[count - 1][0]
        assert windows.view(packed, at_s) == recomputed(windows, events[:count], at_s)


def test_a_weight_of_nothing_changes_nothing_and_weights_that_cancel_leave_none() -> None:
    windows = small()
    packed = windows.add(b"", 100, 7, 5)
    assert windows.add(packed, 900, 7, 0) == packed
    assert windows.view(windows.add(packed, 100, 7, -5), 100) == {7: (0.0, 0.0, 0.0)}


def test_a_cell_is_full_at_32_bits() -> None:
    windows = small()
    packed = b""
    for _ in range(2100):
        packed = windows.add(packed, 100, 7, 10**9)
    assert windows.view(packed, 100)[7][0] == (2**31 - 1) / UNITS


def test_weights_are_whole_sixteenths() -> None:
    assert [units_of(weight) for weight in (1.0, -20.0, 0.03, 0.04)] == [16, -320, 0, 1]
    assert [units_of(weight) for weight in (1e300, -1e300, float("inf"), float("nan"))] == [
        MAX_UNITS,
        -MAX_UNITS,
        MAX_UNITS,
        0,
    ]


def test_kinds_of_interests_have_keys_of_their_own() -> None:
    assert interest_key("tea") == key_of("tea") & 0xFFFFFFFF
    assert len({interest_key("tea"), interest_key("tea", "brand"), interest_key("tea", "colour")}) == 3


# --- many users


@given(st.lists(event_lists, max_size=6))
def test_many_users_at_once_are_as_each_alone(users: list[list[Event]]) -> None:
    windows = small(6, 4, 4)
    packed = [added(windows, events) for events in users]
    at_s = [windows.newest_s(one) + 5 * i for i, one in enumerate(packed)]
    views = windows.views(packed, np.array(at_s, np.int64))
    assert (np.diff(views.user.astype(np.int64) << 32 | views.key.astype(np.int64)) > 0).all()
    for user, one in enumerate(packed):
        mine = views.user == user
        found = {
            key: tuple(row) for key, row in zip(views.key[mine].tolist(), views.weights[mine].tolist(), strict=True)
        }
        assert found == windows.view(one, at_s[user])


@given(event_lists)
def test_first_and_last_seen_enclose_what_is_in_the_windows(events: list[Event]) -> None:
    windows = small()
    packed = added(windows, events)
    at_s = windows.newest_s(packed)
    views = windows.views([packed], at_s)
    begin_s = (at_s // 300 + 1) * 300 - 900
    for key, first_s, last_s in zip(views.key.tolist(), views.first_s.tolist(), views.last_s.tolist(), strict=True):
        seen = [time_s for time_s, other, units in events if other == key and units and time_s >= begin_s]
        assert first_s <= min(seen) < first_s + 300
        assert max(seen) <= last_s <= at_s


# --- bytes


@given(event_lists, st.integers(1, 6))
def test_packing_is_the_identity(events: list[Event], cells: int) -> None:
    windows = small(cells, cells, cells)
    packed = added(windows, events)
    if packed:
        assert windows._join(*windows._split(packed)) == packed


def everything(windows: Windows, packed: bytes) -> None:
    windows.check(packed)
    windows.view(packed, 5000)
    windows.newest_s(packed)
    added(windows, [(10, 1, 1), (3000, 2, 2), (3100, 3, 3), (9000, 2, 2)], packed)


@settings(max_examples=300)
@given(st.binary(max_size=120), st.integers(0, 60), event_lists)
def test_damaged_bytes_are_refused_or_can_be_worked_with(noise: bytes, at: int, events: list[Event]) -> None:
    windows = small(6, 6, 6)
    packed = added(windows, events)
    for damaged in (noise, packed[:at] + noise + packed[at:], packed[:at], packed[:at] + noise[:3] + packed[at + 3 :]):
        try:
            windows.check(damaged)
        except StateCorruptError:
            for method in (windows.view, lambda one, _: windows.add(one, 5000, 1, 1)):
                with pytest.raises(StateCorruptError, match="stop the worker"):
                    method(damaged, 5000)
        else:
            everything(windows, damaged)


@pytest.mark.parametrize(
    "damage",
    [
        lambda packed: b"\0" + packed[1:],
        lambda packed: packed[:1],
        lambda packed: packed[:20],
        lambda packed: packed[:-1],
        lambda packed: packed[:17] + b"\xff\xff" + packed[19:],
        lambda packed: packed[:1] + bytes(8) + packed[9:],
        lambda packed: packed[:1] + bytes(3) + b"\x01" + packed[5:15],
    ],
)
def test_cut_or_changed_bytes_are_refused(damage: object) -> None:
    windows = small()
    assert callable(damage)
    packed = damage(added(windows, [(100, 1, 1), (2000, 1, 1), (2500, 1, 1)]))
    with pytest.raises(StateCorruptError):
        windows.check(packed)


@given(event_lists)
def test_windows_of_other_settings_are_converted(events: list[Event]) -> None:
    before = small()
    after = Windows(WindowSettings((Window("short", 60, 20, MANY), Window("long", 900, 300, MANY)), 60))
    events = [(time_s, key, abs(units) + 1) for time_s, key, units in events]
    packed = added(before, events)
    at_s = before.newest_s(packed)
    totals = {key: weights[2] for key, weights in before.view(packed, at_s).items()}
    assert {key: weights[1] for key, weights in after.view(packed, at_s).items()} == totals
    again = after.add(packed, at_s, 77, UNITS)
    assert struct.unpack_from("<BII", again)[1:] == (20, 300)
    assert after.view(again, at_s)[77] == (1.0, 1.0)


def test_changed_sizes_and_bounds_need_no_conversion() -> None:
    before, after = small(), small(3, 1, 1)
    packed = added(before, [(10 * i, i, 1) for i in range(60)])
    packed = added(after, [(700 + 10 * i, i, 1) for i in range(40)], packed)
    assert len(packed) <= after.settings.max_bytes()


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ([], "0 windows"),
        ([Window("a", 10, 10, 1), Window("a", 20, 10, 1)], "twice"),
        *[([Window(name, 10, 10, 1)], "is no name") for name in ("", 'a"b', "a b", "A", "a\n", "a,b", "x" * 40)],
        ([Window(f"w{n}", 10 * 2**n, 10 * 2**n, 10_000) for n in range(9)], "in all or less"),
        ([Window("a", 15, 10, 1)], "no multiple"),
        ([Window("a", 0, 10, 1)], "no multiple"),
        ([Window("a", 10, 0, 1)], "no multiple"),
        ([Window("a", 40_000, 1, 1)], "larger pane_s"),
        ([Window("a", 10, 10, 0)], "cells"),
        ([Window("a", 10, 10, 10**6)], "cells"),
        ([Window("a", 10, 10, 1, emphasis=-1.0)], "emphasis"),
        ([Window("a", 20, 10, 1), Window("b", 10, 10, 1)], "larger than"),
        ([Window("a", 20, 10, 1), Window("b", 45, 15, 1)], "multiple of 10"),
    ],
)
def test_settings_that_cannot_work_say_so(shape: list[Window], says: str) -> None:
    with pytest.raises(StateError, match=says):
        WindowSettings(tuple(shape))


def test_a_grace_period_has_a_bound() -> None:
    with pytest.raises(StateError, match="grace_s"):
        WindowSettings(grace_s=-1)
    with pytest.raises(StateError, match="grace_s"):
        WindowSettings(grace_s=10**9)
