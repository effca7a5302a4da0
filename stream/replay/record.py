"""A row of a log with its place, as an agent reads it: what it asks of a Kafka message, and where it came from."""

from __future__ import annotations

import msgspec
from confluent_kafka import TIMESTAMP_CREATE_TIME


class LogRecord(msgspec.Struct, array_like=True, gc=False):
    """One record. It has the methods of `confluent_kafka.Message` that agents call, and goes from process to process
    as msgpack."""

    place: tuple[int, int]
    """Partition and offset."""
    user: bytes | None
    content: bytes | None
    record_ms: int
    """When it came: ms since 1970."""
    log: str
    """The file or topic that it stands in, and"""
    number: int
    """the row there, counted from 1; of a topic the offset."""
    more: list[tuple[str, bytes | None]] | None = None
    """Headers."""

    def key(self) -> bytes | None:
        """See Message."""
        return self.user

    def value(self) -> bytes | None:
        """See Message."""
        return self.content

    def topic(self) -> str:
        """Where it stands: for headers of what goes wrong."""
        return self.log

    def partition(self) -> int:
        """See Message."""
        return self.place[0]

    def offset(self) -> int:
        """See Message."""
        return self.place[1]

    def timestamp(self) -> tuple[int, int]:
        """See Message."""
        return TIMESTAMP_CREATE_TIME, self.record_ms

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        """See Message."""
        return self.more

    def error(self) -> None:
        """A record of a log is no error."""
        return
