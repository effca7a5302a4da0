"""Records that cannot be used: kept with their bytes unchanged, their reason in headers."""

from __future__ import annotations

from confluent_kafka import Message

from stream.contract.control import error_headers
from stream.engine.chunk import Chunk
from stream.errors import EventError


def send_dead_letter(chunk: Chunk, topic: str, record: Message, error: EventError, stage: str) -> None:
    """Put `record` on the dead-letter `topic`, in the chunk's transaction.

    Key and value are the record's own bytes, and so are its headers; added are those of `error_headers`: what
    was wrong, in which stage, and where the record came from.
    """
    own = [(name, value) for name, value in record.headers() or []]
    added = error_headers(
        error,
        topic=str(record.topic()),
        partition=record.partition() or 0,
        offset=record.offset() or 0,
        stage=stage,
    )
    chunk.send(topic, record.value(), record.key(), headers=own + list(added))
