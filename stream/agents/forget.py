"""What the interest agent forgets: users who asked for it, and users who stay away.

    user_erased in a chunk ──> tombstones of state (changelog) and list, confirmation   one transaction, with the rest
    confirmed erasure ───────> events before it are dropped                             a log that is read again
    idle user ───────────────> tombstones of state and list                             some keys a chunk

What was counted anonymously, of all users together (popularity), stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from model.recommender import Portion
from state.erasure import BEFORE_ALL, FORGET_ALL_MS, ErasedUsers
from state.expiry import IdleSweep
from stream.contract.control import (
    REMOVED_AT,
    REMOVED_BECAUSE,
    ErasureConfirmed,
    encode_control,
    first_sent_ms,
    user_hash,
)
from stream.contract.recommendation import Source
from stream.contract.times import END_MS, FIRST_MS, iso_utc
from stream.engine import Chunk
from stream.erasure import ErasureLog
from stream.metrics import Metrics
from stream.settings import Settings

# Keys that the sweeps of all partitions of a fetch read together, 3 to 4 us each: 0.2 ms beside many events (0.1 to
# 1 us an event), 0.5 ms where there is time for it.
_BUSY_RECORDS = 256
_SWEPT_WHEN_BUSY = 64
_SWEPT_WHEN_IDLE = 128

_NEVER_MS = -1  # no state's newest event is older

_MEMO = "forget"

Headers = Sequence[tuple[str, bytes | None]]


class _Memory:
    """What is remembered of one partition from chunk to chunk, until it leaves or a transaction is aborted."""

    def __init__(self, expire_after_ms: int) -> None:
        self.sweep = IdleSweep(expire_after_ms) if expire_after_ms else None
        self.erased = ErasedUsers()
        """Erasures done here, for events that were first sent before them and are still on their way. By time only:
        these erasures may yet be aborted, and then their chunk must be read again as it was."""


class Erasure(msgspec.Struct, frozen=True, gc=False):
    """A `user_erased` of this chunk."""

    user: bytes
    offset: int
    requested_ms: int


class Forgotten:
    """What is forgotten in one chunk, collected while its events are read in order."""

    __slots__ = ("_expire_after_ms", "_known", "_local", "_number", "erasures", "keep_since_ms", "pending", "reach")

    def __init__(self, known: ErasedUsers, local: ErasedUsers, number: int, expire_after_ms: int) -> None:
        self._known = known
        self._local = local
        self._number = number
        self._expire_after_ms = expire_after_ms
        self.reach = known.reach(number)
        """Events from this offset on need no look-up, but those with headers."""
        self.erasures: list[Erasure] = []
        self.pending: set[bytes] = set()
        """Users who were erased and have sent nothing since."""
        self.keep_since_ms: list[int] = []
        """For each event to apply: see Portion."""

    def covers(self, user: bytes, offset: int, headers: Headers) -> bool:
        """Whether the event came before an erasure of its user that was done already."""
        sent_ms = first_sent_ms(headers)
        if sent_ms is None and offset >= self.reach:
            return False
        hashed = user_hash(user)
        return self._known.covers(self._number, hashed, offset, sent_ms) or (
            sent_ms is not None and self._local.covers(self._number, hashed, offset, sent_ms)
        )

    def erase(self, user: bytes, offset: int, requested_ms: int) -> None:
        """A `user_erased` was read."""
        # Producers may set any timestamp; the confirmation's must be a time that every worker can read.
        requested_ms = min(max(requested_ms, FIRST_MS), END_MS - 1)
        self.erasures.append(Erasure(user, offset, requested_ms))
        self._local.add(self._number, user_hash(user), BEFORE_ALL, requested_ms)
        self.pending.add(user)

    def applied(self, user: bytes, watermark_ms: int) -> None:
        """The next event to apply is one of `user`, the partition's newest event time being `watermark_ms`."""
        if self.pending and user in self.pending:
            self.pending.remove(user)
            self.keep_since_ms.append(FORGET_ALL_MS)
        elif self._expire_after_ms:
            self.keep_since_ms.append(watermark_ms - self._expire_after_ms)
        else:
            self.keep_since_ms.append(_NEVER_MS)


class Forgetter:
    """Forgets users for the interest agent.

    Args:
        settings: all settings.
        metrics: counters.
        now_ms: the clock, epoch ms: stamps confirmations.
        log: the erasures topic; None where there is none (tests, replays of files).
    """

    def __init__(
        self, settings: Settings, metrics: Metrics, now_ms: Callable[[], int], log: ErasureLog | None = None
    ) -> None:
        self._topics = settings.topics
        self._expire_after_ms = settings.state.expire_after_s * 1000
        self._metrics = metrics
        self._now_ms = now_ms
        self._log = log
        self._known = ErasedUsers() if log is None else log.users
        self._swept = 1  # keys that the sweep of each chunk of this fetch reads

    def begin(self, chunks: Sequence[Chunk]) -> list[Forgotten]:
        """Before the chunks of a fetch are read: what they forget, nothing yet.

        Raises:
            StreamError: the erasures topic does not answer.
        """
        fresh = [chunk for chunk in chunks if _MEMO not in chunk.memo]
        if fresh and self._log is not None:
            self._log.catch_up()
        for chunk in fresh:
            chunk.memo[_MEMO] = _Memory(self._expire_after_ms)
        busy = sum(len(chunk.records) for chunk in chunks) > _BUSY_RECORDS
        self._swept = max((_SWEPT_WHEN_BUSY if busy else _SWEPT_WHEN_IDLE) // max(len(chunks), 1), 1)
        return [
            Forgotten(self._known, chunk.memo[_MEMO].erased, chunk.partition.number, self._expire_after_ms)
            for chunk in chunks
        ]

    def end(self, chunk: Chunk, portion: Portion, forgotten: Forgotten, watermark_ms: int) -> None:
        """After the events were applied, before states and lists go out: remove what is forgotten, tell of it."""
        if forgotten.erasures:
            self._erase(chunk, portion, forgotten)
        self._sweep(chunk, portion, forgotten, watermark_ms)

    def _erase(self, chunk: Chunk, portion: Portion, forgotten: Forgotten) -> None:
        number = chunk.partition.number
        for user in dict.fromkeys(erasure.user for erasure in forgotten.erasures):
            chunk.put(user, None)
            chunk.send(self._topics.recommendations, None, user, number)
        for erasure in forgotten.erasures:
            confirmed = ErasureConfirmed(
                user_hash=user_hash(erasure.user),
                erased_at=iso_utc(self._now_ms()),
                source=Source(chunk.partition.topic, number, erasure.offset),
                requested_at=iso_utc(erasure.requested_ms),
            )
            chunk.send(self._topics.erasures, encode_control(confirmed), confirmed.key)
            self._metrics.erasures.inc()
        for user in forgotten.pending:
            portion.states.pop(user, None)
        last = {erasure.user: erasure.offset for erasure in forgotten.erasures}
        portion.lists = [made for made in portion.lists if made.offset > last.get(made.user, BEFORE_ALL)]

    def _sweep(self, chunk: Chunk, portion: Portion, forgotten: Forgotten, watermark_ms: int) -> None:
        sweep: IdleSweep | None = chunk.memo[_MEMO].sweep
        if sweep is None:
            return
        expired = sweep.step(chunk.scan, watermark_ms, self._swept, portion.states)
        if not expired:
            return
        erased = {erasure.user for erasure in forgotten.erasures}
        headers: list[tuple[str, bytes | None]] = [
            (REMOVED_BECAUSE, b"expired"),
            (REMOVED_AT, b"%d" % (chunk.records[-1].offset() or 0)),
        ]
        for user in expired:
            if user not in erased:
                chunk.put(user, None)
                chunk.send(self._topics.recommendations, None, user, chunk.partition.number, headers)
                self._metrics.expired.inc()
