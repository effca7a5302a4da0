"""A range of a topic as a source of rows: committed records with their own places, as far as they were there at first.

partition 0  begin ──────────> end      ends are fixed when the range is made; live goes on from them
partition 1      begin ──────> end
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from operator import itemgetter
from typing import Literal

import msgspec
from confluent_kafka import (
    OFFSET_END,
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from stream.contract.event import EventDecoder, Headers
from stream.contract.times import END_MS, FIRST_MS, time_ms
from stream.engine.asking import watermarks
from stream.errors import EventError, ReadError, ReplayError
from stream.event_file import BadRow
from stream.reading import SILENCE_S, End, Start, partition_count, place, reader_properties, record_ms, stop
from stream.replay.rows import Row
from stream.settings import Settings

_FETCH_RECORDS = 4096
_FETCH_S = 0.2
# By time: of a partition that runs ahead of the others so many rows wait at most, or nearly so.
_WAITING_ROWS = 100_000


class TopicRange:
    """Some partitions of a topic from a start to an end. Its rows keep partition, offset, timestamp and headers.

    Args:
        settings: how to reach the broker, and limits of events.
        topic: its name.
        start: where each partition begins.
        end: where each ends: never after what is there now.
        partitions: which to read; None: all.
        ends: those of an earlier range by partition, to read the same again; None: by `end`.
        by_time: merge the partitions by event time; else they come as they are fetched, in order within each.
        bad: whether records that retention has deleted since are left out, or stop the reading.
        on_bad: told of them.

    Raises:
        BrokerError: no broker answers.
        TopicError: there is no such topic.
        ReadError: the range cannot be found.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        start: Start = Start(),  # noqa: B008 - immutable
        end: End = End(),  # noqa: B008
        partitions: Sequence[int] | None = None,
        *,
        ends: Mapping[int, int] | None = None,
        by_time: bool = False,
        bad: Literal["skip", "stop"] = "skip",
        on_bad: Callable[[BadRow], None] = lambda _: None,
    ) -> None:
        self._settings, self._topic, self._start, self._end = settings, topic, start, end
        self._by_time, self._bad, self._on_bad = by_time, bad, on_bad
        self.name = topic
        self.files = [topic]
        numbers = range(partition_count(settings, topic)) if partitions is None else partitions
        self.begins: dict[int, int] = {}
        """The first offset of each partition, which may be gone, and"""
        self.ends: dict[int, int] = {}
        """the one after the last: there is where live goes on."""
        self.gone = 0
        """Offsets that were to be read, and that retention has deleted."""
        consumer = Consumer(reader_properties(settings, {}))
        try:
            places = [TopicPartition(topic, number) for number in numbers]
            place(consumer, places, start, settings)
            for at in places:
                low, high = watermarks(consumer, topic, at.partition)
                begin = at.offset if at.offset >= 0 else high if at.offset == OFFSET_END else low
                if start.since_ms is None and start.offset >= 0:
                    begin = min(start.offset, high)  # also one that is gone: that is said
                last = stop(consumer, at, end) if ends is None else ends[at.partition]
                self.begins[at.partition], self.ends[at.partition] = begin, max(begin, last)
        except KafkaException as error:
            raise ReadError(f"cannot read {topic}: {error.args[0].str()}. See to the broker.") from None
        finally:
            consumer.close()
        self._next = dict(self.begins)
        self._rows = _RowMaker(settings)

    @property
    def share_done(self) -> float:
        """How much is read, 0 to 1."""
        total = sum(self.ends.values()) - sum(self.begins.values())
        done = sum(min(self._next[number], end) for number, end in self.ends.items()) - sum(self.begins.values())
        return done / total if total else 1.0

    def blocks(self, since: Mapping[int, int]) -> Iterator[list[Row]]:
        """See Source. Raises ReplayError."""
        self._next = {number: max(begin, since.get(number, 0)) for number, begin in self.begins.items()}
        # With "error" the client says that an offset is gone; otherwise it would go on elsewhere and say nothing.
        consumer = Consumer(
            reader_properties(self._settings, {"enable.partition.eof": True, "auto.offset.reset": "error"})
        )
        try:
            left = [number for number, end in self.ends.items() if self._next[number] < end]
            consumer.assign([TopicPartition(self._topic, number, self._next[number]) for number in left])
            reading = _Reading(consumer, set(left))
            if self._by_time:
                yield from self._merged(reading)
                return
            while reading.left:
                rows = self._fetch(reading)
                if rows:
                    yield rows
        except KafkaException as error:
            raise self._unreadable(error.args[0]) from None
        finally:
            consumer.close()

    def _fetch(self, reading: _Reading) -> list[Row]:
        """The next rows, of whatever partitions. None: nothing has come yet, or all has ended."""
        rows: list[Row] = []
        messages = reading.consumer.consume(_FETCH_RECORDS, _FETCH_S)
        reading.silent_s = 0.0 if messages else reading.silent_s + _FETCH_S  # whoever takes the rows may take his time
        if reading.silent_s > SILENCE_S:
            raise ReplayError(f"{self._topic}: nothing heard for {SILENCE_S:g} s. See to the broker, then run again.")
        make, expected, ends = self._rows.row, self._next, self.ends
        in_time = self._in_time if self._start.since_ms is not None or self._end.before_ms is not None else None
        for message in messages:
            error = message.error()
            number: int = message.partition()
            if error is not None:
                self._mishap(reading, number, error)
                continue
            offset: int = message.offset()
            if offset < expected[number]:
                continue  # fetched before the client was told to go on elsewhere
            if offset >= ends[number]:
                self._ended(reading, number)
                continue
            expected[number] = offset + 1
            if in_time is None or in_time(message):
                rows.append(make(message, number, offset))
            if offset + 1 == ends[number]:
                self._ended(reading, number)
        return rows

    def _in_time(self, message: Message) -> bool:
        since_ms, before_ms = self._start.since_ms, self._end.before_ms
        return (since_ms or 0) <= record_ms(message) < (END_MS if before_ms is None else before_ms)

    def _ended(self, reading: _Reading, number: int) -> None:
        self._next[number] = max(self._next[number], self.ends[number])
        if number in reading.left:
            reading.left.remove(number)
            reading.consumer.incremental_unassign([TopicPartition(self._topic, number)])

    def _mishap(self, reading: _Reading, number: int, error: KafkaError) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            self._ended(reading, number)  # the end was there before, so this is it or lies after it
        elif error.code() == KafkaError._AUTO_OFFSET_RESET and number in reading.left:
            self._skip_gone(reading, number)
        elif error.fatal() or not error.retriable():
            raise self._unreadable(error)

    def _skip_gone(self, reading: _Reading, number: int) -> None:
        """Retention has deleted what is next: go on from the first that is left."""
        wanted = self._next[number]
        low, _ = watermarks(reading.consumer, self._topic, number)
        first = min(low, self.ends[number])
        problem = f"offsets {wanted} to {first - 1} ({first - wanted}) were deleted by retention"
        if self._bad == "stop":
            raise ReplayError(
                f"{self._topic}, partition {number}: {problem}. Begin at offset {low} or later, or leave out what is "
                "gone (--bad skip)."
            )
        self.gone += first - wanted
        self._on_bad(BadRow(f"{self._topic}, partition {number}", wanted, problem))
        self._next[number] = first
        if first == self.ends[number]:
            self._ended(reading, number)
        else:
            at = TopicPartition(self._topic, number, first)
            reading.consumer.incremental_unassign([at])
            reading.consumer.incremental_assign([at])

    def _unreadable(self, error: KafkaError) -> ReplayError:
        return ReplayError(
            f"cannot read {self._topic}: {error.str()}. See to the broker or the rights on the topic, then run again."
        )

    # --- by time

    def _merged(self, reading: _Reading) -> Iterator[list[Row]]:
        waiting: dict[int, deque[Row]] = {number: deque() for number in reading.left}
        merged = heapq.merge(*(self._of_partition(reading, waiting, n) for n in waiting), key=itemgetter(0))
        while rows := [row for _, row in islice(merged, _FETCH_RECORDS)]:
            yield rows

    def _of_partition(
        self, reading: _Reading, waiting: Mapping[int, deque[Row]], number: int
    ) -> Iterator[tuple[int, Row]]:
        """Its rows, each with its time, or that of the one before where it has none."""
        at_ms = -1
        rows = waiting[number]
        while True:
            while not rows:
                if number not in reading.left:
                    return
                self._hold_back(reading, waiting)
                for row in self._fetch(reading):
                    waiting[row.partition].append(row)
            row = rows.popleft()
            at_ms = row.time_ms if row.time_ms >= 0 else at_ms
            yield at_ms, row

    def _hold_back(self, reading: _Reading, waiting: Mapping[int, deque[Row]]) -> None:
        """Fetch no more of partitions that are far ahead of the others, until they are not."""
        ahead = {number for number in reading.left if len(waiting[number]) > _WAITING_ROWS}
        near = {number for number in reading.left if len(waiting[number]) < _WAITING_ROWS // 2}
        if more := ahead - reading.held:
            reading.consumer.pause([TopicPartition(self._topic, number) for number in more])
        if less := near & reading.held:
            reading.consumer.resume([TopicPartition(self._topic, number) for number in less])
        reading.held = (reading.held | ahead) - near


class _Reading:
    """What is going on while a range is read. left: partitions that have not ended; held: those that are paused."""

    def __init__(self, consumer: Consumer, left: set[int]) -> None:
        self.consumer, self.left = consumer, left
        self.held: set[int] = set()
        self.silent_s = 0.0


class _Time(msgspec.Struct, gc=False):
    occurred_at: int | float | str


class _RowMaker:
    """Rows of records."""

    def __init__(self, settings: Settings) -> None:
        self._fast = msgspec.json.Decoder(_Time).decode
        self._slow = EventDecoder(settings.events.max_bytes, max_future_ms=None).decode

    def row(self, message: Message, partition: int, offset: int) -> Row:
        """The row of a record."""
        value, key = message.value(), message.key()
        try:
            headers = message.headers()
        except SystemError:
            # The name of a header is not UTF-8. A worker makes a dead letter of it; so does one that reads no value.
            value = headers = None
        try:
            at_ms = self._fast(value).occurred_at
            if type(at_ms) is not int or not FIRST_MS <= at_ms < END_MS:
                at_ms = time_ms(at_ms)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError, TypeError):
            at_ms = self._slow_time_ms(value, key, headers)
        kind, received_ms = message.timestamp()
        received_ms = -1 if kind == TIMESTAMP_NOT_AVAILABLE else received_ms
        return Row(value, key or b"", at_ms, offset, 0, partition, offset, received_ms, headers or ())

    def _slow_time_ms(self, value: bytes | None, key: bytes | None, headers: Headers | None) -> int:
        try:
            return self._slow(value, key, headers, now_ms=0).occurred_at_ms
        except EventError:
            return -1
