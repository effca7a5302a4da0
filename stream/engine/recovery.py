"""The local stores from the changelog, in bulk.

A second consumer, assigned by hand, reads what the stores do not have yet: from the position written with the
values to the *uncommitted* end of the changelog at the time of assignment. Stopping at the last stable offset
would race with a predecessor whose transaction is decided but not yet marked; reading on until the true end
waits for that mark (or for the broker to abort a dead predecessor's transaction, after its timeout).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from stream.engine.asking import watermarks
from stream.errors import EngineError

if TYPE_CHECKING:
    from stream.engine.cycle import Partition

logger = logging.getLogger(__name__)

_FETCH_RECORDS = 5_000  # one RocksDB batch: large enough that the call costs nothing, about 8 MB of states
_SILENCE_S = 60.0  # no record and no end for so long: a broker is gone, or a transaction never ends


def recover(
    partitions: Sequence[Partition],
    config: dict[str, Any],
    tell: Callable[[int], None] = lambda _: None,
) -> int:
    """Bring the stores of `partitions` to the end of their changelog.

    Args:
        partitions: newly assigned partitions with a changelog.
        config: librdkafka properties of a client (address, security).
        tell: called with the number of records that remain, about once a fetch.

    Returns:
        How many records were read.

    Raises:
        EngineError: the changelog does not answer, or its end is not reached.
        KafkaException: the broker refuses.
    """
    started_s = time.monotonic()
    base = {
        **config,
        "group.id": "driftline-recovery",  # librdkafka wants one; it is never joined and nothing is committed
        "enable.auto.commit": False,
        "fetch.wait.max.ms": 10,
        "queued.max.messages.kbytes": 65_536,
    }
    count = 0
    consumer = Consumer({**base, "isolation.level": "read_committed", "enable.partition.eof": True})
    try:
        ends = _ends(partitions, base)
        if ends:
            consumer.assign([TopicPartition(p.changelog, p.number, p.store.position) for p, _ in ends.values()])
            count = _read(consumer, ends, tell)
    finally:
        consumer.close()
    tell(0)
    logger.info(
        "recovered partitions=%s records=%d seconds=%.2f",
        [p.number for p in partitions],
        count,
        time.monotonic() - started_s,
    )
    return count


def _ends(partitions: Sequence[Partition], base: dict[str, Any]) -> dict[tuple[str | None, int], tuple[Partition, int]]:
    """Partitions that lack records, with the offset to reach. A recreated changelog wipes its store."""
    ends: dict[tuple[str | None, int], tuple[Partition, int]] = {}
    dirty = Consumer({**base, "isolation.level": "read_uncommitted"})
    try:
        for partition in partitions:
            low, high = watermarks(dirty, partition.changelog, partition.number)
            if partition.store.position > high:
                logger.warning(
                    "changelog %s[%d] ends at %d, before the local store's position %d: it was made anew; "
                    "the store is rebuilt",
                    partition.changelog,
                    partition.number,
                    high,
                    partition.store.position,
                )
                partition.store.wipe()
            if high > max(partition.store.position, low):
                ends[partition.changelog, partition.number] = partition, high
    finally:
        dirty.close()
    return ends


def _read(
    consumer: Consumer,
    ends: dict[tuple[str | None, int], tuple[Partition, int]],
    tell: Callable[[int], None],
) -> int:
    count = 0
    heard_s = time.monotonic()
    remaining = {at: high - partition.store.position for at, (partition, high) in ends.items()}
    while ends:
        runs: dict[tuple[str | None, int], list[Message]] = {}
        reached: list[tuple[str | None, int]] = []
        for message in consumer.consume(_FETCH_RECORDS, 0.2):
            at = message.topic(), message.partition()
            error = message.error()
            if error is None:
                runs.setdefault(at, []).append(message)
            elif error.code() != KafkaError._PARTITION_EOF:
                raise KafkaException(error)
            elif at in ends and message.offset() >= ends[at][1]:
                # An end below the one we want is the last stable offset: an open transaction; it comes again.
                reached.append(at)
        for at, run in runs.items():
            partition, high = ends[at]
            partition.store.write([(m.key(), m.value()) for m in run], run[-1].offset() + 1)
            remaining[at] = max(high - run[-1].offset() - 1, 0)
            count += len(run)
        for at in reached:
            ends.pop(at, None)
            remaining.pop(at, None)
        if runs or reached:
            heard_s = time.monotonic()
            tell(sum(remaining.values()))
        elif time.monotonic() - heard_s > _SILENCE_S:
            raise EngineError(
                f"the changelog of {sorted(ends)} gave nothing for {_SILENCE_S:.0f} s before its end. Check that "
                "its brokers are up and that no transaction on it hangs (kafka-transactions.sh find-hanging)."
            )
    return count
