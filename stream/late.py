"""When an event happened by the log's clock, and the way of those that came too late.

occurred_at, sent_at, record's timestamp ── EventClock ──> event time, or a dead letter (future_time)
event time, watermark of the partition ──── late? ────────> late topic, bytes unchanged, how late in headers
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from confluent_kafka import Message

from state.clock import SkewSettings, covering_windows, skew_ms
from stream.contract.control import LATE_HEADERS, error_headers, first_sent_ms
from stream.contract.event import Event, Headers, future_time
from stream.contract.times import iso_utc
from stream.dead_letter import headers_of
from stream.errors import EventError
from stream.metrics import Metrics
from stream.settings import EventsSection

if TYPE_CHECKING:
    from stream.engine.chunk import Chunk

REASON = "late"
_STAGE = "time"


class EventClock:
    """Judges the times of events by their records; counts what it changed. No other state: as a log, so its times."""

    def __init__(self, settings: EventsSection) -> None:
        self._max_future_ms = settings.max_future_s * 1000
        self._clamps = settings.future_policy == "clamp"
        self._skew: SkewSettings | None = None
        if settings.correct_skew != "off":
            self._skew = SkewSettings(
                settings.skew_threshold_s * 1000, settings.max_skew_s * 1000, settings.correct_skew == "both"
            )
        self.corrected = 0
        """Events whose sender's clock was corrected,"""
        self.clamped = 0
        """events ahead of their record that were taken to be of its time,"""
        self.refused = 0
        """and those that were refused, since they were counted last."""

    def time_ms(self, event: Event, record_ms: int) -> int:
        """When `event`, as decoded, happened: ms since 1970, at most `record_ms`, its record's timestamp.

        Raises:
            EventError: too far ahead, by events.max_future_s (future_time).
        """
        at_ms: int = event.occurred_at  # type: ignore[assignment]  # after decoding, times are numbers of ms
        if event.sent_at is not None and self._skew is not None:
            skew = skew_ms(at_ms, event.sent_at, record_ms, self._skew)  # type: ignore[arg-type]
            if skew:
                self.corrected += 1
                at_ms += skew
        if at_ms > record_ms:
            if at_ms > record_ms + self._max_future_ms and not self._clamps:
                self.refused += 1
                raise future_time(at_ms, record_ms, self._max_future_ms)
            self.clamped += 1
            return record_ms
        return at_ms

    def count(self, metrics: Metrics) -> None:
        """Add what was changed since the last call to the counters of a worker."""
        if self.corrected:
            metrics.skew_corrected.inc(self.corrected)
        if self.clamped:
            metrics.future_events.labels("clamped").inc(self.clamped)
        if self.refused:
            metrics.future_events.labels("refused").inc(self.refused)
        self.corrected = self.clamped = self.refused = 0


def first_record_ms(headers: Headers, record_ms: int) -> int:
    """The timestamp by which an event is judged that was sent on under another key: that of its first record, ms.

    How long it waited for its key is no fault of its sender's clock. Never later than `record_ms`, whatever the
    headers say.
    """
    first_ms = first_sent_ms(headers)
    return record_ms if first_ms is None else min(first_ms, record_ms)


def send_late(
    chunk: Chunk,
    topic: str,
    record: Message,
    *,
    late_by_ms: int,
    watermark_ms: int,
    grace_ms: int,
    windows: Sequence[tuple[str, int]],
) -> None:
    """Put `record` on the late `topic`, in the chunk's transaction.

    Key, value and headers are the record's own; added are the headers of dead letters, with the reason "late", and
    `LATE_HEADERS`. `windows`: (name, size in s) of those that states are kept by.
    """
    event_ms = watermark_ms - late_by_ms
    missed, covering = covering_windows(event_ms, watermark_ms, windows)
    why = EventError(
        REASON,
        f"the event of {iso_utc(event_ms)} is {late_by_ms / 1000:.3f} s behind the newest of its partition "
        f"({iso_utc(watermark_ms)}), more than events.grace_s ({grace_ms // 1000}): if that is to be expected, "
        "raise events.grace_s, or let such events in with events.late_policy",
    )
    added = error_headers(
        why,
        stage=_STAGE,
        topic=str(record.topic()),
        partition=record.partition() or 0,
        offset=record.offset() or 0,
    )
    told = (late_by_ms, event_ms, watermark_ms, grace_ms, ",".join(missed), ",".join(covering))
    own = headers_of(record)
    chunk.send(
        topic,
        record.value(),
        record.key(),
        headers=[*own, *added, *[(name, str(value).encode()) for name, value in zip(LATE_HEADERS, told, strict=True)]],
    )
