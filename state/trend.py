"""What is popular now, in one partition of the log: deterministic, and rebuilt from the changelog.

A list must not depend on how the log was cut into chunks, so lists never use the running counts. The log is
divided into epochs of `refresh_events` offsets, and a list made at an offset uses the *snapshot* of its epoch:
the counts of all earlier epochs.

    offset   0 ........ 1023 | 1024 ........ 2047 | 2048 ...
    epoch           0        |          1         |    2
    snapshot    (nothing)    |  events of epoch 0 |  events of epochs 0 and 1

The changelog gets the whole snapshot at each border, and between borders a small record for each chunk with the
events of that chunk; loading applies those events again, one by one, so that even the last bit of each sum is
that of a process that never stopped.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from state.decay import REBASE_AFTER_HALF_LIVES, bounded_weight, growth
from state.errors import StateCorruptError

U64 = npt.NDArray[np.uint64]
F64 = npt.NDArray[np.float64]

SNAPSHOT_KEY = b"\0trend"
"""Changelog key of the snapshot. A user's key never begins with a zero byte."""

MAX_ITEMS = 20_000
"""Items kept in a snapshot: its record then has 320 kB, below the megabyte that brokers take by default."""

MAX_DELTA_EVENTS = 20_000
"""Events of a delta's record, 480 kB: an event may have a thousand items, and a chunk many such events."""

_VERSION = 1
_BEFORE_ALL = -(2**62)
"""The epoch of a partition of which nothing was read. Offsets may be below 0: see stream.replay.backfill."""
_HEAD = struct.Struct("<BqIqqI")
"""Of both records: version, epoch, offsets of an epoch, reference time and newest time in ms, number of entries."""
_EVENT = struct.Struct("<Qdq")
"""One event of a delta: item key, weight, time in ms."""
_COUNT = np.dtype([("key", "<u8"), ("amount", "<f8")])
"""One item of a snapshot."""


def delta_key(index: int) -> bytes:
    """Changelog key of the delta number `index` since the last snapshot."""
    return b"%s/%d" % (SNAPSHOT_KEY, index)


class Trend:
    """Decayed popularity of one partition.

    Amounts are forward-decayed (state.decay) over event time. Only weights above 0 count: popularity is what
    people want, and its opposite is no popularity below zero.
    """

    def __init__(self, half_life_s: float, refresh_events: int) -> None:
        if half_life_s <= 0 or not 1 <= refresh_events < 2**32:
            raise ValueError(f"half_life_s {half_life_s} and refresh_events {refresh_events} must be above 0")
        self.half_life_s = half_life_s
        self.refresh_events = refresh_events
        self.epoch = _BEFORE_ALL
        self.snapshot_keys: U64 = np.empty(0, np.uint64)
        """Keys of the snapshot's items, in order of arrival."""
        self.snapshot_amounts: F64 = np.empty(0, np.float64)
        """Decayed weight of each of them at `snapshot_time_ms`, from all epochs before `epoch`."""
        self._places: dict[int, int] = {}  # where in the snapshot an item is
        self.snapshot_time_ms = 0
        self.version = 0
        """Changes whenever `snapshot` does, so that arrays made from it can be kept."""
        self._half_life_ms = 1000.0 * half_life_s
        self._next_epoch_offset = (_BEFORE_ALL + 1) * refresh_events
        self._pending: dict[int, float] = {}  # amounts of this epoch, at reference time _pending_ref_ms
        self._pending_ref_ms = 0
        self._newest_ms = 0
        self._undrained: list[tuple[int, float, int]] = []  # events since the last drain or border
        self._deltas = 0  # delta records written since the last snapshot
        self._border = False  # a border was passed since the last drain

    @property
    def snapshot(self) -> dict[int, float]:
        """Decayed weight of each item by key."""
        return dict(zip(self.snapshot_keys.tolist(), self.snapshot_amounts.tolist(), strict=True))

    def epoch_of(self, offset: int) -> int:
        """The epoch that an offset belongs to."""
        return offset // self.refresh_events

    def enter(self, offset: int) -> None:
        """Move on to the epoch of `offset`, if it is not there yet: the snapshot takes in what was counted.

        To be called before a list is made at `offset`; `add` does it by itself.
        """
        epoch = offset // self.refresh_events
        if epoch <= self.epoch:
            return
        self._begin(epoch)
        if self._pending:
            self._take_in()
            self._border = True
            self._undrained.clear()

    def _begin(self, epoch: int) -> None:
        self.epoch = epoch
        self._next_epoch_offset = (epoch + 1) * self.refresh_events

    def add(self, offset: int, item: int, weight: float, time_ms: int) -> None:
        """Count `weight` for an item. Offsets must not go back."""
        if offset >= self._next_epoch_offset:
            self.enter(offset)
        if weight > 0.0:
            self._count(item, weight, time_ms)
            self._undrained.append((item, weight, time_ms))

    def _count(self, item: int, weight: float, time_ms: int) -> None:
        if not self._pending:
            self._pending_ref_ms = time_ms
        exponent = (time_ms - self._pending_ref_ms) / self._half_life_ms
        if exponent > REBASE_AFTER_HALF_LIVES:
            factor = 2.0**-exponent
            self._pending = {key: amount * factor for key, amount in self._pending.items()}
            self._pending_ref_ms = time_ms
            exponent = 0.0
        amount = bounded_weight(weight) * 2.0**exponent
        self._pending[item] = self._pending.get(item, 0.0) + amount
        if time_ms > self._newest_ms:
            self._newest_ms = time_ms

    def _take_in(self) -> None:
        """snapshot := snapshot + pending, both decayed to the newest event's time."""
        old = growth(self.snapshot_time_ms / 1000, self._newest_ms / 1000, self.half_life_s)
        new = growth(self._pending_ref_ms / 1000, self._newest_ms / 1000, self.half_life_s)
        places = self._places
        added = [key for key in self._pending if key not in places]
        for key in added:
            places[key] = len(places)
        keys = np.append(self.snapshot_keys, np.array(added, np.uint64))
        amounts = np.append(self.snapshot_amounts * old, np.zeros(len(added)))
        at = np.array([places[key] for key in self._pending], np.int64)
        amounts[at] += np.array(list(self._pending.values())) * new
        if len(keys) > MAX_ITEMS:
            kept = np.lexsort((keys, -amounts))[:MAX_ITEMS]  # the largest, of equal ones the smaller key
            keys, amounts = keys[kept], amounts[kept]
        self._set_snapshot(keys, amounts)
        self.snapshot_time_ms = self._newest_ms
        self.version += 1
        self._pending = {}

    def _set_snapshot(self, keys: U64, amounts: F64) -> None:
        self.snapshot_keys, self.snapshot_amounts = keys, amounts
        if len(self._places) != len(keys):
            self._places = dict(zip(keys.tolist(), range(len(keys)), strict=True))

    # --- changelog

    def drain(self) -> list[tuple[bytes, bytes | None]]:
        """Records for the changelog since the last drain, keys distinct; a value of None deletes its key."""
        records: list[tuple[bytes, bytes | None]] = []
        old_deltas = 0
        if self._border:
            old_deltas, self._deltas = self._deltas, 0
            self._border = False
            records.append((SNAPSHOT_KEY, self._snapshot_record()))
        for at in range(0, len(self._undrained), MAX_DELTA_EVENTS):
            part = self._undrained[at : at + MAX_DELTA_EVENTS]
            events = b"".join([_EVENT.pack(*event) for event in part])
            records.append((delta_key(self._deltas), self._head(0, 0, len(part)) + events))
            self._deltas += 1
        self._undrained.clear()
        records.extend((delta_key(index), None) for index in range(self._deltas, old_deltas))
        return records

    def _snapshot_record(self) -> bytes:
        table: npt.NDArray[np.void] = np.empty(len(self.snapshot_keys), _COUNT)
        table["key"] = self.snapshot_keys
        table["amount"] = self.snapshot_amounts
        head = self._head(self.snapshot_time_ms, self._newest_ms, len(table))
        return head + table.tobytes()

    def _head(self, ref_ms: int, newest_ms: int, entries: int) -> bytes:
        return _HEAD.pack(_VERSION, self.epoch, self.refresh_events, ref_ms, newest_ms, entries)

    @classmethod
    def load(cls, get: Callable[[bytes], bytes | None], half_life_s: float, refresh_events: int) -> Trend:
        """The Trend as it was at the last drain whose records `get` returns by key.

        Raises StateCorruptError when a record cannot be read.
        """
        trend = cls(half_life_s, refresh_events)
        record = get(SNAPSHOT_KEY)
        if record is not None:
            epoch, ref_ms, newest_ms, entries = trend._read_head(record, _COUNT.itemsize)
            table = np.frombuffer(record, _COUNT, entries, _HEAD.size)
            trend._begin(epoch)
            trend._set_snapshot(table["key"].astype(np.uint64), table["amount"].astype(np.float64))
            trend.snapshot_time_ms = ref_ms
            trend._newest_ms = newest_ms
            trend.version = 1
        while (record := get(delta_key(trend._deltas))) is not None:
            epoch, _, _, _ = trend._read_head(record, _EVENT.size)
            if epoch < trend.epoch:
                break  # older than the snapshot: its tombstone was compacted away before this store saw it
            # Epochs pass unseen while nothing is counted: a later delta may be of a later epoch, but then
            # nothing was pending, or a snapshot would have been written.
            trend._begin(epoch)
            for item, weight, time_ms in _EVENT.iter_unpack(record[_HEAD.size :]):
                trend._count(item, weight, time_ms)
            trend._deltas += 1
        return trend

    def _read_head(self, record: bytes, entry_bytes: int) -> tuple[int, int, int, int]:
        """Epoch, reference time, newest time and number of entries of a record."""
        if len(record) >= _HEAD.size:
            version, epoch, refresh_events, ref_ms, newest_ms, entries = _HEAD.unpack_from(record)
            if version == _VERSION and len(record) == _HEAD.size + entries * entry_bytes:
                # After a change of the setting epochs have other numbers: that of the old one's first offset.
                return epoch * refresh_events // self.refresh_events, ref_ms, newest_ms, entries
        raise StateCorruptError(
            "a record of the partition's popularity cannot be read: the store or the changelog was damaged or "
            "written by a newer Driftline. Stop the worker, delete its data folder (it is rebuilt from the "
            "changelog) and start it again."
        )
