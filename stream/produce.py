"""Events from a file onto the events topic, or items onto the items topic: JSON lines, CSV or Parquet, also gzipped.

A JSON line of an event goes out as it is. A row of a table becomes a JSON object of its columns; without an event id of
its own it gets FILE:ROW, so that producing the file twice counts its events once.

An item goes out under our own names alone, keyed by its item_id; one whose column `deleted` is true goes out as a
tombstone, for which nothing else of the row matters.
"""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import msgspec
from confluent_kafka import KafkaError, Message, Producer

from stream.brokers import reach
from stream.contract.item import decode_item, encode_item
from stream.errors import ContractError, EventError, ProduceError, TopicError
from stream.event_file import BadRow, EventFile, RecordMaker
from stream.pseudonym import Pseudonyms
from stream.settings import Settings

_FLUSH_TIMEOUT_S = 60.0


class Rows(Protocol):
    """Where records come from: a file, or what makes them up."""

    name: str
    what: str
    """What its rows are: events, items."""

    def __iter__(self) -> Generator[tuple[int, bytes | EventError]]:
        """Row number, and the value of the record or a problem; once only."""


@dataclass
class Produced:
    """What became of a file. seconds: from the first row to the last acknowledgement."""

    sent: int = 0
    bad: int = 0
    seconds: float = 0.0


def produce_file(
    settings: Settings,
    file: Rows,
    *,
    rate_per_s: float | None = None,
    limit: int | None = None,
    pseudonyms: Pseudonyms | None = None,
    on_bad: Callable[[BadRow], None],
    on_sent: Callable[[int], None] = lambda _: None,
) -> Produced:
    """Sends the events of `file`, keyed by user, to murmur2's partition; ends when all are acknowledged.

    rate_per_s: events a second at most. limit: rows at most. pseudonyms: in place of the users' ids; then an event goes
    out under our own names, without what those do not name. on_bad: told of each row that is no event, which
    is left out. on_sent: told now and then how many were sent.
    Raises BrokerError and TopicError before the first event, ProduceError when the broker did not take one.
    """
    maker = RecordMaker(settings.events, pseudonyms)

    def record(value: bytes) -> tuple[bytes, bytes | None]:
        key, value, _ = maker.record(value, int(time.time() * 1000))
        return key, value

    return _produce(
        settings,
        settings.topics.events,
        file,
        record,
        rate_per_s=rate_per_s,
        limit=limit,
        on_bad=on_bad,
        on_sent=on_sent,
        again="events that have ids are counted once",
    )


def produce_items(
    settings: Settings,
    file: EventFile,
    *,
    rate_per_s: float | None = None,
    limit: int | None = None,
    on_bad: Callable[[BadRow], None],
    on_sent: Callable[[int], None] = lambda _: None,
) -> Produced:
    """Sends the items of `file`, and tombstones for those that it says are deleted; otherwise as `produce_file`.

    file: with `Reading.of_items`.
    """
    return _produce(
        settings,
        settings.topics.items,
        file,
        item_record,
        rate_per_s=rate_per_s,
        limit=limit,
        on_bad=on_bad,
        on_sent=on_sent,
        again="the last record of an item counts",
    )


def item_record(value: bytes) -> tuple[bytes, bytes | None]:
    """Key and value of an item's record, from a row with the item's fields and, perhaps, `deleted`.

    Raises ContractError, its text without values, when the row is no item.
    """
    try:
        row = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ContractError(f"not JSON: {error}") from None
    if not isinstance(row, dict):
        raise ContractError("the row is no JSON object")
    deleted = row.pop("deleted", False)
    if deleted is None or isinstance(deleted, bool):
        item = decode_item(msgspec.json.encode({"item_id": row.get("item_id")} if deleted else row))
        return item.item_id.encode(), None if deleted else encode_item(item)
    raise ContractError("deleted is neither true nor false")


def _produce(
    settings: Settings,
    topic: str,
    file: Rows,
    record: Callable[[bytes], tuple[bytes, bytes | None]],
    *,
    rate_per_s: float | None,
    limit: int | None,
    on_bad: Callable[[BadRow], None],
    on_sent: Callable[[int], None],
    again: str,
) -> Produced:
    """See `produce_file`. record: key and value for a row; raises EventError or ContractError. again: what becomes of
    a file that is produced a second time."""
    if topic not in reach(settings.client_properties()).partitions:
        raise TopicError(f"topic {topic} is missing. Create it: driftline topics create")
    refused: list[KafkaError] = []
    result = Produced()

    def acknowledged(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            refused.append(error)

    producer = Producer(settings.client_properties(producer_properties(settings)))
    began = time.monotonic()
    rows = iter(file)
    try:
        for number, row in islice(rows, limit):
            try:
                if isinstance(row, EventError):
                    raise row
                key, value = record(row)
            except (EventError, ContractError) as error:
                result.bad += 1
                reason = f" ({error.reason})" if isinstance(error, EventError) else ""
                on_bad(BadRow(file.name, number, f"{error}{reason}"))
                continue
            _send(producer, topic, key, value, acknowledged)
            result.sent += 1
            if rate_per_s:
                _pace(producer, began + result.sent / rate_per_s)
            if result.sent % 256 == 0 or rate_per_s:
                producer.poll(0)
                on_sent(result.sent)
            if refused:
                break
    finally:
        rows.close()
        left = producer.flush(_FLUSH_TIMEOUT_S)
        result.seconds = time.monotonic() - began
    if refused or left:
        why = refused[0].str() if refused else f"no acknowledgement within {_FLUSH_TIMEOUT_S:g} s"
        raise ProduceError(
            f"the broker did not take {len(refused) + left} of {result.sent} {file.what}: {why}. "
            f"See to the broker and produce the file again: {again}."
        )
    on_sent(result.sent)
    return result


def producer_properties(settings: Settings) -> dict[str, Any]:
    """Of who produces events: each goes to the partition where its user's state is, once, in order."""
    return {
        "partitioner": "murmur2_random",  # as Java's: a user's events are where his state is
        "enable.idempotence": True,
        "linger.ms": 5,
        "compression.type": "lz4",
        # An event of the largest size, and room for its key and framing.
        "message.max.bytes": max(1_000_000, settings.events.max_bytes) + 65_536,
    }


def _send(
    producer: Producer,
    topic: str,
    key: bytes,
    value: bytes | None,
    acknowledged: Callable[[KafkaError | None, Message], None],
) -> None:
    deadline = time.monotonic() + _FLUSH_TIMEOUT_S
    while True:
        try:
            producer.produce(topic, value, key, on_delivery=acknowledged)
        except BufferError:  # more on the way than the client holds: wait for some to arrive
            producer.poll(0.1)
            if time.monotonic() > deadline:
                raise ProduceError(
                    f"the broker has taken nothing for {_FLUSH_TIMEOUT_S:g} s. See to it, and run this again."
                ) from None
        else:
            return


def _pace(producer: Producer, due: float) -> None:
    """Waits until `due`, serving acknowledgements meanwhile."""
    while (wait_s := due - time.monotonic()) > 0:
        producer.poll(min(wait_s, 0.1))
