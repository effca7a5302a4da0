"""Records that cannot be used: kept with their bytes unchanged, their reason in headers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka import Message

from stream.contract.control import error_headers
from stream.errors import EventError

if TYPE_CHECKING:
    from stream.engine.chunk import Chunk


def headers_of(record: Message) -> list[tuple[str, bytes | None]]:
    """The headers of a record.

    Raises:
        EventError: the name of one is not UTF-8. The record has no headers afterwards: confluent-kafka keeps a
            half-made list with a NULL in it, which crashes the process when it is touched.
    """
    try:
        return [(name, value) for name, value in record.headers() or []]
    except SystemError:
        record.set_headers([])
        raise EventError("bad_header", "the name of a header is not UTF-8") from None


def send_dead_letter(chunk: Chunk, topic: str, record: Message, error: EventError, stage: str) -> None:
    """Put `record` on the dead-letter `topic`, in the chunk's transaction.

    Key and value are the record's own bytes, and so are its headers; added are those of `error_headers`: what
    was wrong, in which stage, and where the record came from.
    """
    try:
        own = headers_of(record)
    except EventError:
        own = []  # they cannot be read, so they cannot be kept; the reason says so
    added = error_headers(
        error,
        topic=str(record.topic()),
        partition=record.partition() or 0,
        offset=record.offset() or 0,
        stage=stage,
    )
    chunk.send(topic, record.value(), record.key(), headers=[*own, *added])
