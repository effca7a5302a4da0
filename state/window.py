"""What a user's interests weighed in the last half hour, day and month: sliding windows in panes, of event time.

A window of `size_s` seconds slides in steps of its pane: at a time t it is the `size_s / pane_s` panes that end
with the one t is in. Panes begin at multiples of `pane_s` since the epoch (UTC). So the window begins at
``(t // pane_s + 1) * pane_s - size_s`` and is at most one pane shorter than `size_s`, never longer:

    pane_s = 10 min, size_s = 30 min, t = 12:33

    |12:00|12:10|12:20|12:30|12:40
          ^ begin       ^ t

All windows of a user stand in one packed `bytes` of at most `WindowSettings.max_bytes` bytes, made of cells
(interest key, pane, weight). An event enters the *open* cells, whose panes are those of the smallest window. A
cell that no admitted event can change any more, and that has left the smallest window, is *folded*: added to a
cell of the second window's panes (2 hours). Now and then, to make room, folded cells that have left a
window are joined in the panes of the next (days), and those outside all windows go.

**The order of arrival does not matter.** Weights are whole numbers (sums are exact), open cells of one pane and
key are added together, and cells are folded in the order of (pane, key); what a fold does depends on the times of
the cells folded so far and on nothing else. A cell is folded only when its pane lies more than the grace period
before the newest event *of the user*, so an event that comes for it afterwards is late by the partition's
watermark too, which is at least as far. Hence what stands here is a function of the set of events, not of their
order, also when bounds make cells go. How far the watermark had come plays no part.

**Bounds.** When a new pane begins and folded cells take more than seven eighths of their bound, or when they are
over it: the smallest go, until three quarters are taken, each added to the next older cell of its key, or dropped if
there is none. Bounds can therefore hide weight from a window, or let it go before its time, but a
window never holds what lies outside it. Open cells over their bound (very many interests in half an hour): the
oldest are folded early. Which ones these are does not depend on the order of arrival either; only where cells
within the grace period are folded early *and* folded cells go may the order decide which. What is left is then
still the same for the same log.

A late event may be added as well: it lands in the windows that still cover it, and nowhere if none does.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from itertools import accumulate, pairwise

import msgspec
import numpy as np
import numpy.typing as npt

from state.errors import StateCorruptError, StateError
from state.keys import key_of

I64 = npt.NDArray[np.int64]

VERSION = 1
"""First byte of packed windows. Raised when old bytes can no longer be read as they are."""

UNITS = 16
"""Weights are counted in sixteenths: whole numbers add up to the same in any order, floats do not."""
MAX_UNITS = 2**20
"""Most that one event can weigh, in units (65,536 in weight): two thousand such events fit one cell."""

CELL = struct.Struct("<IHi")
"""One cell: interest key, pane number modulo 2**16, weight in units."""
CELL_DTYPE = np.dtype([("key", "<u4"), ("pane", "<u2"), ("units", "<i4")])

MAX_TIME_S = 2**32 - 1
MAX_PANES = 2**15
"""Most panes of a window, so that a pane number modulo 2**16 says which pane is meant."""
MAX_CELLS = 10_000
MAX_FOLDED_CELLS = 2**16 - 1
"""Their number has 16 bits in the head."""
MAX_WINDOWS = 16
_NAME = re.compile("[a-z][a-z0-9_]{0,31}")  # it stands in settings, headers of late events and names of features

_HEAD = struct.Struct("<BIIIIH")
"""Version, seconds of an open and of a folded pane, times of the user's newest event and of the newest folded cell
in seconds, number of folded cells. The cells follow, the folded ones first."""
_HEAD_DTYPE = np.dtype(
    [("version", "u1"), ("panes", "<u4", (2,)), ("newest_s", "<u4"), ("folded_s", "<u4"), ("folded", "<u2")]
)
_BRIEF = struct.Struct("<I4xH")
"""Of the head the newest event and the number of folded cells; they begin at _TIME_AT."""
_TIME_AT, _TIME_END = 9, 13

_units = struct.Struct("<i")
_read_units, _write_units = _units.unpack_from, _units.pack
_HEAD_BYTES = _HEAD.size
_CELL_BYTES = CELL.size
_PANE = 0xFFFF
_KEY = 0xFFFF_FFFF
_MOST = 2**31 - 1
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400

_Cell = tuple[int, int, int]
"""pane or time, key, units"""


class Window(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One sliding window."""

    name: str
    size_s: int
    """Its length; a multiple of pane_s."""
    pane_s: int
    """The step it slides in; a multiple of the next smaller window's."""
    cells: int
    """Most (interest, pane) cells kept, 10 bytes each: the smallest window's are the open ones, so many different
    interests in half an hour; the others' are one pool."""
    emphasis: float = 1.0
    """What a weight in this window counts in an interest's points; an event counts in every window it is in."""


class WindowSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The windows of a user, the smallest first. Raises StateError on values that cannot work."""

    windows: tuple[Window, ...] = (
        # A visit: the half hour of web analytics. Its cells also hold the grace period. Emphasis: what predicted the
        # next category best, of a few tried (tests/bench/interest_quality.py): an event of this visit counts 21 times
        # one of last week, an event of today 5 times.
        Window("session", 30 * _MINUTE_S, 10 * _MINUTE_S, cells=14, emphasis=16.0),
        Window("day", _DAY_S, 2 * _HOUR_S, cells=10, emphasis=4.0),
        Window("month", 30 * _DAY_S, _DAY_S, cells=14, emphasis=1.0),
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
            if window.size_s // window.pane_s > MAX_PANES or window.size_s > MAX_TIME_S:
                raise StateError(f"{where}: has more than {MAX_PANES} panes; set a larger pane_s")
            if not 1 <= window.cells <= MAX_CELLS:
                raise StateError(f"{where}: cells is {window.cells}; set 1 to {MAX_CELLS}")
            if not 0.0 <= window.emphasis <= 1e6:
                raise StateError(f"{where}: emphasis is {window.emphasis}; set 0 to 1000000")
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
        if self.windows[-1].size_s // self._folded_pane_s() > MAX_PANES:
            raise StateError(
                f"state.windows {self.windows[-1].name!r}: has more than {MAX_PANES} panes of "
                f"{self._folded_pane_s()} s, those of the second window; set a larger pane_s there"
            )
        if not 0 <= self.grace_s <= self.windows[0].pane_s * (MAX_PANES - 1):
            raise StateError(f"state.grace_s is {self.grace_s}; set 0 to {self.windows[0].pane_s * (MAX_PANES - 1)}")

    def max_bytes(self) -> int:
        """The largest that packed windows can be, whatever the events."""
        return _HEAD.size + _CELL_BYTES * (self.windows[0].cells + self.folded_cells)

    @property
    def folded_cells(self) -> int:
        """Most cells behind the open ones."""
        return sum(window.cells for window in self.windows[1:] or self.windows)

    def _folded_pane_s(self) -> int:
        return self.windows[min(1, len(self.windows) - 1)].pane_s


def interest_key(name: str, kind: str = "") -> int:
    """The 32-bit key of an interest: a category, or with `kind` a brand or another property.

    A category not among the user's cells is taken for one of them with a chance of 60 / 2**32.
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
        self._open_pane_s = windows[0].pane_s
        self._pane_s = settings._folded_pane_s()
        # Panes that stay open behind the one of the user's newest event: those of the grace period, and those of
        # the smallest window. A single window is read from its folded cells as well.
        grace = -(-settings.grace_s // self._open_pane_s)
        smallest = windows[0].size_s // self._open_pane_s - 1
        self._reach = max(grace, smallest) if len(windows) > 1 else grace
        self._longest_s = windows[-1].size_s
        self._open_bytes = _CELL_BYTES * windows[0].cells
        self._folded_bytes = _CELL_BYTES * settings.folded_cells
        self._kept_cells = settings.folded_cells - settings.folded_cells // 4
        self._much_bytes = _CELL_BYTES * (settings.folded_cells - settings.folded_cells // 8)
        self._prefix = _HEAD.pack(VERSION, self._open_pane_s, self._pane_s, 0, 0, 0)[:_TIME_AT]
        self._empty = _HEAD.pack(VERSION, self._open_pane_s, self._pane_s, 0, 0, 0)

    # --- one event

    def add(self, packed: bytes, time_s: int, key: int, units: int) -> bytes:
        """The windows with one more event: `units` (see `units_of`) of interest in `key` at `time_s`.

        Usually an append, or an addition in place; cells are folded when the event is the user's first in a pane.
        """
        if not units:
            return packed
        if not 0 <= time_s <= MAX_TIME_S:
            time_s = 0 if time_s < 0 else MAX_TIME_S
        if not -MAX_UNITS <= units <= MAX_UNITS:
            units = MAX_UNITS if units > 0 else -MAX_UNITS
        if not packed.startswith(self._prefix) or len(packed) < _HEAD_BYTES:
            packed = self._adopt(packed)
        newest_s, folded = _BRIEF.unpack_from(packed, _TIME_AT)
        pane_s = self._open_pane_s
        pane = time_s // pane_s
        if time_s > newest_s:
            newest = newest_s // pane_s
            if pane != newest and len(packed) > _HEAD_BYTES:
                packed = self._fold_due(packed, newest, pane - self._reach)
                newest_s, folded = _BRIEF.unpack_from(packed, _TIME_AT)
            head = self._prefix + time_s.to_bytes(4, "little")
        elif pane < newest_s // pane_s - self._reach:
            return self._fold_late(packed, time_s, key & _KEY, units)
        else:
            head = packed[:_TIME_END]
        cell = CELL.pack(key & _KEY, pane & _PANE, units)
        place = cell[:6]
        begin = _HEAD_BYTES + _CELL_BYTES * folded
        open_bytes = len(packed) - begin
        if open_bytes < 0 or open_bytes % _CELL_BYTES:
            raise _corrupt("its cells are cut")
        at = packed.find(place, begin)
        while at >= 0 and (at - begin) % _CELL_BYTES:
            at = packed.find(place, at + 1)
        if at >= 0:
            units += _read_units(packed, at + 6)[0]
            if not -_MOST <= units <= _MOST:
                units = _MOST if units > 0 else -_MOST
            return head + packed[_TIME_END : at + 6] + _write_units(units) + packed[at + 10 :]
        packed = head + packed[_TIME_END:] + cell
        return self._fold_early(packed) if open_bytes >= self._open_bytes else packed

    # --- folding: when the user's first event in a pane comes

    def _fold_due(self, packed: bytes, newest: int, border: int) -> bytes:
        """Fold the open cells before the pane `border`; `newest` is the pane of the user's newest event so far."""
        newest_s, folded_s, folded, opened = self._split(packed)
        if newest >= border:
            reach = newest - border
            kept: list[bytes] = []
            due: list[_Cell] = []
            for at, (key, pane, units) in enumerate(CELL.iter_unpack(opened)):
                age = (newest - pane) & _PANE
                if age > reach:
                    due.append((newest - age, key, units))
                else:
                    kept.append(opened[at * _CELL_BYTES : (at + 1) * _CELL_BYTES])
            if not due:
                return packed
            opened = b"".join(kept)
        else:
            due = [(newest - ((newest - pane) & _PANE), key, units) for key, pane, units in CELL.iter_unpack(opened)]
            opened = b""
        due.sort()
        pane_s = self._open_pane_s
        for pane, key, units in due:
            folded_s, folded = self._fold(folded_s, folded, pane * pane_s, key, units)
        return self._join(newest_s, folded_s, folded, opened)

    def _fold_early(self, packed: bytes) -> bytes:
        """Fold the oldest open cells until the others are within their bound."""
        newest_s, folded_s, folded, opened = self._split(packed)
        newest = newest_s // self._open_pane_s
        while len(opened) > self._open_bytes:
            cells = [(newest - ((newest - pane) & _PANE), key, units) for key, pane, units in CELL.iter_unpack(opened)]
            oldest = min(cells)
            at = cells.index(oldest) * _CELL_BYTES
            opened = opened[:at] + opened[at + _CELL_BYTES :]
            pane, key, units = oldest
            folded_s, folded = self._fold(folded_s, folded, pane * self._open_pane_s, key, units)
        return self._join(newest_s, folded_s, folded, opened)

    def _fold_late(self, packed: bytes, time_s: int, key: int, units: int) -> bytes:
        """Fold an event that comes after its grace period into the windows that still cover it."""
        newest_s, folded_s, folded, opened = self._split(packed)
        folded_s, folded = self._fold(folded_s, folded, time_s, key, units)
        return self._join(newest_s, folded_s, folded, opened)

    def _fold(self, folded_s: int, folded: bytes, time_s: int, key: int, units: int) -> tuple[int, bytes]:
        """Add a weight at `time_s` to the folded cells; the new newest folded time, and the cells."""
        if time_s > folded_s:
            # Between panes rather than in the middle of one, where cells that arrive out of order may be missing
            # yet; and before a pane is so old that its number, modulo 2**16, could be a newer one's.
            if time_s // self._pane_s != folded_s // self._pane_s and (
                len(folded) > self._much_bytes or time_s // self._longest_s != folded_s // self._longest_s
            ):
                folded = self._compact(folded_s, folded, time_s)
            folded_s = time_s
        elif time_s < folded_s - self._longest_s and time_s < min(self._begins(folded_s)):
            return folded_s, folded
        cell = CELL.pack(key, time_s // self._pane_s & _PANE, units)
        place = cell[:6]
        at = folded.find(place)
        while at >= 0 and at % _CELL_BYTES:
            at = folded.find(place, at + 1)
        if at >= 0:
            units += _read_units(folded, at + 6)[0]
            if not -_MOST <= units <= _MOST:
                units = _MOST if units > 0 else -_MOST
            return folded_s, folded[: at + 6] + _write_units(units) + folded[at + 10 :]
        folded += cell
        if len(folded) > self._folded_bytes:
            folded = self._compact(folded_s, folded, folded_s)
        return folded_s, folded

    def _begins(self, at_s: int) -> list[int]:
        """When each window begins at a time."""
        return [(at_s // window.pane_s + 1) * window.pane_s - window.size_s for window in self.settings.windows]

    def _compact(self, folded_s: int, folded: bytes, time_s: int) -> bytes:
        """Join the cells that have left a window in panes of the next one, drop those outside all, keep the bound.

        `folded_s` is the newest time in the cells, `time_s` the one that the windows are looked at.
        """
        pane_s = self._pane_s
        newest = folded_s // pane_s
        windows = self.settings.windows
        # Before begins[j], no window up to j holds a cell: it may be joined in the panes of window j + 1.
        begins = list(accumulate(self._begins(time_s), min))
        coarser = [(begins[j], windows[j + 1].pane_s) for j in range(len(windows) - 2, 0, -1)]
        joined: dict[tuple[int, int], int] = {}
        first_s, final_s = begins[-1], begins[1] if coarser else begins[-1]
        for key, pane, units in CELL.iter_unpack(folded):
            begin_s = (newest - ((newest - pane) & _PANE)) * pane_s
            if begin_s < final_s:
                if begin_s < first_s:
                    continue
                for border_s, coarse_s in coarser:
                    if begin_s < border_s:
                        begin_s -= begin_s % coarse_s
                        break
            place = (key, begin_s)
            joined[place] = joined.get(place, 0) + units
        if len(joined) > self._kept_cells:
            joined = _smallest_gone(joined, self._kept_cells)
        return b"".join(
            [
                CELL.pack(key, begin_s // pane_s & _PANE, max(-_MOST, min(units, _MOST)))
                for (key, begin_s), units in joined.items()
            ]
        )

    # --- bytes

    def _split(self, packed: bytes) -> tuple[int, int, bytes, bytes]:
        """Times of the newest event and the newest folded cell, the folded cells, the open cells."""
        _, _, _, newest_s, folded_s, folded = _HEAD.unpack_from(packed)
        begin = _HEAD_BYTES + folded * _CELL_BYTES
        if begin > len(packed) or (len(packed) - begin) % _CELL_BYTES:
            raise _corrupt("its cells are cut")
        return newest_s, folded_s, packed[_HEAD_BYTES:begin], packed[begin:]

    def _join(self, newest_s: int, folded_s: int, folded: bytes, opened: bytes) -> bytes:
        head = _HEAD.pack(VERSION, self._open_pane_s, self._pane_s, newest_s, folded_s, len(folded) // _CELL_BYTES)
        return head + folded + opened

    def _adopt(self, packed: bytes) -> bytes:
        """Windows of these settings from none, or from windows of others."""
        if not packed:
            return self._empty
        if packed[0] != VERSION:
            raise _corrupt(f"it begins with version {packed[0]}, not {VERSION}")
        if len(packed) < _HEAD_BYTES:
            raise _corrupt("its head is cut")
        newest_s, folded_s, folded, opened = self._split(packed)
        _, open_pane_s, pane_s, *_ = _HEAD.unpack_from(packed)
        if not open_pane_s or not pane_s:
            raise _corrupt("it has a pane of 0 seconds")
        events: list[_Cell] = []
        for cells, each_s, last_s in ((folded, pane_s, folded_s), (opened, open_pane_s, newest_s)):
            newest = last_s // each_s
            for key, pane, units in CELL.iter_unpack(cells):
                events.append(((newest - ((newest - pane) & _PANE)) * each_s, key, units))
        events.sort()
        adopted = self._empty
        for time_s, key, units in events:
            while units:  # a cell may hold more than an event may weigh
                part = min(max(units, -MAX_UNITS), MAX_UNITS)
                adopted = self.add(adopted, time_s, key, part)
                units -= part
        return adopted

    def check(self, packed: bytes) -> None:
        """Raise StateCorruptError unless every method can work with these bytes."""
        if not is_sound(packed):
            self._adopt(packed)  # says what is wrong
            self._split(packed)

    # --- reading

    def newest_s(self, packed: bytes) -> int:
        """Time of the user's newest event; 0 without events."""
        if not packed.startswith(self._prefix) or len(packed) < _HEAD_BYTES:
            packed = self._adopt(packed)
        newest_s: int = _BRIEF.unpack_from(packed, _TIME_AT)[0]
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
        newest[:, 1] = newest_s // self._open_pane_s
        each = counts.ravel()
        cell_newest = np.repeat(newest.ravel(), each)  # [c]
        cell_pane_s = np.repeat(np.tile(np.array([self._pane_s, self._open_pane_s], np.int64), len(users)), each)
        user = np.repeat(np.arange(len(users)), counts.sum(1))
        begin_s = (cell_newest - ((cell_newest - cells["pane"]) & _PANE)) * cell_pane_s  # [c]

        now_s = np.broadcast_to(np.asarray(at_s, np.int64), (len(users),))
        size_s = np.array([window.size_s for window in self.settings.windows], np.int64)  # [w]
        step_s = np.array([window.pane_s for window in self.settings.windows], np.int64)
        window_s = (now_s[:, None] // step_s + 1) * step_s - size_s  # [n, w]
        inside = (begin_s[:, None] >= window_s[user]) & (begin_s <= now_s[user])[:, None]  # [c, w]

        chosen = np.flatnonzero(inside.any(1))
        group = (user[chosen] << 32) | cells["key"][chosen]
        order = np.argsort(group, kind="stable")
        chosen, group = chosen[order], group[order]
        if not len(chosen):
            none = np.empty(0, np.int64)
            return Views(none, np.empty(0, np.uint32), np.empty((0, len(size_s))), none, none)
        starts = np.flatnonzero(np.append(True, group[1:] != group[:-1]))  # [m]
        rows = chosen[starts]
        units = cells["units"][chosen].astype(np.int64)[:, None] * inside[chosen]  # [chosen, w]
        for column in range(1, len(size_s) - 1):
            # Outside the windows up to this one a cell may be a joined one, if it begins where those begin.
            joined = (begin_s < window_s[:, : column + 1].min(1)[user]) & (begin_s % step_s[column + 1] == 0)
            cell_pane_s = np.where(joined, step_s[column + 1], cell_pane_s)
        end_s = np.minimum(begin_s + cell_pane_s - 1, newest_s[user])  # [c]
        return Views(
            user=user[rows],
            key=cells["key"][rows],
            weights=np.add.reduceat(units, starts, axis=0) / UNITS,
            first_s=np.minimum.reduceat(begin_s[chosen], starts),
            last_s=np.maximum.reduceat(end_s[chosen], starts),
        )


def _smallest_gone(joined: dict[tuple[int, int], int], most: int) -> dict[tuple[int, int], int]:
    """The `most` largest of the cells by (key, time); the others are added to the next older cell of their key.

    Of equal ones the oldest go; what has no older one is dropped.
    """
    ranked = sorted([(abs(units), begin_s, key) for (key, begin_s), units in joined.items()])
    gone = {(key, begin_s) for _, begin_s, key in ranked[: len(ranked) - most]}
    kept: dict[tuple[int, int], int] = {}
    carried, carried_key = 0, -1
    for place in sorted(joined, reverse=True):  # key by key, the newest first
        if place[0] != carried_key:
            carried, carried_key = 0, place[0]
        carried += joined[place]
        if place not in gone:
            kept[place] = carried
            carried = 0
    return kept


def _corrupt(what: str) -> StateCorruptError:
    return StateCorruptError(
        f"a user's windows cannot be read: {what}. The store or the changelog was damaged or written by a newer "
        "Driftline: stop the worker, delete its data folder (it is rebuilt from the changelog) and start it again; "
        "if the error returns, set worker.corrupt_state = rebuild: the user's state is then made anew from the log."
    )


def is_sound(packed: bytes) -> bool:
    """Whether these bytes have the form of packed windows, of whatever settings: cheap, for every state read."""
    if not packed:
        return True
    if len(packed) < _HEAD_BYTES or packed[0] != VERSION:
        return False
    _, open_pane_s, pane_s, _, _, folded = _HEAD.unpack_from(packed)
    cell_bytes = len(packed) - _HEAD_BYTES
    return bool(open_pane_s and pane_s) and cell_bytes % _CELL_BYTES == 0 and folded * _CELL_BYTES <= cell_bytes
