"""Events whose key is not their user get the key of their user, and with it their partition.

They come from the interest agent, or straight from producers that cannot set the key. Exactly once: the chunk is
one transaction with the source offset.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from stream.contract.control import with_first_sent
from stream.contract.event import EventDecoder
from stream.dead_letter import headers_of, send_dead_letter
from stream.engine import Chunk
from stream.errors import EventError
from stream.late import EventClock, first_record_ms
from stream.metrics import Metrics
from stream.settings import Settings


class RekeyAgent:
    """Sends each record on to the events topic under its user; the bytes unchanged, a header more: when it was sent."""

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._topics = settings.topics
        self._max_bytes = settings.events.max_bytes
        self._metrics = metrics
        self._now_ms = now_ms
        self._decode = EventDecoder(settings.events.max_bytes, max_future_ms=None).decode
        self._clock = EventClock(settings.events)

    def process(self, chunk: Chunk) -> None:
        """Collect the records of `chunk` under their users; what cannot be read is a dead letter."""
        for record in chunk.records:
            kind, timestamp_ms = record.timestamp()
            now_ms = self._now_ms() if kind == TIMESTAMP_NOT_AVAILABLE else int(timestamp_ms)
            try:
                headers = headers_of(record)
                event = self._decode(record.value(), record.key(), headers, now_ms=now_ms)
                self._clock.time_ms(event, first_record_ms(headers, now_ms))  # too far ahead?
                self._check_size(record, headers)
            except EventError as error:
                send_dead_letter(chunk, self._topics.dead_letters, record, error, "rekey")
                self._metrics.dead_letters.labels("rekey", error.reason).inc()
                continue
            # An erasure holds against what was sent before it, wherever that waited meanwhile.
            chunk.send(self._topics.events, record.value(), event.key, headers=with_first_sent(headers, now_ms))

    def _check_size(self, record: Message, headers: list[tuple[str, bytes | None]]) -> None:
        """Refuse what the events topic might not take: one record must not stop the partition for ever.

        Raises:
            EventError: value, key and headers together pass the limit of an event.
        """
        size_bytes = len(record.value() or b"") + len(record.key() or b"")
        size_bytes += sum(len(name) + len(value or b"") for name, value in headers)
        if size_bytes > self._max_bytes:
            raise EventError(
                "too_large",
                f"value, key and headers have {size_bytes} bytes, more than events.max_bytes ({self._max_bytes})",
            )
