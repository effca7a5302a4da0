"""Sources merged by the time of their events."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence

from stream.replay.rows import Row

_BLOCK_ROWS = 4096


class Run:
    """The rows of one source, as they are asked for.

    Args:
        first_ms: the time of its first row, ms since 1970, where that is known without reading it.
        blocks: begins to read it.
    """

    def __init__(self, first_ms: int | None, blocks: Callable[[], Iterator[list[Row]]]) -> None:
        self._first_ms, self._begin = first_ms, blocks
        self._blocks: Iterator[list[Row]] | None = None
        self._block: list[Row] = []
        self._at = 0

    def next_ms(self) -> int | None:
        """The time of the next row; None: there is no other."""
        if self._blocks is None and self._first_ms is not None:
            return self._first_ms
        return self._block[self._at].time_ms if self._more() else None

    def take(self, until_ms: int | None, included: bool) -> list[Row]:
        """The next rows, those of one block at most, up to the first later one; None: any time."""
        if not self._more():
            return []
        block, begin = self._block, self._at
        if until_ms is None:
            self._at = len(block)
        else:
            last_ms = until_ms if included else until_ms - 1
            at = begin
            while at < len(block) and block[at].time_ms <= last_ms:
                at += 1
            self._at = at
        return block[begin : self._at]

    def _more(self) -> bool:
        """Whether there is a next row; reads on if need be."""
        if self._blocks is None:
            self._blocks = self._begin()
        while self._at == len(self._block):
            block = next(self._blocks, None)
            if block is None:
                self._block, self._at = [], 0  # of many files that have ended none stays in memory
                return False
            self._block, self._at = block, 0
        return True


def merge(runs: Sequence[Run]) -> Iterator[list[Row]]:
    """The rows of runs that are each nearly in order of time: always the oldest of their next ones; of rows of one
    time those of the first run first. Runs that are not due yet are not begun."""
    heap = [(next_ms, k) for k, run in enumerate(runs) if (next_ms := run.next_ms()) is not None]
    heapq.heapify(heap)
    rows: list[Row] = []
    while heap:
        k = heap[0][1]
        run = runs[k]
        until_ms, other = min(heap[1:3], default=(None, k))
        rows += run.take(until_ms, other > k)
        next_ms = run.next_ms()
        if next_ms is None:
            heapq.heappop(heap)
        else:
            heapq.heapreplace(heap, (next_ms, k))
        if len(rows) >= _BLOCK_ROWS:
            yield rows
            rows = []
    if rows:
        yield rows
