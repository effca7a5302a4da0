"""The offset ledger of one partition: every record once, in order, whatever a rebalance or an abort does.

A seek takes effect only when librdkafka gets round to it, so the first fetches after an aborted transaction may
bring records from *beyond* the place we sought back to. Taking them would lose the ones before. The ledger knows
the next offset expected and judges the first offset of every run. After an assignment or a seek it is unsettled
until the expected offset has come:

    expected   first of run    unsettled                       settled
    100        100             TAKE                            TAKE
    100        103             SEEK back to 100, once          TAKE: the log itself has a hole
    100        103 again       TAKE: the hole is real          TAKE
    100        97              TRIM: take from 100 on          TRIM

Holes are real where transaction markers, compaction or retention left no record.
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

    __slots__ = ("_doubted", "_settled", "expected", "missing")

    def __init__(self, expected: int) -> None:
        self.expected = expected
        """Offset of the next record to take; moved only by `committed`."""
        self.missing = 0
        """Offsets below `expected` that no record had."""
        self._settled = False
        self._doubted: tuple[int, int] | None = None

    def judge(self, first: int) -> Verdict:
        """Verdict on a run whose first offset is `first`."""
        if first < self.expected:
            return Verdict.TRIM
        hole = (self.expected, first)
        if first > self.expected and not self._settled and self._doubted != hole:
            self._doubted = hole
            return Verdict.SEEK
        self.missing += first - self.expected
        self._doubted = None
        self._settled = True
        return Verdict.TAKE

    def rewound(self) -> None:
        """Somebody sought back to `expected`: what comes next may still be from before the seek."""
        self._settled = False

    def committed(self, upto: int) -> None:
        """All records below `upto` are in a committed transaction."""
        self.expected = upto
