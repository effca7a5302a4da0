"""Records of a partition that were read before: for what has to be made anew from the log."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from stream.errors import EngineError

_RUN_RECORDS = 2048
_SILENCE_S = 30.0


def records_before(client: Mapping[str, Any], topic: str, number: int, until: int) -> Iterator[list[Message]]:
    """The committed records of a partition that retention has left, up to offset `until`, run by run.

    Args:
        client: librdkafka properties that reach the broker.
        topic: name of the topic.
        number: the partition.
        until: the first offset that is not wanted.

    Raises:
        EngineError: the broker gives nothing for 30 s.
        KafkaException: it refuses.
    """
    consumer = Consumer(
        {
            **client,
            "group.id": "driftline-history",  # never joined, nothing is committed
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            # Retention may overtake the reader: half a history, silently, would be worse than none.
            "auto.offset.reset": "error",
        }
    )
    try:
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING)])
        heard_s = time.monotonic()
        while True:
            run: list[Message] = []
            ended = False
            for message in consumer.consume(_RUN_RECORDS, 0.2):
                heard_s = time.monotonic()
                error = message.error()
                if error is None and (message.offset() or 0) < until:
                    run.append(message)
                elif error is None or error.code() == KafkaError._PARTITION_EOF:
                    ended = True
                else:
                    raise KafkaException(error)
            if run:
                yield run
            if ended:
                return
            if time.monotonic() - heard_s > _SILENCE_S:
                raise EngineError(f"{topic}[{number}] gave nothing for {_SILENCE_S:.0f} s. Check the brokers.")
    finally:
        consumer.close()
