"""Events from a file onto the events topic, or items onto the items topic: JSON lines, CSV or Parquet, also gzipped.

A JSON line of an event goes out as it is. A row of a table becomes a JSON object of its columns; without an event id of
its own it gets FILE:ROW, so that producing the file twice counts its events once.

An item goes out under our own names alone, keyed by its item_id; one whose column `deleted` is true goes out as a
tombstone, for which nothing else of the row matters.
"""

import csv
import gzip
import io
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import IO, Any, Protocol

import msgspec
from confluent_kafka import KafkaError, Message, Producer

from stream.brokers import reach
from stream.contract.event import EventDecoder, encode_event
from stream.contract.item import decode_item, encode_item
from stream.errors import ContractError, EventError, ProduceError, RefusedError, TopicError
from stream.late import EventClock
from stream.pseudonym import Pseudonyms
from stream.settings import Settings

FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".parquet": "parquet"}
# Of our own fields, those that are numbers: CSV has only text.
_NUMBERS = frozenset({"quantity", "price", "value", "position", "dwell_ms"})
# Of an item's fields, those that are true or false, as tables write them.
_FLAGS = frozenset({"available", "deleted"})
_FLAG_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
# How the catalogues of shops write a path in one cell.
_PATH_SEPARATOR = " > "
_PARQUET_ROWS = 4096
_FLUSH_TIMEOUT_S = 60.0
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Reading:
    """How to read a file. columns: our field -> its column there; event_type: of rows that have none; of_items: its
    rows are items, not events."""

    columns: Mapping[str, str] = field(default_factory=dict)
    event_type: str | None = None
    of_items: bool = False


@dataclass(frozen=True)
class BadRow:
    """A row that was not sent. row: counted from 1, for JSON lines and CSV the line it begins at."""

    file: str
    row: int
    problem: str

    def __str__(self) -> str:
        return f"{self.file}:{self.row}: {self.problem}"


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


class EventFile:
    """The rows of a file, events or items. Iterating gives (row number, value of the record, or a problem); once only.

    Raises RefusedError when there is no such file or its kind is unknown; while iterating ProduceError, when it
    turns out not to be of its kind or ends in the middle.
    """

    def __init__(self, path: Path, reading: Reading | None = None) -> None:
        self.path = path
        self.name = "standard input" if str(path) == "-" else path.name
        self._reading = reading or Reading()
        self.what = "items" if self._reading.of_items else "events"
        self._format = "jsonl" if str(path) == "-" else self._find_format()
        self._raw: io.BufferedReader | None = None
        try:
            self._size = 0 if str(path) == "-" else path.stat().st_size
        except OSError as error:
            raise RefusedError(f"cannot read {path}: {error.strerror}. Give a file of {self.what}.") from None

    @property
    def share_done(self) -> float:
        """How much of the file is read, 0 to 1; 0 when that cannot be known."""
        return self._raw.tell() / self._size if self._raw is not None and self._size else 0.0

    def __iter__(self) -> Generator[tuple[int, bytes | EventError]]:
        with ExitStack() as open_files:
            try:
                if str(self.path) == "-":
                    stream: IO[bytes] = sys.stdin.buffer
                else:
                    self._raw = open_files.enter_context(self.path.open("rb"))
                    zipped = self._raw.peek(2)[:2] == _GZIP
                    stream = self._raw
                    if zipped:
                        stream = io.BufferedReader(open_files.enter_context(gzip.GzipFile(fileobj=self._raw)))
                if self._format == "jsonl":
                    yield from _json_lines(stream)
                else:
                    rows = _csv_rows(stream) if self._format == "csv" else _parquet_rows(stream)
                    yield from self._table(open_files.enter_context(closing(rows)))
            except (OSError, EOFError, ValueError, csv.Error) as error:
                # ValueError: pyarrow's for a file that is no Parquet, UnicodeDecodeError for CSV.
                raise ProduceError(f"cannot read {self.path}: {error}. Give a whole {self._format} file.") from None

    def _find_format(self) -> str:
        suffix = (self.path.with_suffix("") if self.path.suffix == ".gz" else self.path).suffix.lower()
        if suffix not in FORMATS:
            raise RefusedError(
                f"cannot tell what {self.path} is by its name. Name it {', '.join(FORMATS)}, also with .gz "
                "(or give - for JSON lines on standard input)."
            )
        return FORMATS[suffix]

    def _table(self, rows: Iterator[tuple[int, dict[str, Any]]]) -> Iterator[tuple[int, bytes | EventError]]:
        columns, event_type = self._reading.columns, self._reading.event_type
        for number, row in rows:
            for own, column in columns.items():
                if column not in row and number <= 2:
                    raise ProduceError(
                        f"{self.path} has no column {column!r}. It has: {', '.join(row)}. Mend --map {own}={column}."
                    )
                row[own] = row.pop(column, None)
            event = {name: value for name, value in row.items() if value is not None and value != ""}
            if self._reading.of_items:
                event = {name: _item_cell(name, value) for name, value in event.items()}
            else:
                if event_type is not None:
                    event.setdefault("event_type", event_type)
                if not any(name in event for name in ("event_id", "eventId", "messageId", "message_id")):
                    event["event_id"] = f"{self.name}:{number}"
            try:
                yield number, msgspec.json.encode(event)
            except (TypeError, ValueError) as error:
                yield number, EventError("wrong_type", f"the row cannot be written as JSON: {error}")


def _json_lines(stream: IO[bytes]) -> Iterator[tuple[int, bytes | EventError]]:
    for number, line in enumerate(stream, 1):
        if line.strip():
            yield number, line.strip()


def _csv_rows(stream: IO[bytes]) -> Generator[tuple[int, dict[str, Any]]]:
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    try:
        reader = csv.DictReader(text)
        line = 2
        for row in reader:
            yield line, {name: _csv_value(name, cell) for name, cell in row.items() if isinstance(name, str)}
            line = reader.line_num + 1
    finally:
        text.detach()  # the stream is closed by who opened it


def _csv_value(name: str, text: str | None) -> Any:
    """A field as JSON has it; ids stay text ("007"), and what is no number is left for the contract to refuse."""
    if text and name in _NUMBERS:
        try:
            return int(text) if text.isdigit() else float(text)
        except ValueError:
            return text
    if text and name in ("items", "properties"):
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError:
            return text
    return text


def _item_cell(name: str, value: Any) -> Any:
    """A field of an item as JSON has it. What is none is left for the contract to refuse."""
    if isinstance(value, Decimal):  # the type of money in Parquet
        return float(value)
    if name in _FLAGS and type(value) is int and value in (0, 1):
        return bool(value)
    if not isinstance(value, str):
        return value
    if name in _FLAGS:
        return _FLAG_WORDS.get(value.strip().lower(), value)
    if name == "category" and _PATH_SEPARATOR in value:
        return [part for part in map(str.strip, value.split(_PATH_SEPARATOR)) if part]
    if name in _NUMBERS or name == "properties" or (name == "category" and value.startswith("[")):
        try:
            return msgspec.json.decode(value)
        except msgspec.DecodeError:
            return value
    return value


def _parquet_rows(stream: IO[bytes]) -> Generator[tuple[int, dict[str, Any]]]:
    from pyarrow.parquet import ParquetFile  # late: 0.2 s that the other formats need not wait

    number = 0
    for batch in ParquetFile(stream).iter_batches(_PARQUET_ROWS):
        for row in batch.to_pylist():
            number += 1
            yield number, row


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
    decoder = EventDecoder(settings.events.max_bytes, max_future_ms=None)
    clock = EventClock(settings.events)

    def record(value: bytes) -> tuple[bytes, bytes | None]:
        now_ms = int(time.time() * 1000)
        event = decoder.decode(value, now_ms=now_ms)
        clock.time_ms(event, now_ms)  # refuses, as the worker would, one too far ahead
        if pseudonyms is not None:
            event = pseudonyms.applied(event)
            value = encode_event(event)
        return event.key, value

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

    producer = Producer(settings.client_properties(_producer_properties(settings)))
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


def _producer_properties(settings: Settings) -> dict[str, Any]:
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
