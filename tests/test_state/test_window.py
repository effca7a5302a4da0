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
from state.window import (
    ALL_WINDOWS,
    CELL,
    MAX_UNITS,
    UNITS,
    Window,
    Windows,
    WindowSettings,
    interest_key,
    is_sound,
    units_of,
)

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


def settled(windows: Windows, packed: bytes) -> list[object]:
    """What packed windows hold once every cell that is due is folded, whatever the order of their cells."""
    newest_s = windows.newest_s(packed)
    packed = windows._fold(packed or windows._adopt(packed), newest_s // windows._pane_s - windows._open_panes)
    _, folded_s, folded, opened = windows._split(packed)
    return [newest_s, folded_s, sorted(CELL.iter_unpack(folded)), sorted(CELL.iter_unpack(opened))]


times = st.integers(0, 3000)
keys = st.integers(1, 5).map(lambda key: 4 * key)  # their two lowest bits are not read
units = st.integers(-50, 50)
event_lists = st.lists(st.tuples(times, keys, units), max_size=80)
crowded = st.lists(
    st.tuples(st.integers(0, 600), st.integers(1, 12).map(lambda key: 4 * key), st.integers(1, 4)),
    min_size=30,
    max_size=120,
)


# --- windows


def test_an_event_is_in_a_window_until_the_window_has_slid_past_its_pane() -> None:
    windows = small()
    packed = windows.add(b"", 425, 28, 3 * UNITS)
    assert windows.view(packed, 425) == {28: (3.0, 3.0, 3.0)}
    assert windows.view(packed, 449) == {28: (3.0, 3.0, 3.0)}
    assert windows.view(packed, 450) == {28: (0.0, 3.0, 3.0)}  # [430, 460)
    assert windows.view(packed, 539) == {28: (0.0, 3.0, 3.0)}
    assert windows.view(packed, 540) == {28: (0.0, 0.0, 3.0)}  # [480, 600)
    assert windows.view(packed, 1199) == {28: (0.0, 0.0, 3.0)}
    assert windows.view(packed, 1200) == {}  # [600, 1500)


def test_the_same_when_later_events_have_folded_it() -> None:
    windows = small()
    for later_s, expected in [(449, (3.0, 3.0, 3.0)), (539, (0.0, 3.0, 3.0)), (1199, (0.0, 0.0, 3.0)), (1200, None)]:
        packed = added(windows, [(425, 28, 3 * UNITS), (later_s - 5, 32, 1), (later_s, 32, 1)])
        assert windows.view(packed, later_s).get(28) == expected


def test_an_event_in_the_grace_period_lands_in_its_own_pane() -> None:
    windows = small()
    in_order = added(windows, [(425, 28, 1), (460, 32, 1)])
    out_of_order = added(windows, [(460, 32, 1), (425, 28, 1)])
    assert settled(windows, in_order) == settled(windows, out_of_order)


def test_a_late_event_lands_in_the_windows_that_still_cover_it() -> None:
    windows = small()
    packed = windows.add(b"", 900, 32, 1)
    packed = added(windows, [(845, 4, UNITS), (610, 8, UNITS), (100, 12, UNITS)], packed)  # 40 s are in time
    assert windows.view(packed, 900)[4] == (0.0, 1.0, 1.0)
    assert windows.view(packed, 900)[8] == (0.0, 0.0, 1.0)
    assert windows.view(packed, 1199)[8] == (0.0, 0.0, 1.0)
    assert 12 in windows.view(packed, 899)
    packed = windows.add(added(windows, [(1200, 32, 1), (1300, 32, 1)]), 100, 12, UNITS)
    assert 12 not in windows.view(packed, 1300)


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


def test_the_default_windows_hold_a_user_in_415_bytes() -> None:
    assert WindowSettings().max_bytes() <= 415


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
    in_order = added(windows, sorted(events))
    other = added(windows, shuffled(events, grace_s, seed))
    assert settled(windows, other) == settled(windows, in_order)
    for at_s in (windows.newest_s(in_order), windows.newest_s(in_order) + 100):
        assert windows.view(other, at_s) == windows.view(in_order, at_s)


@given(st.one_of(event_lists, crowded), st.integers(1, 8))
def test_when_cells_are_folded_does_not_matter(events: list[Event], folded: int) -> None:
    """Read after each event: what waits to be folded weighs what it weighs folded."""
    windows = small(middle=1, long=folded)
    packed = b""
    for event in sorted(events):
        packed = windows.add(packed, *event)
        newest_s = windows.newest_s(packed)
        if packed:
            folded_now = windows._fold(packed, newest_s // 10 - windows._open_panes)
            assert windows.view(folded_now, newest_s) == windows.view(packed, newest_s)


@settings(max_examples=300)
@given(crowded, st.integers(0, 2**32), st.integers(1, 8), st.integers(2, 30))
def test_nor_does_the_order_where_cells_within_the_grace_period_are_folded_early(
    events: list[Event], seed: int, open_cells: int, folded: int
) -> None:
    """None of what is left is then more than happened, in whichever order it came."""
    windows = small(open_cells=open_cells, middle=1, long=folded)
    packed = added(windows, shuffled(events, 40, seed))
    assert len(packed) <= windows.settings.max_bytes()
    at_s = windows.newest_s(packed)
    full = recomputed(windows, events, at_s)
    for key, weights in windows.view(packed, at_s).items():
        assert all(weight <= most for weight, most in zip(weights, full[key], strict=True))


def test_an_event_for_a_pane_that_was_folded_early_is_added_to_its_cell() -> None:
    windows = small(open_cells=1, middle=1, long=3)
    packed = added(windows, [(100, 4 * key, key * UNITS) for key in range(2, 8)])
    folded = windows._split(packed)[2]
    assert folded
    key, _, units = next(CELL.iter_unpack(folded))
    before = len(packed)
    packed = windows.add(packed, 100, key, 1)
    assert len(packed) == before
    assert windows.view(packed, 100)[key - ALL_WINDOWS][0] == (units + 1) / UNITS


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
    events = [(0, 4, 2), (300, 4, 1), (600, 8, 50), (610, 12, 3), (620, 4, 60)]
    packed = added(windows, [*events, (2000, 36, 1)])  # the last has them all folded
    # Over the bound of 4 at the fifth cell: two are left. The 1 of key 4 is added to the older 2, which is to go too.
    assert {key: weights[1] * UNITS for key, weights in windows.view(packed, 2000).items()} == {4: 60, 8: 50, 36: 1}
    events[0] = (0, 4, 70)
    packed = added(windows, [*events, (2000, 36, 1)])
    assert {key: weights[1] * UNITS for key, weights in windows.view(packed, 2000).items()} == {4: 131, 36: 1}


def test_cells_that_have_left_a_window_are_joined_in_the_panes_of_the_next() -> None:
    """45 cells in 3 panes of 300 s: joined they are 9, and none need go from the 20 that there are."""
    windows = small(middle=10, long=10)
    events = [(60 * minute, key, 1 + minute) for minute in range(15) for key in (4, 8, 12)]
    packed = added(windows, [*events, (1000, 36, 1)])
    for at_s in (1000, 1199, 1200, 1499, 1500):
        assert windows.view(packed, at_s) == recomputed(windows, [*events, (1000, 36, 1)], at_s)
    folded = windows._split(packed)[2]
    assert 9 <= len(folded) // CELL.size <= 20


def test_a_cell_is_not_found_across_two_others() -> None:
    """The last of the events looks for bytes that stand at the end of one cell and the beginning of the next."""
    windows = small()
    pane = 435 // 10
    events = [(435, 8, 76 + ALL_WINDOWS), (435, 65_536 + pane - ALL_WINDOWS, 1), (435, 76, 3)]
    assert windows.view(added(windows, events), 435) == recomputed(windows, events, 435)


@pytest.mark.parametrize("idle_s", [65_530, 65_536, 65_540, 3 * 65_536, 2**31])
def test_after_a_long_time_old_panes_are_not_taken_for_new_ones(idle_s: int) -> None:
    """Pane numbers are kept modulo 2**16."""
    windows = Windows(WindowSettings((Window("short", 10, 1, 20), Window("long", 30_000, 1, 20)), 0))
    events = [(1000, 4, 1), (1005, 8, 1), (1100, 12, 1), (1100 + idle_s, 16, 1), (1120 + idle_s, 20, 1)]
    for count in range(1, len(events) + 1):
        packed = added(windows, events[:count])
        at_s = events[count - 1][0]
        assert windows.view(packed, at_s) == recomputed(windows, events[:count], at_s)


def test_a_weight_of_nothing_changes_nothing_and_weights_that_cancel_leave_none() -> None:
    windows = small()
    packed = windows.add(b"", 100, 28, 5)
    assert windows.add(packed, 900, 28, 0) == packed
    assert windows.view(windows.add(packed, 100, 28, -5), 100) == {28: (0.0, 0.0, 0.0)}


def test_a_cell_is_full_at_32_bits() -> None:
    windows = small()
    packed = b""
    for _ in range(2100):
        packed = windows.add(packed, 100, 28, 10**9)
    assert windows.view(packed, 100)[28][0] == (2**31 - 1) / UNITS


def test_weights_are_whole_sixteenths() -> None:
    assert [units_of(weight) for weight in (1.0, -20.0, 0.03, 0.04)] == [16, -320, 0, 1]
    assert [units_of(weight) for weight in (1e300, -1e300, float("inf"), float("nan"))] == [
        MAX_UNITS,
        -MAX_UNITS,
        MAX_UNITS,
        0,
    ]


def test_kinds_of_interests_have_keys_of_their_own() -> None:
    assert interest_key("tea") == key_of("tea") & 0xFFFFFFFC
    assert len({interest_key("tea"), interest_key("tea", "brand"), interest_key("tea", "colour")}) == 3


# --- reach


@given(st.lists(st.tuples(times, keys, units, st.integers(0, 3)), max_size=80))
def test_an_event_counts_in_the_windows_up_to_its_reach(events: list[tuple[int, int, int, int]]) -> None:
    windows = small()
    packed = b""
    for event in events:
        packed = windows.add(packed, *event)
    at_s = windows.newest_s(packed)
    found = windows.view(packed, at_s)
    for column in range(3):
        reaching = [event[:3] for event in events if event[3] >= column]
        expected = {key: weights[column] for key, weights in recomputed(windows, reaching, at_s).items()}
        weights = {key: weights[column] for key, weights in found.items() if weights[column]}
        assert weights == {key: weight for key, weight in expected.items() if weight}


def test_what_reaches_the_smallest_window_only_is_gone_when_it_has_left_it() -> None:
    windows = small(open_cells=3, middle=1, long=1)
    packed = windows.add(b"", 1000, 8, UNITS)
    for number in range(20):
        packed = windows.add(packed, 1010 + 100 * number, 4, UNITS, 0)
        assert windows.view(packed, 1010 + 100 * number)[4] == (1.0, 0.0, 0.0)
        assert windows.view(packed, 1050 + 100 * number).get(4) is None
    assert len(packed) <= windows.settings.max_bytes()
    assert CELL.size * 2 >= len(windows._split(packed)[2])
    late = windows.add(packed, 2000, 12, UNITS, 0)
    assert late == packed


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
        lambda packed: packed[:13] + b"\xff\xff" + packed[15:],
        lambda packed: packed[:1] + bytes(4) + packed[5:],
        lambda packed: packed[:1] + bytes(3) + b"\x01" + packed[5:14],
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
    again = after.add(packed, at_s, 76, UNITS)
    assert struct.unpack_from("<BI", again)[1:] == (20,)
    assert after.view(again, at_s)[76] == (1.0, 1.0)


def test_windows_of_version_1_are_read() -> None:
    """Its head had a pane of the folded cells besides, and the keys of its cells all their 32 bits."""
    head = struct.pack("<BIIIIH", 1, 10, 60, 425, 300, 2)
    cells = [(0xFFFF_FFFF, 300 // 60, 32), (6, 240 // 60, 16), (6, 420 // 10, 48)]
    old = head + b"".join([CELL.pack(*cell) for cell in cells])
    windows = small()
    windows.check(old)
    assert is_sound(old)
    assert windows.newest_s(old) == 420  # when the pane of its newest cell began
    expected = {0xFFFF_FFFC: (0.0, 0.0, 2.0), 4: (3.0, 3.0, 4.0)}
    assert windows.view(old, 425) == expected
    again = windows.add(old, 425, 28, UNITS)
    assert again[0] == 2
    assert windows.view(again, 425) == {**expected, 28: (1.0, 1.0, 1.0)}
    for damaged in (old[:-1], old[:18], old[:17] + b"\xff\xff" + old[19:], old[:5] + bytes(4) + old[9:]):
        assert not is_sound(damaged)
        with pytest.raises(StateCorruptError):
            windows.view(damaged, 425)


def test_changed_sizes_and_bounds_need_no_conversion() -> None:
    before, after = small(middle=20, long=20), small(3, 1, 1)
    packed = added(before, [(10 * i, 4 * i, 1) for i in range(60)])
    assert len(before._split(packed)[2]) // CELL.size > 2
    packed = added(after, [(700 + 10 * i, 4 * i, 1) for i in range(40)], packed)
    assert len(packed) <= after.settings.max_bytes()
    several = added(small(), [(605, 4 * i, 1) for i in range(60)])
    assert len(after.add(several, 606, 8, 1)) <= after.settings.max_bytes()
    assert len(after.add(several, 610, 8, 1)) <= after.settings.max_bytes()


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
