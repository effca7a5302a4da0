"""Users who stay away are forgotten, so that a store is bounded by its living users.

    watermark      newest event time of the partition, in the order of the log (state.clock)
    limit          watermark - expire_after
    expired        a state whose newest event is older than the limit

Whether a user is expired depends on the log alone: an event that finds an expired state begins a new one, be the old
one still in the store or not. So the sweep that removes expired states may come late, in small steps, and differently
on every run: no event can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

from state.codec import decode_state
from state.errors import StateCorruptError

Scan = Callable[[bytes, int], Sequence[tuple[bytes, bytes]]]
"""(key, limit) -> at most `limit` keys and values after that key, in key order."""

_BEFORE_USERS = b"\0\xff"  # the state's own records begin with NUL and an ASCII letter; no user's key does
# A state is removed at the latest so much after it expired: a sixteenth of the time (25 days of 400).
_PASSES_PER_LIFE = 16


class IdleSweep:
    """Walks one partition's store in key order and finds the expired. In memory only: a restart begins again."""

    def __init__(self, expire_after_ms: int) -> None:
        """expire_after_ms: time without an event after which a user is forgotten, ms; above 0."""
        if expire_after_ms <= 0:
            raise ValueError(f"expire_after_ms is {expire_after_ms}: it must be above 0")
        self._expire_after_ms = expire_after_ms
        self._rest_ms = expire_after_ms // _PASSES_PER_LIFE
        self._cursor = _BEFORE_USERS
        self._next_pass_ms = 0

    def step(self, scan: Scan, watermark_ms: int, limit: int, busy: Container[bytes] = ()) -> list[bytes]:
        """The expired among the next keys, at most `limit` of them read; nothing between two passes.

        Args:
            scan: reads the partition's store.
            watermark_ms: newest event time of the partition, ms since 1970.
            limit: keys to read.
            busy: users to leave alone: their state is being changed.
        """
        if watermark_ms < self._next_pass_ms:
            return []
        keep_since_ms = watermark_ms - self._expire_after_ms
        found = scan(self._cursor, limit)
        expired = [key for key, value in found if key not in busy and _newest_ms(value) < keep_since_ms]
        if len(found) == limit:
            self._cursor = found[-1][0]
        else:
            self._cursor = _BEFORE_USERS
            self._next_pass_ms = watermark_ms + self._rest_ms
        return expired


def _newest_ms(value: bytes) -> int:
    """Of a state; of bytes that are none, a time that never expires: the user's next event has to deal with them."""
    try:
        return decode_state(value).last_time_ms
    except StateCorruptError:
        return 2**63 - 1
