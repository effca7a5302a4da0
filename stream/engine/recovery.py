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

_FETCH_RECORDS = 1_000  # over all partitions: large enough that a RocksDB batch costs nothing, about 3 MB
_SILENCE_S = 60.0  # no record and no end for so long: a broker is gone, or a transaction never ends


def recover(
    partitions: Sequence[Partition],
    config: dict[str, Any],
    tell: Callable[[int], None] = lambda _: None,
    stopping: Callable[[], bool] = lambda: False,
) -> int:
    """Bring the stores of `partitions` to the end of their changelog.

    Args:
        partitions: newly assigned partitions with a changelog.
        config: librdkafka properties of a client (address, security).
        tell: called with the number of records that remain, about once a fetch.
        stopping: asked between fetches; when it says yes, the stores are left as far as they are.

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
        "auto.offset.reset": "error",  # a place that is gone must not silently become the end
        "fetch.wait.max.ms": 10,
        # A full queue stops fetching for so long; the default, 1 s, is longer than the queue lasts.
        "fetch.queue.backoff.ms": 5,
        "queued.max.messages.kbytes": 65_536,
    }
    count = 0
    consumer = Consumer({**base, "isolation.level": "read_committed", "enable.partition.eof": True})
    try:
        ends = _ends(partitions, base)
        if ends:
            consumer.assign([TopicPartition(p.changelog, p.number, start) for p, start, _ in ends.values()])
            count = _read(consumer, {at: (p, high) for at, (p, _, high) in ends.items()}, tell, stopping)
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


def _ends(
    partitions: Sequence[Partition], base: dict[str, Any]
) -> dict[tuple[str | None, int], tuple[Partition, int, int]]:
    """Partitions that lack records, with the offsets to begin at and to reach.

    A store whose place in the changelog is gone is wiped: the topic was made anew, or its beginning was removed.
    """
    ends: dict[tuple[str | None, int], tuple[Partition, int, int]] = {}
    dirty = Consumer({**base, "isolation.level": "read_uncommitted"})
    try:
        for partition in partitions:
            low, high = watermarks(dirty, partition.changelog, partition.number)
            position = partition.store.position
            if position > high or 0 < position < low:
                logger.warning(
                    "changelog %s[%d] holds offsets %d to %d, the local store is at %d: the store is rebuilt",
                    partition.changelog,
                    partition.number,
                    low,
                    high,
                    position,
                )
                partition.store.wipe()
                position = 0
            if high > max(position, low):
                ends[partition.changelog, partition.number] = partition, max(position, low), high
    finally:
        dirty.close()
    return ends


def _read(
    consumer: Consumer,
    ends: dict[tuple[str | None, int], tuple[Partition, int]],
    tell: Callable[[int], None],
    stopping: Callable[[], bool],
) -> int:
    count = 0
    heard_s = time.monotonic()
    remaining = {at: high - partition.store.position for at, (partition, high) in ends.items()}
    while ends and not stopping():
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
