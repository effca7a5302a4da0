"""When an event happened, and whether that is too long ago: one partition's event time.

Three clocks meet in an event: `occurred_at` and `sent_at` are the sender's, the record's timestamp is the log's
(its producer's or the broker's). Everything here is judged by these three, never by the clock of this machine, so a
replay judges as the live run did.

    occurred_at ──(sender's clock off? `skew_ms`)──(ahead of the record? clamped by the caller)──> event time
    event time  ──> Watermark: more than the grace behind the newest is late; what is newer becomes the newest

**The watermark** is the largest event time so far, in offset order. It is one number of one partition, and only that
partition's events are held against it: an idle partition has no part in another's watermark, so none can hold one back,
and no two partitions need agree. Nothing waits for a watermark either: windows are read at any time, so it decides only
what is late. Its callers pass event times that are at most the record's timestamp, so a sender whose clock runs ahead
moves it no further than the log's own time, and nobody else's events become late by it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

import msgspec

from state.errors import StateCorruptError, StateError

WATERMARK_KEY = b"\0watermark"
"""Changelog key of a partition's watermark. A user's key never begins with a zero byte."""

_VERSION = 1
_RECORD = struct.Struct("<Bq")
"""Version, watermark in ms since 1970."""


class Watermark:
    """The newest event time of one partition; deterministic in the partition's log.

    Loaded once an assignment, drained once a chunk. An aborted transaction needs no rollback: the caller drops the
    object and loads it again.
    """

    __slots__ = ("_drained_ms", "time_ms")

    def __init__(self, time_ms: int = 0) -> None:
        """`time_ms`: the newest event time, ms since 1970; 0 while there was no event, and then none is late."""
        self.time_ms = time_ms
        self._drained_ms = time_ms

    def late_by_ms(self, event_ms: int, grace_ms: int) -> int:
        """How far an event of time `event_ms` is behind the watermark, if that is more than `grace_ms`; else 0.

        An event that is not late becomes the watermark if it is the newest: to be called once for each event, in the
        order of offsets.
        """
        behind_ms = self.time_ms - event_ms
        if behind_ms < 0:
            self.time_ms = event_ms
            return 0
        return behind_ms if behind_ms > grace_ms else 0

    # --- changelog

    def drain(self) -> list[tuple[bytes, bytes | None]]:
        """The record for the changelog, if the watermark moved since the last drain."""
        if self.time_ms == self._drained_ms:
            return []
        self._drained_ms = self.time_ms
        return [(WATERMARK_KEY, _RECORD.pack(_VERSION, self.time_ms))]

    @classmethod
    def load(cls, get: Callable[[bytes], bytes | None]) -> Watermark:
        """The watermark as it was at the last drain whose record `get` returns; a new one without a record.

        Raises StateCorruptError when the record cannot be read.
        """
        record = get(WATERMARK_KEY)
        if record is None:
            return cls()
        if len(record) != _RECORD.size or record[0] != _VERSION:
            raise StateCorruptError(
                "the partition's watermark cannot be read: the store or the changelog was damaged or written by a "
                "newer Driftline. Stop the worker, delete its data folder (it is rebuilt from the changelog) and "
                "start it again."
            )
        return cls(_RECORD.unpack(record)[1])


class SkewSettings(msgspec.Struct, frozen=True):
    """Which differences between a sender's clock and the log's are the clock's fault. Raises StateError."""

    threshold_ms: int = 60_000
    """A smaller difference is left: it is the way to the broker, and moves no window that matters."""
    max_ms: int = 86_400_000
    """A larger one is no clock but another era: a replay of last year's log, a backlog of days."""
    behind: bool = True
    """Whether a clock may be taken to be behind. One ahead is certain, for no record comes before it was sent; one
    behind looks just like a record that was long on its way."""

    def __post_init__(self) -> None:
        if not 0 < self.threshold_ms <= self.max_ms:
            raise StateError(
                f"a threshold of {self.threshold_ms} ms and a most of {self.max_ms} ms leave no clock to correct: "
                "set the threshold above 0 and at most the other"
            )


def skew_ms(occurred_ms: int, sent_ms: int, record_ms: int, settings: SkewSettings) -> int:
    """What to add to the times of a sender whose clock is off, ms; 0 where nothing says that it is.

    `occurred_ms`, `sent_ms`: by the sender's clock. `record_ms`: the record's timestamp, by the log's. Sending takes
    no time worth speaking of, so record - sent is the clock's error, and record - (sent - occurred) the event's time:
    Snowplow's derived timestamp and Segment's `timestamp` are that, without bounds.

    An event "sent" well before it occurred has two clocks in it, and its sent_at says nothing of the other.
    """
    error_ms = record_ms - sent_ms
    if not settings.threshold_ms < abs(error_ms) <= settings.max_ms:
        return 0
    if occurred_ms > sent_ms + settings.threshold_ms or (error_ms > 0 and not settings.behind):
        return 0
    return error_ms


def covering_windows(
    event_ms: int, watermark_ms: int, windows: Iterable[tuple[str, int]]
) -> tuple[list[str], list[str]]:
    """Names of the windows that an event missed, and of those that still cover it.

    `windows`: (name, size in s). One of a size reaches that far back from the watermark, its older end excluded.
    """
    missed: list[str] = []
    covering: list[str] = []
    for name, size_s in windows:
        (covering if watermark_ms - event_ms < size_s * 1000 else missed).append(name)
    return missed, covering
