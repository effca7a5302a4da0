"""What the states of all users amount to, read from the changelog: whatever workers run, and wherever."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from state.codec import decode_state
from state.errors import StateCorruptError
from stream.audit import read_topic
from stream.contract.times import iso_utc
from stream.settings import Settings


class PartitionStats(msgspec.Struct):
    """The states of one partition, or of several together."""

    partition: int
    users: int = 0
    bytes: int = 0
    """Of the users' states, keys not counted."""
    max_bytes: int = 0
    oldest_ms: int | None = None
    """Last event of the user who has been idle the longest, ms since 1970."""
    newest_ms: int | None = None
    """The newest event of all."""
    unreadable: int = 0
    """Values that are no state."""
    records: int = 0
    """Records of the changelog partition that were read; more than users where it is not compacted yet."""

    @property
    def mean_bytes(self) -> float:
        """Of a state; 0 without users."""
        return self.bytes / self.users if self.users else 0.0

    def add(self, size_bytes: int, last_ms: int | None) -> None:
        """Count a state. last_ms: time of its newest event, None if it cannot be read."""
        self.users += 1
        self.bytes += size_bytes
        self.max_bytes = max(self.max_bytes, size_bytes)
        if last_ms is None:
            self.unreadable += 1
            return
        self.oldest_ms = last_ms if self.oldest_ms is None else min(self.oldest_ms, last_ms)
        self.newest_ms = last_ms if self.newest_ms is None else max(self.newest_ms, last_ms)

    def include(self, other: PartitionStats) -> None:
        """Add those of another partition."""
        self.users += other.users
        self.bytes += other.bytes
        self.max_bytes = max(self.max_bytes, other.max_bytes)
        self.unreadable += other.unreadable
        self.records += other.records
        self.oldest_ms = min((t for t in (self.oldest_ms, other.oldest_ms) if t is not None), default=None)
        self.newest_ms = max((t for t in (self.newest_ms, other.newest_ms) if t is not None), default=None)

    def as_dict(self) -> dict[str, Any]:
        """Plain data: times as ISO-8601."""
        return {
            "users": self.users,
            "bytes": self.bytes,
            "mean_bytes": round(self.mean_bytes, 1),
            "max_bytes": self.max_bytes,
            "oldest": None if self.oldest_ms is None else iso_utc(self.oldest_ms),
            "newest": None if self.newest_ms is None else iso_utc(self.newest_ms),
            "unreadable": self.unreadable,
            "records": self.records,
        }


def read_stats(settings: Settings, tell: Callable[[int, int], None] = lambda *_: None) -> list[PartitionStats]:
    """The figures of each partition that has a record, in order.

    Reads the whole changelog, and holds the size and newest time of each user's state meanwhile.

    Args:
        settings: the cluster and the topics.
        tell: called with (records read, records to read).

    Raises:
        StreamError, RefusedError: the changelog cannot be read.
    """
    states: dict[int, dict[bytes, tuple[int, int | None]]] = {}
    records: dict[int, int] = {}
    for message in read_topic(settings, settings.topics.changelog, tell):
        key, value, number = message.key() or b"", message.value(), message.partition() or 0
        records[number] = records.get(number, 0) + 1
        if key[:1] == b"\0":
            continue  # the partition's own: popularity, watermark
        users = states.setdefault(number, {})
        if value is None:
            users.pop(key, None)
        else:
            users[key] = len(value), _newest_ms(value)
    found = []
    for number, count in sorted(records.items()):
        stats = PartitionStats(number, records=count)
        for size_bytes, last_ms in states.get(number, {}).values():
            stats.add(size_bytes, last_ms)
        found.append(stats)
    return found


def total(stats: list[PartitionStats]) -> PartitionStats:
    """All partitions together; `partition` is -1."""
    whole = PartitionStats(-1)
    for one in stats:
        whole.include(one)
    return whole


def _newest_ms(value: bytes) -> int | None:
    try:
        return decode_state(value).last_time_ms
    except StateCorruptError:
        return None
