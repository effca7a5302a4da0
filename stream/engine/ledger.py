"""The offset ledger of one partition: every record once, in order, whatever a rebalance or an abort does.

A seek takes effect only when librdkafka gets round to it, so a fetch after an aborted transaction may still
bring records from *behind* the place we sought back to. Taking them would lose the ones before. The ledger
knows the next offset expected and judges the first offset of every run:

    expected   first of run    verdict
    100        100             take all
    100        103             SEEK back to 100, once
    100        103 again       take all: the hole is real (transaction markers, compaction, retention)
    100        97              take from 100 on: the rest was taken before
"""

from __future__ import annotations

from enum import Enum, auto


class Verdict(Enum):
    """What to do with a run of records."""

    TAKE = auto()
    """Take the run whole."""
    TRIM = auto()
    """Take only the records from `Ledger.expected` on."""
    SEEK = auto()
    """Take nothing and seek back to `Ledger.expected`."""


class Ledger:
    """Offsets of one source partition. Pure: it reads nothing and seeks nothing itself."""

    __slots__ = ("_doubted", "expected", "missing")

    def __init__(self, expected: int) -> None:
        self.expected = expected
        """Offset of the next record to take; moved only by `committed`."""
        self.missing = 0
        """Offsets that were not there when read a second time: markers, compaction, or loss by retention."""
        self._doubted: tuple[int, int] | None = None

    def judge(self, first: int) -> Verdict:
        """Verdict on a run whose first offset is `first`."""
        if first < self.expected:
            return Verdict.TRIM
        if first > self.expected:
            hole = (self.expected, first)
            if self._doubted != hole:
                self._doubted = hole
                return Verdict.SEEK
            self.missing += first - self.expected
        self._doubted = None
        return Verdict.TAKE

    def committed(self, upto: int) -> None:
        """All records below `upto` are in a committed transaction."""
        self.expected = upto
