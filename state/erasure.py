"""Who was erased, and up to where in the log: so that what was forgotten stays forgotten.

    offset       10       20      30          40        50
    events       e1       e2      user_erased e3        e4          of one user, on the user's partition
    live         1        2       (nothing)   1         2           events applied
    from a log read again, when the confirmation of 30 is known:
                 dropped  dropped (nothing)   1         2

The state of a user is forgotten where `user_erased` stands in the log, and begins anew with what comes after. Once the
erasure is confirmed, the events before it are no longer events of anyone: who reads the log from its beginning (a lost
changelog, another consumer group, a replay) drops them, and makes no state of them on the way.

An event may also come after the erasure although it was sent before: under a wrong key it lay on another partition, and
was sent on to its own later. Such an event says when it was first sent, and is dropped if that was not after the
erasure.
"""

from __future__ import annotations

FORGET_ALL_MS = 2**63 - 1
"""As a limit of `model.recommender.Portion.keep_since_ms`: whatever is known of the user is older than that."""
BEFORE_ALL = -(2**63)
"""An offset before every other. Those of a log's own past are below 0: see stream.replay.backfill."""


class ErasedUsers:
    """Erasures that were confirmed, by partition of the events topic. Users are known by hash only.

    About 250 bytes an erasure. Erasures whose events the log has lost already need not be added.
    """

    def __init__(self) -> None:
        self._by_partition: dict[int, dict[str, tuple[int, int]]] = {}
        self._reach: dict[int, int] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_partition.values()))

    def add(self, partition: int, user_hash: str, offset: int, requested_ms: int) -> None:
        """Note an erasure; of two of the same user the later one counts.

        Args:
            partition: of the events topic.
            user_hash: hash of the user's key.
            offset: of the record that asked for it.
            requested_ms: timestamp of that record, ms since 1970.
        """
        users = self._by_partition.setdefault(partition, {})
        known_offset, known_ms = users.get(user_hash, (BEFORE_ALL, -1))
        users[user_hash] = max(known_offset, offset), max(known_ms, requested_ms)
        self._reach[partition] = max(self._reach.get(partition, BEFORE_ALL), offset)

    def reach(self, partition: int) -> int:
        """Largest offset of an erasure of the partition, BEFORE_ALL without one. Events from there on need no look-up,
        but those that came from elsewhere: this keeps the look-up away from live traffic."""
        return self._reach.get(partition, BEFORE_ALL)

    def covers(self, partition: int, user_hash: str, offset: int, sent_ms: int | None = None) -> bool:
        """Whether an event came before an erasure of its user.

        Args:
            partition, offset: where it is in the log.
            user_hash: hash of its user's key.
            sent_ms: when it was first sent, if under another key, ms since 1970.
        """
        erased_offset, requested_ms = self._by_partition.get(partition, {}).get(user_hash, (BEFORE_ALL, -1))
        return offset < erased_offset or (sent_ms is not None and sent_ms <= requested_ms)
