"""A record of a log has what agents ask of a message."""

import msgspec
import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, Message

from stream.replay.record import LogRecord

RECORD = LogRecord((3, 41), b"u1", b"{}", 1_000, "log.jsonl", 7, [("name", b"value"), ("none", None)])


def test_it_answers_as_a_message() -> None:
    assert (RECORD.key(), RECORD.value()) == (b"u1", b"{}")
    assert (RECORD.topic(), RECORD.partition(), RECORD.offset()) == ("log.jsonl", 3, 41)
    assert RECORD.timestamp() == (TIMESTAMP_CREATE_TIME, 1_000)
    assert RECORD.headers() == [("name", b"value"), ("none", None)]
    assert RECORD.error() is None


@pytest.mark.parametrize("name", ["key", "value", "topic", "partition", "offset", "timestamp", "headers", "error"])
def test_these_are_methods_of_a_message(name: str) -> None:
    assert callable(getattr(Message, name))
    assert callable(getattr(RECORD, name))


@pytest.mark.parametrize(
    "record", [RECORD, LogRecord((0, -5), None, None, -1, "", 0), LogRecord((0, 1), b"\xff\0", b"\xfe", 2**62, "é", 1)]
)
def test_it_goes_to_another_process_and_comes_as_it_was(record: LogRecord) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode([record, RECORD]), type=list[LogRecord]) == [record, RECORD]
