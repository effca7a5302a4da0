"""Reading a topic from some point, without a consumer group of the worker's and without committing anything."""

import re
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

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
SILENCE_S = 30.0
"""A partition's end is told within a fetch; longer silence means that the broker went away."""


@dataclass(frozen=True)
class Start:
    """Where to begin: at an offset (OFFSET_BEGINNING, OFFSET_END, or one's own), or at a time (ms since 1970)."""

    offset: int = OFFSET_BEGINNING
    since_ms: int | None = None

    @classmethod
    def parse(cls, text: str, now_ms: int, flag: str = "--from") -> "Start":
        """earliest | latest | offset=N | ts=TIME | last=30m, as `flag` gives it. Raises RefusedError."""
        kind, _, rest = text.partition("=")
        last = _LAST.fullmatch(rest)
        if text == "earliest":
            return cls(OFFSET_BEGINNING)
        if text == "latest":
            return cls(OFFSET_END)
        if kind == "last" and last is not None:
            return cls(since_ms=now_ms - int(last[1]) * _UNIT_MS[last[2]])
        if kind == "offset" and rest.isdecimal():
            return cls(int(rest))
        if kind == "ts":
            return cls(since_ms=_time_of(flag, text))
        raise RefusedError(f"{flag} {text} is none of earliest, latest, offset=N, ts=TIME, last=30m (s, m, h, d).")


@dataclass(frozen=True)
class End:
    """Where to stop, in each partition: before an offset, before a time of records, or at what is there now."""

    offset: int | None = None
    before_ms: int | None = None

    @classmethod
    def parse(cls, text: str) -> "End":
        """latest | offset=N | ts=TIME. Raises RefusedError."""
        kind, _, rest = text.partition("=")
        if text == "latest":
            return cls()
        if kind == "offset" and rest.isdecimal():
            return cls(offset=int(rest))
        if kind == "ts":
            return cls(before_ms=_time_of("--to", text))
        raise RefusedError(f"--to {text} is none of latest, offset=N, ts=TIME.")


def _time_of(flag: str, text: str) -> int:
    try:
        return time_ms(text.partition("=")[2])
    except ValueError as error:
        raise RefusedError(f"{flag} {text}: {error}. Give it as ts=2026-01-31T12:00:00Z.") from None


def partition_count(settings: Settings, topic: str) -> int:
    """Partitions of a topic. Raises BrokerError, and TopicError when there is none of that name."""
    found = reach(settings.client_properties()).partitions.get(topic)
    if found is None:
        raise TopicError(f"topic {topic} is missing. Create it: driftline topics create")
    return found


def read(
    settings: Settings,
    topic: str,
    start: Start,
    *,
    follow: bool,
    partition: int | None = None,
    end: End | None = None,
) -> Iterator[Message]:
    """Committed records of a topic, or of one partition: in order within a partition, not between them.

    follow: go on waiting for new ones; else end at what is there. end: stop earlier, and take no record that was not
    there when the reading began. Raises BrokerError, TopicError, ReadError.
    """
    count = partition_count(settings, topic)
    consumer = Consumer(reader_properties(settings, {"enable.partition.eof": not follow}))
    try:
        places = [TopicPartition(topic, p) for p in (range(count) if partition is None else [partition])]
        place(consumer, places, start, settings)
        consumer.assign(places)
        stops = {} if end is None else {at.partition: stop(consumer, at, end) for at in places}
        ended: set[int] = set()
        heard_s = time.monotonic()
        while len(ended) < len(places):
            message = consumer.poll(0.2)
            if message is None:
                if not follow and time.monotonic() - heard_s > SILENCE_S:
                    raise ReadError(f"{topic}: nothing heard for {SILENCE_S:g} s. See to the broker.")
                continue
            heard_s = time.monotonic()
            error = message.error()
            if error is None:
                number = message.partition() or 0
                if number in stops and (message.offset() or 0) >= stops[number]:
                    ended.add(number)
                elif (start.since_ms is None or record_ms(message) >= start.since_ms) and (
                    end is None or end.before_ms is None or record_ms(message) < end.before_ms
                ):
                    yield message
            elif error.code() == KafkaError._PARTITION_EOF:
                ended.add(message.partition() or 0)
            elif error.fatal() or not error.retriable():
                raise ReadError(f"cannot read {topic}: {error.str()}. See to the broker or the rights on the topic.")
    except KafkaException as error:
        raise ReadError(f"cannot read {topic}: {error.args[0].str()}. See to the broker.") from None
    finally:
        consumer.close()


def records(settings: Settings, topic: str, start: Start, end: End) -> int:
    """Offsets between start and end, over all partitions: at least as many as records. Raises as `read`."""
    count = partition_count(settings, topic)
    consumer = Consumer(settings.client_properties({"group.id": f"driftline-reader-{uuid.uuid4()}"}))
    try:
        places = [TopicPartition(topic, p) for p in range(count)]
        place(consumer, places, start, settings)
        total = 0
        for at in places:
            low, high = consumer.get_watermark_offsets(at, timeout=_TIMEOUT_S)
            first = {OFFSET_BEGINNING: low, OFFSET_END: high}.get(at.offset, max(at.offset, low))
            total += max(0, (high if end.offset is None else min(high, end.offset)) - first)
        return total
    except KafkaException as error:
        raise ReadError(f"cannot read {topic}: {error.args[0].str()}. See to the broker.") from None
    finally:
        consumer.close()


def reader_properties(settings: Settings, more: Mapping[str, Any]) -> dict[str, Any]:
    """Properties of a consumer that reads committed records and commits nothing, and over them `more`."""
    return settings.client_properties(
        {
            "group.id": f"driftline-reader-{uuid.uuid4()}",  # asked for, though nothing is committed
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 20,
            "auto.offset.reset": "earliest",
            **more,
        }
    )


def place(consumer: Consumer, places: list[TopicPartition], start: Start, settings: Settings) -> None:
    """Sets where each partition begins: an offset, OFFSET_BEGINNING or OFFSET_END. Raises KafkaException."""
    if start.since_ms is None:
        for at in places:
            at.offset = start.offset
        if start.offset >= 0:  # one that is not there would be taken for the beginning
            for at in places:
                low, high = consumer.get_watermark_offsets(at, timeout=_TIMEOUT_S)
                at.offset = min(max(start.offset, low), high)
        if start.offset == OFFSET_END:  # fixed now: a record sent while the first fetch is on its way counts
            for at in places:
                at.offset = consumer.get_watermark_offsets(at, timeout=_TIMEOUT_S)[1]
        return
    if reach(settings.client_properties()).embedded:
        return  # it finds no offset of a time: all is read, and the earlier is left out
    for at in places:
        at.offset = start.since_ms
    for at, found in zip(places, consumer.offsets_for_times(places, timeout=_TIMEOUT_S), strict=True):
        at.offset = found.offset


def stop(consumer: Consumer, at: TopicPartition, end: End) -> int:
    """The first offset of a partition that is not read. Raises KafkaException."""
    high = int(consumer.get_watermark_offsets(at, timeout=_TIMEOUT_S)[1])
    return high if end.offset is None else min(high, end.offset)


def record_ms(message: Message) -> int:
    """When a record came, ms since 1970, by the log; by this machine's clock where the log does not tell."""
    kind, at_ms = message.timestamp()
    return int(time.time() * 1000) if kind == TIMESTAMP_NOT_AVAILABLE else int(at_ms)
