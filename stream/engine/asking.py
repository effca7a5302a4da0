"""Questions to a broker that may be changing its mind about who leads a partition."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Passing states: a topic just made, a leader just moved, a connection just lost.
_PASSING = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.NOT_COORDINATOR,
    KafkaError._TRANSPORT,
    KafkaError._TIMED_OUT,
    KafkaError._WAIT_COORD,
}
_PAUSE_S = 0.1


def patiently(call: Callable[[], T], seconds: float = 30.0) -> T:
    """The answer of `call`, asked again while it fails in a way that passes.

    Raises:
        KafkaException: it fails otherwise, or still after `seconds`.
    """
    end_s = time.monotonic() + seconds
    while True:
        try:
            return call()
        except KafkaException as exc:
            if exc.args[0].code() not in _PASSING or time.monotonic() > end_s:
                raise
            logger.info("asking again: %s", exc.args[0])
            time.sleep(_PAUSE_S)


def watermarks(consumer: Consumer, topic: str | None, partition: int, seconds: float = 30.0) -> tuple[int, int]:
    """Low and high offset of a partition, asked of its leader. Raises KafkaException, see `patiently`."""
    at = TopicPartition(topic, partition)
    low, high = patiently(lambda: consumer.get_watermark_offsets(at, timeout=seconds), seconds)
    return int(low), int(high)
