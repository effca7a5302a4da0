"""Reading a topic from some point, without a consumer group of the worker's and without committing anything."""

import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from stream.brokers import reach
from stream.contract.times import time_ms
from stream.errors import ReadError, RefusedError, TopicError
from stream.settings import Settings

_LAST = re.compile(r"(\d+)(s|m|h|d)")
_UNIT_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_TIMEOUT_S = 15.0
# A partition's end is told within a fetch; longer silence means that the broker went away.
_SILENCE_S = 30.0


@dataclass(frozen=True)
class Start:
    """Where to begin: at a fixed offset (OFFSET_BEGINNING, OFFSET_END), or at a time (ms since 1970)."""

    offset: int = OFFSET_BEGINNING
    since_ms: int | None = None

    @classmethod
    def parse(cls, text: str, now_ms: int) -> "Start":
        """earliest | latest | ts=TIME | last=30m. Raises RefusedError."""
        kind, _, rest = text.partition("=")
        last = _LAST.fullmatch(rest)
        if text == "earliest":
            return cls(OFFSET_BEGINNING)
        if text == "latest":
            return cls(OFFSET_END)
        if kind == "last" and last is not None:
            return cls(since_ms=now_ms - int(last[1]) * _UNIT_MS[last[2]])
        if kind == "ts":
            try:
                return cls(since_ms=time_ms(rest))
            except ValueError as error:
                raise RefusedError(f"--from {text}: {error}. Give it as ts=2026-01-31T12:00:00Z.") from None
        raise RefusedError(f"--from {text} is none of earliest, latest, ts=TIME, last=30m (s, m, h, d).")


def partition_count(settings: Settings, topic: str) -> int:
    """Partitions of a topic. Raises BrokerError, and TopicError when there is none of that name."""
    found = reach(settings.client_properties()).partitions.get(topic)
    if found is None:
        raise TopicError(f"topic {topic} is missing. Create it: driftline topics create")
    return found


def read(
    settings: Settings, topic: str, start: Start, *, follow: bool, partition: int | None = None
) -> Iterator[Message]:
    """Committed records of a topic, or of one partition: in order within a partition, not between them.

    follow: go on waiting for new ones; else end at what is there. Raises BrokerError, TopicError, ReadError.
    """
    count = partition_count(settings, topic)
    consumer = Consumer(
        settings.client_properties(
            {
                "group.id": f"driftline-reader-{uuid.uuid4()}",  # asked for, though nothing is committed
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": not follow,
                "fetch.wait.max.ms": 20,
                "auto.offset.reset": "earliest",
            }
        )
    )
    try:
        places = [TopicPartition(topic, p) for p in (range(count) if partition is None else [partition])]
        _place(consumer, places, start, settings)
        consumer.assign(places)
        ended: set[int] = set()
        heard_s = time.monotonic()
        while len(ended) < len(places):
            message = consumer.poll(0.2)
            if message is None:
                if not follow and time.monotonic() - heard_s > _SILENCE_S:
                    raise ReadError(f"{topic}: nothing heard for {_SILENCE_S:g} s. See to the broker.")
                continue
            heard_s = time.monotonic()
            error = message.error()
            if error is None:
                if start.since_ms is None or _time_ms(message) >= start.since_ms:
                    yield message
            elif error.code() == KafkaError._PARTITION_EOF:
                ended.add(message.partition() or 0)
            elif error.fatal() or not error.retriable():
                raise ReadError(f"cannot read {topic}: {error.str()}. See to the broker or the rights on the topic.")
    except KafkaException as error:
        raise ReadError(f"cannot read {topic}: {error.args[0].str()}. See to the broker.") from None
    finally:
        consumer.close()


def _place(consumer: Consumer, places: list[TopicPartition], start: Start, settings: Settings) -> None:
    """Sets where each partition begins."""
    if start.since_ms is None:
        for place in places:
            place.offset = start.offset
        if start.offset == OFFSET_END:  # fixed now: a record sent while the first fetch is on its way counts
            for place in places:
                place.offset = consumer.get_watermark_offsets(place, timeout=_TIMEOUT_S)[1]
        return
    if reach(settings.client_properties()).embedded:
        return  # it finds no offset of a time: all is read, and the earlier is left out
    for place in places:
        place.offset = start.since_ms
    for place, found in zip(places, consumer.offsets_for_times(places, timeout=_TIMEOUT_S), strict=True):
        place.offset = found.offset


def _time_ms(message: Message) -> int:
    kind, at_ms = message.timestamp()
    return int(time.time() * 1000) if kind == TIMESTAMP_NOT_AVAILABLE else int(at_ms)
