"""What a user's interests weighed in the last half hour, day and month: sliding windows in panes, of event time.

A window of `size_s` seconds slides in steps of its pane: at a time t it is the `size_s / pane_s` panes that end
with the one t is in. Panes begin at multiples of `pane_s` since the epoch (UTC). So the window begins at
``(t // pane_s + 1) * pane_s - size_s`` and is at most one pane shorter than `size_s`, never longer:

    pane_s = 10 min, size_s = 30 min, t = 12:33

    |12:00|12:10|12:20|12:30|12:40
          ^ begin       ^ t

All windows of a user stand in one packed `bytes` of at most `WindowSettings.max_bytes` bytes, made of cells
(interest key, pane, weight). All panes are numbered as those of the smallest window. An event enters the *open* cells;
one of a pane and key that is there already is added to it. A cell is *due* when no admitted event can change it any
more and it has left the smallest window. Now and then the cells that are due are *folded*: put behind the folded ones.
When these are over their bound they are *compacted*: those that have left a window are joined in panes of the next
(two hours, then days), those outside all windows go, and of the rest the smallest, until half the bound is left, each
added to the next older cell of its key, or dropped if there is none. Bounds can therefore hide weight from a window,
or let it go before its time, but a window never holds what lies outside it.

**Reach.** A weight may count in the windows up to a certain one only: what was merely shown says something of this
visit, and nothing of the month. The two lowest bits of a cell's key say which is its last.

**The order of arrival does not matter.** Weights are whole numbers (sums are exact). A cell is due only when its pane
lies more than the grace period before the newest event *of the user*, so an event that comes for it afterwards is
late by the partition's watermark too, which is at least as far. Cells are folded in the order of (pane, key), and
compacted whenever that many were folded, so what compaction leaves is a function of the cells folded so far. *When*
they are folded is a matter of cost: as long as none is compacted, folded and open cells weigh the same. They are
folded before a compaction could be due: when a pane begins, and all cells are more than those that may be folded.
Hence what is read here is a function of the set of events, not of their order, also when bounds make cells go. How
far the watermark had come plays no part.

Over the bound of all (very many interests at once), cells are folded early, the oldest first, until a compaction makes
room. Only there, where cells within the grace period are compacted, may the order decide what is left. It is then
still the same for the same log.

A late event may be added as well: it lands in the windows that still cover it, and nowhere if none does.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise

import msgspec
import numpy as np
import numpy.typing as npt

from state.errors import StateCorruptError, StateError
from state.keys import key_of

I64 = npt.NDArray[np.int64]

VERSION = 2
"""First byte of packed windows. 1: folded cells had panes of their own, and a key all of its 32 bits."""

UNITS = 16
"""Weights are counted in sixteenths: whole numbers add up to the same in any order, floats do not."""
MAX_UNITS = 2**20
"""Most that one event can weigh, in units (65,536 in weight): two thousand such events fit one cell."""

CELL = struct.Struct("<IHi")
"""One cell: interest key and reach, pane number modulo 2**16, weight in units."""
CELL_DTYPE = np.dtype([("key", "<u4"), ("pane", "<u2"), ("units", "<i4")])

MAX_TIME_S = 2**32 - 1
MAX_PANES = 45_000
"""Most panes of the smallest window's in the largest. A pane number modulo 2**16 says which pane is meant: cells are
at most MAX_PANES + _EPOCH_PANES behind the newest of their kind, or 2 * MAX_OPEN_PANES + _EPOCH_PANES."""
MAX_OPEN_PANES = 20_000
"""Most panes of the smallest window and of the grace period."""
_EPOCH_PANES = 10_000
MAX_CELLS = 10_000
MAX_FOLDED_CELLS = 2**16 - 1
"""Their number has 16 bits in the head."""
MAX_WINDOWS = 16
ALL_WINDOWS = 3
"""The reach of a weight that counts in every window, however many there are."""
_NAME = re.compile("[a-z][a-z0-9_]{0,31}")  # it stands in settings, headers of late events and names of features

_HEAD = struct.Struct("<BIIIH")
"""Version, seconds of a pane, times of the user's newest event and of the newest folded cell in seconds, number of
folded cells. The cells follow, the folded ones first."""
_HEAD_DTYPE = np.dtype(
    [("version", "u1"), ("pane_s", "<u4"), ("newest_s", "<u4"), ("folded_s", "<u4"), ("folded", "<u2")]
)
_HEAD_1 = struct.Struct("<BIIIIH")
"""The head of version 1: seconds of an open and of a folded pane."""
_TIME_AT, _TIME_END = 5, 9

_read_form = struct.Struct("<BI8xH").unpack_from  # of the head what its form depends on
_read_brief = struct.Struct("<IIH").unpack_from  # of the head what follows _TIME_AT
_units = struct.Struct("<i")
_read_units, _write_units = _units.unpack_from, _units.pack
_pack_cell = CELL.pack
_HEAD_BYTES = _HEAD.size
_CELL_BYTES = CELL.size
_PANE = 0xFFFF
_KEY = 0xFFFF_FFFC
"""The bits of a cell's key that are the interest's; the two lowest are its reach."""
_KEY_AND_REACH = 0xFFFF_FFFF
_MOST = 2**31 - 1
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400

_Cell = tuple[int, int]
"""number of the pane << 32 | key with reach, and units: sorted, the oldest come first"""


class Window(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One sliding window."""

    name: str
    size_s: int
    """Its length; a multiple of pane_s."""
    pane_s: int
    """The step it slides in; a multiple of the next smaller window's."""
    cells: int
    """(interest, pane) cells, 10 bytes each. The larger windows' are one pool: when more are folded, they are
    compacted. The smallest window's come on top: so many at least are never folded early."""
    emphasis: float = 1.0
    """What a weight in this window counts in an interest's points; an event counts in every window it is in."""


class WindowSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The windows of a user, the smallest first. Raises StateError on values that cannot work."""

    windows: tuple[Window, ...] = (
        # A visit: the half hour of web analytics. Its cells also hold the grace period. Emphasis: what predicted the
        # next category best, of a few tried (tests/bench/interest_quality.py): an event of this visit counts 21 times
        # one of last week, an event of today 5 times.
        Window("session", 30 * _MINUTE_S, 10 * _MINUTE_S, cells=12, emphasis=16.0),
        Window("day", _DAY_S, 2 * _HOUR_S, cells=12, emphasis=4.0),
        Window("month", 30 * _DAY_S, _DAY_S, cells=16, emphasis=1.0),
    )
    grace_s: int = 900
    """How far an event may lie behind the newest and still be counted in all windows; the watermark's too."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.windows) <= MAX_WINDOWS:
            raise StateError(f"state.windows has {len(self.windows)} windows; set 1 to {MAX_WINDOWS}")
        if len({window.name for window in self.windows}) != len(self.windows):
            raise StateError("state.windows names a window twice; give each a name of its own")
        for window in self.windows:
            where = f"state.windows {window.name!r}"
            if not _NAME.fullmatch(window.name):
                raise StateError(f"{where}: is no name for a window; give one of a to z, 0 to 9 and _")
            if window.pane_s < 1 or window.size_s % window.pane_s or window.size_s < window.pane_s:
                raise StateError(f"{where}: size_s {window.size_s} is no multiple of pane_s {window.pane_s}")
            if window.size_s > MAX_TIME_S:
                raise StateError(f"{where}: size_s is {window.size_s}; set {MAX_TIME_S} or less")
            if not 1 <= window.cells <= MAX_CELLS:
                raise StateError(f"{where}: cells is {window.cells}; set 1 to {MAX_CELLS}")
            if not 0.0 <= window.emphasis <= 1e6:
                raise StateError(f"{where}: emphasis is {window.emphasis}; set 0 to 1000000")
        if self.windows[0].size_s // self.windows[0].pane_s > MAX_OPEN_PANES:
            raise StateError(
                f"state.windows {self.windows[0].name!r}: has more than {MAX_OPEN_PANES} panes; set a larger pane_s"
            )
        if self.folded_cells > MAX_FOLDED_CELLS:
            raise StateError(
                f"state.windows has {self.folded_cells} cells beside the smallest window's; set {MAX_FOLDED_CELLS} "
                "in all or less"
            )
        for small, large in pairwise(self.windows):
            if large.pane_s % small.pane_s or large.size_s <= small.size_s:
                raise StateError(
                    f"state.windows {large.name!r}: must be larger than {small.name!r}, with a pane_s that is a "
                    f"multiple of {small.pane_s}"
                )
        pane_s = self.windows[0].pane_s
        if self.windows[-1].size_s // pane_s > MAX_PANES:
            raise StateError(
                f"state.windows {self.windows[-1].name!r}: has more than {MAX_PANES} panes of {pane_s} s, those of the "
                "smallest window; set a larger pane_s there"
            )
        if not 0 <= self.grace_s <= pane_s * MAX_OPEN_PANES:
            raise StateError(f"state.grace_s is {self.grace_s}; set 0 to {pane_s * MAX_OPEN_PANES}")

    def max_bytes(self) -> int:
        """The largest that packed windows can be, whatever the events."""
        return _HEAD.size + _CELL_BYTES * (self.windows[0].cells + self.folded_cells)

    @property
    def folded_cells(self) -> int:
        """Most cells that are folded."""
        return sum(window.cells for window in self.windows[1:] or self.windows)


def interest_key(name: str, kind: str = "") -> int:
    """The key of an interest: a category, or with `kind` a brand or another property. 32 bits, the lowest two 0.

    A category not among the user's cells is taken for one of them with a chance of 40 / 2**30.
    """
    return key_of(f"{kind}\x1f{name}" if kind else name) & _KEY


def units_of(weight: float) -> int:
    """A weight in whole units, halves to the even one; within MAX_UNITS, and 0 for what is no number."""
    units = weight * UNITS
    if -MAX_UNITS <= units <= MAX_UNITS:
        return round(units)
    if units != units:
        return 0
    return MAX_UNITS if units > 0 else -MAX_UNITS


class Views(msgspec.Struct, frozen=True, gc=False):
    """The interests of n users, m in all, sorted by user and key."""

    user: I64
    """[m] which of the n."""
    key: npt.NDArray[np.uint32]
    """[m]"""
    weights: npt.NDArray[np.float64]
    """[m, windows], the windows as in the settings."""
    first_s: I64
    """[m] begin of the oldest pane kept that has the interest: it was not seen before, as far as is remembered."""
    last_s: I64
    """[m] last second of the newest such pane, or the user's newest event if that is earlier: not seen after."""


class Windows:
    """Adds to and reads packed windows, by settings. It holds nothing of any user.

    Every method raises StateCorruptError for bytes that are no packed windows. ``b""`` is a user without events.
    Windows packed under settings with other panes are converted when they are met: each cell as if it had all
    happened when its pane began.
    """

    def __init__(self, settings: WindowSettings) -> None:
        self.settings = settings
        windows = settings.windows
        self._pane_s = windows[0].pane_s
        # Panes that stay open behind the one of the user's newest event: those of the grace period, and those of
        # the smallest window.
        grace = -(-settings.grace_s // self._pane_s)
        self._open_panes = max(grace, windows[0].size_s // self._pane_s - 1)
        self._panes = [(window.size_s // self._pane_s, window.pane_s // self._pane_s) for window in windows]
        self._steps = [(j, self._panes[j + 1][1]) for j in range(len(windows) - 2, -1, -1)]
        self._epoch_s = min(windows[-1].size_s, _EPOCH_PANES * self._pane_s)
        self._open_cells = windows[0].cells
        self._folded_cells = settings.folded_cells
        self._kept_cells = (settings.folded_cells + 1) // 2
        self._much_bytes = _HEAD_BYTES + _CELL_BYTES * settings.folded_cells
        self._most_bytes = settings.max_bytes()
        self._empty = _HEAD.pack(VERSION, self._pane_s, 0, 0, 0)
        self._prefix = self._empty[:_TIME_AT]

    # --- one event

    def add(self, packed: bytes, time_s: int, key: int, units: int, reach: int = ALL_WINDOWS) -> bytes:
        """The windows with one more event: `units` (see `units_of`) of interest in `key` at `time_s`.

        key: `interest_key`; its two lowest bits are not read. reach, 0 to 3: number of the last window that the weight
        counts in, 0 the smallest only; ALL_WINDOWS: in every one.

        Usually an append, or an addition in place; cells are folded when there are many.
        """
        if not units:
            return packed
        if not 0 <= time_s <= MAX_TIME_S:
            time_s = 0 if time_s < 0 else MAX_TIME_S
        if not -MAX_UNITS <= units <= MAX_UNITS:
            units = MAX_UNITS if units > 0 else -MAX_UNITS
        cell_bytes = len(packed) - _HEAD_BYTES
        if cell_bytes < 0 or cell_bytes % _CELL_BYTES or not packed.startswith(self._prefix):
            packed = self._adopt(packed)
            cell_bytes = len(packed) - _HEAD_BYTES
        newest_s, folded_s, folded = _read_brief(packed, _TIME_AT)
        if folded * _CELL_BYTES > cell_bytes:
            raise _corrupt("its cells are cut")
        pane_s = self._pane_s
        pane = time_s // pane_s
        cell = _pack_cell(key & _KEY | reach, pane & _PANE, units)
        newest = newest_s // pane_s
        if pane > newest:
            first_open = pane - self._open_panes
            epoch_s = self._epoch_s
            if len(packed) > self._much_bytes or first_open * pane_s // epoch_s != folded_s // epoch_s:
                packed = self._fold(packed, first_open)
            packed = self._prefix + time_s.to_bytes(4, "little") + packed[_TIME_END:] + cell
        else:
            if pane < newest - self._open_panes:
                if not reach or time_s <= newest_s - self.settings.windows[-1].size_s:
                    return packed  # too late for all its windows
                return self._fold(packed, newest - self._open_panes, [(pane << 32 | key & _KEY | reach, units)])
            place = cell[:6]
            begin = _HEAD_BYTES
            if time_s >= folded_s + pane_s:  # otherwise cells of this pane were folded early, its own perhaps
                begin += _CELL_BYTES * folded
            at = packed.find(place, begin)
            while at >= 0 and (at - begin) % _CELL_BYTES:
                at = packed.find(place, at + 1)
            if at >= 0:
                units += _read_units(packed, at + 6)[0]
                if not -_MOST <= units <= _MOST:
                    units = _cut(units)
                packed = packed[: at + 6] + _write_units(units) + packed[at + 10 :]
            else:
                packed += cell
            if time_s > newest_s:
                packed = self._prefix + time_s.to_bytes(4, "little") + packed[_TIME_END:]
        return packed if len(packed) <= self._most_bytes else self._fold(packed, max(pane, newest) - self._open_panes)

    # --- folding

    def _fold(self, packed: bytes, first_open: int, late: Sequence[_Cell] = ()) -> bytes:
        """Fold the cells before the pane `first_open`, `late`, and of others the oldest if all are too many."""
        newest_s, folded_s, folded, opened = self._split(packed)
        newest = newest_s // self._pane_s
        if len(folded) > self._folded_cells * _CELL_BYTES:  # the bound was lowered since
            folded = self._compact(_unpacked(folded, folded_s // self._pane_s), folded_s)
        due = list(late)
        kept = []
        for key, pane, units in CELL.iter_unpack(opened):
            pane = newest - (newest - pane & _PANE)
            if pane >= first_open:
                kept.append((pane << 32 | key, units))
            elif key & ALL_WINDOWS:  # of the others no window is left
                due.append((pane << 32 | key, units))
        count = len(folded) // _CELL_BYTES + len(due)
        if count + len(kept) > self._folded_cells + self._open_cells:
            kept.sort()
            early = max(self._folded_cells + 1 - count, len(kept) - self._open_cells, 0)
            due += [cell for cell in kept[:early] if cell[0] & ALL_WINDOWS]
            kept = kept[early:]
        due.sort()
        pane_s, epoch_s = self._pane_s, self._epoch_s
        while due:
            # One epoch at a time: a pane must not be so old that its number, modulo 2**16, could be a newer one's.
            next_epoch = (folded_s // epoch_s + 1) * epoch_s // pane_s
            end = bisect_left(due, (next_epoch << 32,))
            if not end:
                at_s = (due[0][0] >> 32) * pane_s
                folded = self._compact(_unpacked(folded, folded_s // pane_s), at_s)
                folded_s = at_s
                continue
            room = self._folded_cells - len(folded) // _CELL_BYTES
            end = min(end, room + 1)
            now, due = due[:end], due[end:]
            last_s = max((now[-1][0] >> 32) * pane_s, folded_s)
            if end > room:
                folded = self._compact(_unpacked(folded, folded_s // pane_s) + now, last_s)
            else:
                folded += _packed(now)
            folded_s = last_s
        return self._join(newest_s, folded_s, folded, _packed(kept))

    def _compact(self, cells: list[_Cell], at_s: int) -> bytes:
        """What is left of folded cells at a time.

        Cells that have left a window are joined in panes of the next one; those outside all their windows go, and so
        do the smallest, of equal ones the oldest, until `_kept_cells` are left: each is added to the next older cell of
        its key, or dropped if there is none.
        """
        at = at_s // self._pane_s
        begins = []  # before begins[j], no window up to j holds a cell: it may be joined in the panes of window j + 1
        begin = at
        for size, step in self._panes:
            begin = min(begin, (at // step + 1) * step - size)
            begins.append(begin << 32)
        recent, first = begins[0], begins[-1]
        ends = [begins[min(reach, len(begins) - 1)] for reach in range(ALL_WINDOWS)]
        coarser = [(begins[j], step) for j, step in self._steps]
        joined: dict[int, int] = {}
        for place, units in cells:
            if place < recent:
                reach = place & ALL_WINDOWS
                if place < first or (reach != ALL_WINDOWS and place < ends[reach]):
                    continue
                for begin, step in coarser:
                    if place < begin:
                        place -= (place >> 32) % step << 32
                        break
            joined[place] = joined[place] + units if place in joined else units
        excess = len(joined) - self._kept_cells
        return _packed(_largest(joined, excess) if excess > 0 else list(joined.items()))

    # --- bytes

    def _split(self, packed: bytes) -> tuple[int, int, bytes, bytes]:
        """Times of the newest event and the newest folded cell, the folded cells, the open cells."""
        newest_s, folded_s, folded = _read_brief(packed, _TIME_AT)
        begin = _HEAD_BYTES + folded * _CELL_BYTES
        if begin > len(packed) or (len(packed) - begin) % _CELL_BYTES:
            raise _corrupt("its cells are cut")
        return newest_s, folded_s, packed[_HEAD_BYTES:begin], packed[begin:]

    def _join(self, newest_s: int, folded_s: int, folded: bytes, opened: bytes) -> bytes:
        return _HEAD.pack(VERSION, self._pane_s, newest_s, folded_s, len(folded) // _CELL_BYTES) + folded + opened

    def _adopt(self, packed: bytes) -> bytes:
        """Windows of these settings from none, from windows of others, or of version 1."""
        if not packed:
            return self._empty
        events: list[tuple[int, int, int]] = []
        for cells, pane_s, last_s, every in _parts(packed):
            newest = last_s // pane_s
            for key, pane, units in CELL.iter_unpack(cells):
                events.append(((newest - ((newest - pane) & _PANE)) * pane_s, key | every, units))
        events.sort()
        adopted = self._empty
        for time_s, key, units in events:
            while units:  # a cell may hold more than an event may weigh
                part = min(max(units, -MAX_UNITS), MAX_UNITS)
                adopted = self.add(adopted, time_s, key, part, key & ALL_WINDOWS)
                units -= part
        return adopted

    def check(self, packed: bytes) -> None:
        """Raise StateCorruptError unless every method can work with these bytes."""
        if not is_sound(packed):
            _parts(packed)  # says what is wrong

    # --- reading

    def newest_s(self, packed: bytes) -> int:
        """Time of the user's newest event; 0 without events."""
        if not packed.startswith(self._prefix) or len(packed) < _HEAD_BYTES:
            packed = self._adopt(packed)
        newest_s: int = _read_brief(packed, _TIME_AT)[0]
        return newest_s

    def view(self, packed: bytes, at_s: int) -> dict[int, tuple[float, ...]]:
        """Weight of each interest by key, in each window at `at_s`; interests in none of them are left out.

        Exact for an `at_s` not before the user's newest event. Before it, panes already folded are missing.
        """
        found = self.views([packed], at_s)
        return {key: tuple(row) for key, row in zip(found.key.tolist(), found.weights.tolist(), strict=True)}

    def views(self, packed: Sequence[bytes], at_s: int | I64) -> Views:
        """As `view`, for many users at once; `at_s` is one time, or one for each of them.

        About 5 us of CPU a user with full windows, in batches of hundreds.
        """
        prefix = self._prefix
        users = [one if one.startswith(prefix) and len(one) >= _HEAD_BYTES else self._adopt(one) for one in packed]
        heads = np.frombuffer(b"".join([one[:_HEAD_BYTES] for one in users]), _HEAD_DTYPE)  # [n]
        cell_bytes = np.array([len(one) for one in users], np.int64) - _HEAD_BYTES
        counts = np.empty((len(users), 2), np.int64)  # [n, folded and open]
        counts[:, 0] = heads["folded"]
        counts[:, 1] = cell_bytes // _CELL_BYTES - counts[:, 0]
        if (cell_bytes % _CELL_BYTES).any() or (counts < 0).any():
            raise _corrupt("its cells are cut")
        cells = np.frombuffer(b"".join([one[_HEAD_BYTES:] for one in users]), CELL_DTYPE)  # [c]

        newest_s = heads["newest_s"].astype(np.int64)  # [n]
        newest = np.empty((len(users), 2), np.int64)  # [n, folded and open], in panes
        newest[:, 0] = heads["folded_s"] // self._pane_s
        newest[:, 1] = newest_s // self._pane_s
        cell_newest = np.repeat(newest.ravel(), counts.ravel())  # [c]
        user = np.repeat(np.arange(len(users)), counts.sum(1))
        begin_s = (cell_newest - ((cell_newest - cells["pane"]) & _PANE)) * self._pane_s  # [c]

        now_s = np.broadcast_to(np.asarray(at_s, np.int64), (len(users),))
        size_s = np.array([window.size_s for window in self.settings.windows], np.int64)  # [w]
        step_s = np.array([window.pane_s for window in self.settings.windows], np.int64)
        window_s = (now_s[:, None] // step_s + 1) * step_s - size_s  # [n, w]
        inside = (begin_s[:, None] >= window_s[user]) & (begin_s <= now_s[user])[:, None]  # [c, w]
        reach = cells["key"] & ALL_WINDOWS
        inside &= (np.arange(len(size_s)) <= reach[:, None]) | (reach == ALL_WINDOWS)[:, None]

        chosen = np.flatnonzero(inside.any(1))
        group = (user[chosen] << 32) | (cells["key"][chosen] & _KEY)
        order = np.argsort(group, kind="stable")
        chosen, group = chosen[order], group[order]
        if not len(chosen):
            none = np.empty(0, np.int64)
            return Views(none, np.empty(0, np.uint32), np.empty((0, len(size_s))), none, none)
        starts = np.flatnonzero(np.append(True, group[1:] != group[:-1]))  # [m]
        rows = chosen[starts]
        units = cells["units"][chosen].astype(np.int64)[:, None] * inside[chosen]  # [chosen, w]
        cell_pane_s = np.full(len(cells), self._pane_s, np.int64)
        for column in range(len(size_s) - 1):
            # Outside the windows up to this one a cell may be a joined one, if it begins where those begin.
            joined = (begin_s < window_s[:, : column + 1].min(1)[user]) & (begin_s % step_s[column + 1] == 0)
            cell_pane_s = np.where(joined, step_s[column + 1], cell_pane_s)
        end_s = np.minimum(begin_s + cell_pane_s - 1, newest_s[user])  # [c]
        return Views(
            user=user[rows],
            key=cells["key"][rows] & np.uint32(_KEY),
            weights=np.add.reduceat(units, starts, axis=0) / UNITS,
            first_s=np.minimum.reduceat(begin_s[chosen], starts),
            last_s=np.maximum.reduceat(end_s[chosen], starts),
        )


def _packed(cells: Sequence[_Cell]) -> bytes:
    return b"".join(
        [
            _pack_cell(place & _KEY_AND_REACH, place >> 32 & _PANE, units if -_MOST <= units <= _MOST else _cut(units))
            for place, units in cells
        ]
    )


def _cut(units: int) -> int:
    return _MOST if units > 0 else -_MOST


def _unpacked(cells: bytes, newest: int) -> list[_Cell]:
    """Cells that are not newer than the pane `newest`."""
    return [(newest - (newest - pane & _PANE) << 32 | key, units) for key, pane, units in CELL.iter_unpack(cells)]


def _largest(cells: dict[int, int], excess: int) -> list[_Cell]:
    """The cells without the `excess` smallest, which are added to the next older one of their key."""
    sizes = sorted(map(abs, cells.values()))
    least = sizes[excess]
    equals = bisect_right(sizes, least) - excess  # so many of that size stay, the newest
    carried: dict[int, int] = {}
    kept: list[_Cell] = []
    for place in sorted(cells, reverse=True):
        units = cells[place]
        size = abs(units)
        key = place & _KEY_AND_REACH
        if key in carried:
            units += carried.pop(key)
        if size > least:
            kept.append((place, units))
        elif size == least and equals:
            equals -= 1
            kept.append((place, units))
        else:
            carried[key] = units
    return kept


def _parts(packed: bytes) -> list[tuple[bytes, int, int, int]]:
    """Of packed windows of whatever settings or version the folded and the open cells: the cells, seconds of their
    panes, time of the newest, the bits that their keys lack."""
    version = packed[0]
    head = {1: _HEAD_1, VERSION: _HEAD}.get(version)
    if head is None:
        raise _corrupt(f"it begins with version {version}, not {VERSION}")
    if len(packed) < head.size:
        raise _corrupt("its head is cut")
    _, pane_s, *rest, newest_s, folded_s, folded = head.unpack_from(packed)
    folded_pane_s = rest[0] if rest else pane_s
    if not pane_s or not folded_pane_s:
        raise _corrupt("it has a pane of 0 seconds")
    begin = head.size + folded * _CELL_BYTES
    if begin > len(packed) or (len(packed) - begin) % _CELL_BYTES:
        raise _corrupt("its cells are cut")
    every = ALL_WINDOWS if version == 1 else 0
    return [(packed[head.size : begin], folded_pane_s, folded_s, every), (packed[begin:], pane_s, newest_s, every)]


def _corrupt(what: str) -> StateCorruptError:
    return StateCorruptError(
        f"a user's windows cannot be read: {what}. The store or the changelog was damaged or written by a newer "
        "Driftline: stop the worker, delete its data folder (it is rebuilt from the changelog) and start it again; "
        "if the error returns, set worker.corrupt_state = rebuild: the user's state is then made anew from the log."
    )


def is_sound(packed: bytes) -> bool:
    """Whether these bytes have the form of packed windows, of whatever settings: cheap, for every state read."""
    cells = len(packed) - _HEAD_BYTES
    if cells >= 0:
        version, pane_s, folded = _read_form(packed)
        if version == VERSION:
            return pane_s > 0 and cells % _CELL_BYTES == 0 and folded * _CELL_BYTES <= cells
    if not packed:
        return True
    try:
        _parts(packed)
    except StateCorruptError:
        return False
    return True
