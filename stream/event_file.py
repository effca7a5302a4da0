"""Files of events or items, row by row as records' values: JSON lines, CSV or Parquet, also packed.

A JSON line of an event goes out as it is. A row of a table becomes a JSON object of its columns (stream.event_table);
an event without an id of its own gets FILE:ROW, so that the file read twice counts its events once.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import sys
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, islice, repeat
from pathlib import Path
from typing import IO, Any, Protocol, cast

import msgspec

from stream.contract.event import Event, EventDecoder, encode_event
from stream.errors import EventError, ProduceError, RefusedError
from stream.event_table import TIMES, Reading, Table, sources_of
from stream.late import EventClock
from stream.pseudonym import Pseudonyms
from stream.settings import EventsSection

FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".parquet": "parquet"}
"""Kinds of files by the ending of their name."""
PACKED = (".gz", ".bz2", ".xz", ".zst")
"""Endings of packed files; that a file is packed is told by its first bytes."""
_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_BLOCK_ROWS = 4096
_PIECE_BYTES = 1 << 20
_BAD_BYTES = "surrogateescape"
"""What is no UTF-8 goes on as half a surrogate pair, which no JSON takes: the row is bad, and the others are not."""
BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError, NotImplementedError)
"""What is raised where a packed file breaks off, or is no such file."""
# Of logs without times: 2000-01-01, from where each row is a second later than the one before.
_FIRST_MS = 946_684_800_000

Rows = tuple[list[int], list[bytes | EventError]]
"""Numbers of rows, and of each the record's value or what is wrong with it."""


@dataclass(frozen=True)
class BadRow:
    """A row that was left out. row: counted from 1, for JSON lines and CSV the line it begins at; 0: the whole file."""

    file: str
    row: int
    problem: str

    def __str__(self) -> str:
        return f"{self.file}:{self.row}: {self.problem}" if self.row else f"{self.file}: {self.problem}"


class Place(Protocol):
    """Where a file lies, if not on this machine."""

    @property
    def size(self) -> int:
        """In bytes."""

    def open(self) -> IO[bytes]:
        """Its bytes. Raises OSError."""


class EventFile:
    """The rows of a file, events or items. Iterating gives (row number, value of the record, or a problem); once only.

    Args:
        path: the file; - for JSON lines on standard input.
        reading: what its rows mean.
        name: what messages and ids call it; None: its own name.
        place: where it lies; None: on this machine.
        parts: columns that its path tells (`date=2026-01-02/`), where the file has none of that name.

    Raises RefusedError when there is no such file or its kind is unknown; while iterating ProduceError, when it
    turns out not to be of its kind, lacks a column or ends in the middle.
    """

    def __init__(
        self,
        path: Path,
        reading: Reading | None = None,
        *,
        name: str | None = None,
        place: Place | None = None,
        parts: Mapping[str, str] | None = None,
    ) -> None:
        self.path = path
        self._stdin = str(path) == "-"
        self.name = "standard input" if self._stdin else name or path.name
        self._reading = reading or Reading()
        self.what = "items" if self._reading.of_items else "events"
        self._format = self._reading.kind or ("jsonl" if self._stdin else self._find_format())
        self._place, self._parts = place, parts or {}
        self._raw: IO[bytes] | None = None
        self._share_done: float | None = None
        try:
            self._size = 0 if self._stdin else place.size if place else path.stat().st_size
        except OSError as error:
            raise RefusedError(f"cannot read {path}: {error.strerror or error}. Give a file of {self.what}.") from None

    @property
    def share_done(self) -> float:
        """How much of the file is read, 0 to 1; 0 when that cannot be known."""
        if self._share_done is not None:
            return self._share_done
        return self._raw.tell() / self._size if self._raw is not None and self._size else 0.0

    def __iter__(self) -> Generator[tuple[int, bytes | EventError]]:
        blocks = self.blocks()
        try:
            for numbers, values in blocks:
                yield from zip(numbers, values, strict=True)
        finally:
            blocks.close()

    def blocks(self) -> Generator[Rows]:
        """The rows, some thousands at a time; otherwise as iterating."""
        with ExitStack() as open_files:
            try:
                stream: IO[bytes] = sys.stdin.buffer
                if not self._stdin:
                    self._raw = open_files.enter_context(self._place.open() if self._place else self.path.open("rb"))
                    stream = unpacked(self._raw, open_files)
                readers: dict[str, Callable[[IO[bytes]], Iterator[Rows]]] = {
                    "jsonl": self._json_lines,
                    "csv": self._csv,
                    "parquet": self._parquet,
                    "sequences": self._sequences,
                    "lists": self._sequences,
                }
                yield from readers[self._format](stream)
                self._share_done = 1.0 if self._size else None
            except (*BROKEN, ValueError, csv.Error) as error:
                # ValueError: pyarrow's for a file that is no Parquet, UnicodeDecodeError for CSV.
                raise ProduceError(f"cannot read {self.path}: {error}. Give a whole {self._format} file.") from None
            finally:
                self._raw = None

    def _find_format(self) -> str:
        found = format_of(self.path.name)
        if found is None:
            raise RefusedError(
                f"cannot tell what {self.path} is by its name. Name it {', '.join(FORMATS)}, also with .gz "
                "(or give - for JSON lines on standard input)."
            )
        return found

    # --- kinds

    def _json_lines(self, stream: IO[bytes]) -> Iterator[Rows]:
        reading = self._reading
        table = Table(reading, self.name, as_text=False) if reading.changes_lines or reading.mapped_only else None
        first = 1
        for lines in _blocks_of_lines(stream):
            if first == 1:
                lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
            stripped = [line.strip() for line in lines]
            numbers = [number for number, line in enumerate(stripped, first) if line]
            values: list[bytes | EventError] = [line for line in stripped if line]
            first += len(lines)
            yield numbers, values if table is None else self._mapped(table, numbers, values)

    def _mapped(self, table: Table, numbers: list[int], values: list[bytes | EventError]) -> list[bytes | EventError]:
        """JSON lines as rows of a table; what is no object stays for the contract to refuse."""
        decode = msgspec.json.Decoder(dict[str, Any]).decode
        rows: dict[int, dict[str, Any]] = {}
        for at, value in enumerate(values):
            try:
                rows[at] = decode(value)  # type: ignore[arg-type]
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
        names = dict.fromkeys(name for row in rows.values() for name in row)
        names |= dict.fromkeys(self._reading.columns.values()) if numbers and numbers[0] > 1 else {}
        columns = {name: [row.get(name) for row in rows.values()] for name in names}
        made = table.encode(columns, [numbers[at] for at in rows])
        for at, value in zip(rows, made, strict=True):
            values[at] = value
        return values

    def _csv(self, stream: IO[bytes]) -> Iterator[Rows]:
        reading = self._reading
        table = Table(reading, self.name, as_text=True)
        names = list(reading.names)
        for numbers, rows in _csv_rows(stream, reading.separator):
            if not names:
                names = rows[0].split(reading.separator) if isinstance(rows[0], str) else rows[0]
                sources_of(reading, [*names, *self._parts], self.name)  # at once, if there is no row
                numbers, rows = numbers[1:], rows[1:]
                if not rows:
                    continue
            cells, too_long = _csv_columns(rows, reading.separator, len(names))
            columns = self._with_parts(dict(zip(names, cells, strict=True)), len(rows))
            values = table.encode(columns, numbers)
            for k, count in too_long.items():
                values[k] = EventError("wrong_cells", f"the row has {count} cells, and there are {len(names)} columns")
            yield numbers, values

    def _parquet(self, stream: IO[bytes]) -> Iterator[Rows]:
        from pyarrow.parquet import ParquetFile  # late: 0.2 s that the other formats need not wait

        file = ParquetFile(unbuffered(stream))
        names = [*file.schema_arrow.names, *[part for part in self._parts if part not in file.schema_arrow.names]]
        sources = sources_of(self._reading, names, self.name)
        own_of = {column: own for own, column in sources.items()}
        wanted = [name for name in file.schema_arrow.names if name in own_of]
        table = Table(self._reading, self.name, as_text=False)
        total = file.metadata.num_rows
        first = 1
        for batch in file.iter_batches(_BLOCK_ROWS, columns=wanted, use_threads=False):
            columns = {name: _arrow_cells(batch.column(name), own_of[name]) for name in wanted}
            numbers = list(range(first, first + batch.num_rows))
            first += batch.num_rows
            self._share_done = (first - 1) / total
            yield numbers, table.encode(self._with_parts(columns, len(numbers)), numbers)

    def _with_parts(self, columns: dict[str, list[Any]], rows: int) -> dict[str, list[Any]]:
        return columns | {name: [value] * rows for name, value in self._parts.items() if name not in columns}

    def _sequences(self, stream: IO[bytes]) -> Iterator[Rows]:
        """`user item item ...` a line, or `item item ...` with the line for the user; there are no times."""
        user_first = self._format == "sequences"
        reading = self._reading
        table = Table(Reading(event_type=reading.event_type or "view"), self.name, as_text=False)
        time_ms, number = _FIRST_MS, 0
        for lines in _blocks_of_lines(stream):
            bad: list[tuple[int, EventError]] = []
            numbers: list[int] = []
            places, users, items, times = [], [], [], []
            for line in lines:
                number += 1
                tokens = line.decode("utf-8", _BAD_BYTES).split()
                if not tokens:
                    continue
                user, of_user = (tokens[0], tokens[1:]) if user_first else (str(number), tokens)
                if not of_user:
                    bad.append((number, EventError("no_item", "the line names a user and no item")))
                for k, item in enumerate(of_user, 1):
                    numbers.append(number)
                    places.append(f"{number}:{k}")
                    users.append(user)
                    items.append(item)
                    times.append(time_ms)
                    time_ms += 1000
            columns: dict[str, list[Any]] = {"user_id": users, "item_id": items, "occurred_at": times}
            values = table.encode(columns, places)
            yield [*numbers, *[at for at, _ in bad]], [*values, *[why for _, why in bad]]


def format_of(name: str) -> str | None:
    """The kind of a file by its name, one of FORMATS' values; None: it cannot be told."""
    return FORMATS.get(ending_of(name))


def ending_of(name: str) -> str:
    """The ending of a file's name, that of packed files aside, in small letters."""
    path = Path(name)
    return (path.with_suffix("") if path.suffix.lower() in PACKED else path).suffix.lower()


def unpacked(raw: IO[bytes], open_files: ExitStack) -> IO[bytes]:
    """The bytes of a file, unpacked if they are packed, whatever its name."""
    head = raw.read(6)
    raw.seek(0)
    packing = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)
    if packing == "gzip":
        return io.BufferedReader(open_files.enter_context(gzip.GzipFile(fileobj=raw)))
    if packing == "bz2":
        return io.BufferedReader(open_files.enter_context(bz2.BZ2File(raw)))
    if packing == "xz":
        return io.BufferedReader(open_files.enter_context(lzma.LZMAFile(raw)))
    if packing == "zstd":
        from pyarrow import CompressedInputStream

        return io.BufferedReader(open_files.enter_context(CompressedInputStream(raw, "zstd")))
    return raw


def unbuffered(stream: IO[bytes]) -> IO[bytes]:
    """For Parquet, which is read here and there, and in large pieces."""
    return getattr(stream, "raw", stream)


def _blocks_of_lines(stream: IO[bytes]) -> Iterator[list[bytes]]:
    """Lines some thousands at a time; where the file breaks off, those before that, and then the error."""
    if stream is getattr(sys.stdin, "buffer", None):  # a service may have none
        yield from _lines_as_they_come(cast(io.BufferedReader, stream))
        return
    while True:
        lines: list[bytes] = []
        try:
            for line in islice(stream, _BLOCK_ROWS):
                lines.append(line)  # noqa: PERF402 - what came before an error is kept
        except BROKEN:
            if lines:
                yield lines
            raise
        if not lines:
            return
        yield lines


def _lines_as_they_come(stream: io.BufferedReader) -> Iterator[list[bytes]]:
    """Those that are there: who writes to us may pause in the middle."""
    rest = b""
    while piece := stream.read1(_PIECE_BYTES):
        *lines, rest = (rest + piece).split(b"\n")
        if lines:
            yield [line + b"\n" for line in lines]
    if rest:
        yield [rest]


def _csv_rows(stream: IO[bytes], separator: str) -> Iterator[tuple[list[int], list[str] | list[list[str]]]]:
    """The rows of a CSV file with the numbers of the lines they begin at, some thousands at a time: as text, or where
    cells are quoted, cell by cell."""
    first = 1
    for lines in _blocks_of_lines(stream):
        if first == 1:
            lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
        block = b"".join(lines)
        if separator == "," and b'"' in block:
            yield from _quoted_rows(chain(lines, stream), first)
            return
        texts = block.decode("utf-8", _BAD_BYTES).replace("\r\n", "\n").split("\n")
        numbers = [number for number, text in enumerate(texts, first) if text]
        if numbers:
            yield numbers, [text for text in texts if text]
        first += len(lines)


def _csv_columns(
    rows: list[str] | list[list[str]], separator: str, width: int
) -> tuple[list[list[str]], dict[int, int]]:
    """Rows as `width` columns, and which have more cells than that, how many. Cells that a row lacks are empty."""
    if isinstance(rows[0], str):
        texts: list[str] = rows
        if set(map(str.count, texts, repeat(separator))) == {width - 1}:
            # All in one: a list for each row costs the collector of garbage more than all else.
            flat = separator.join(texts).split(separator)
            return [flat[k::width] for k in range(width)], {}
        rows = [text.split(separator) for text in texts]
    wrong = {k: row for k, row in enumerate(rows) if len(row) != width}
    for k, row in wrong.items():
        rows[k] = [*row[:width], *[""] * (width - len(row))]
    return list(map(list, zip(*rows, strict=True))), {k: len(row) for k, row in wrong.items() if any(row[width:])}


def _quoted_rows(lines: Iterable[bytes], first: int) -> Iterator[tuple[list[int], list[list[str]]]]:
    reader = csv.reader(line.decode("utf-8", _BAD_BYTES) for line in lines)

    def numbered() -> Iterator[tuple[int, list[str]]]:
        begin = first
        for row in reader:
            yield begin, row
            begin = first + reader.line_num

    rows = ((number, row) for number, row in numbered() if row)
    while block := list(islice(rows, _BLOCK_ROWS)):
        yield [number for number, _ in block], [row for _, row in block]


def _arrow_cells(column: Any, own: str) -> list[Any]:
    """A column of Parquet as Python has it. Times of events become ms since 1970; without a zone they are UTC."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
    elif pa.types.is_timestamp(kind):
        # Through ms or us: Python's own times know no ns.
        column = column.cast(pa.timestamp("ms" if own in TIMES else "us", kind.tz), safe=False)
        if own in TIMES:
            column = column.cast(pa.int64())
    elif pa.types.is_decimal(kind):  # the type of money
        column = column.cast(pa.float64())
    cells: list[Any] = column.to_pylist()
    return cells


class RecordMaker:
    """Key and value of the record of an event, as it is produced; refuses what a worker would.

    Args:
        settings: limits of events.
        pseudonyms: in place of the users' ids; then an event goes out under our own names, without what those do not
            name.
    """

    def __init__(self, settings: EventsSection, pseudonyms: Pseudonyms | None = None) -> None:
        self._decoder = EventDecoder(settings.max_bytes, max_future_ms=None)
        self._clock = EventClock(settings)
        self._pseudonyms = pseudonyms

    def record(self, value: bytes, now_ms: int) -> tuple[bytes, bytes, Event]:
        """Key, value, and the event as decoded, for a value. Raises EventError."""
        event = self._decoder.decode(value, now_ms=now_ms)
        # After decoding, times are numbers of ms.
        if event.occurred_at > now_ms or event.sent_at is not None:  # type: ignore[operator]
            self._clock.time_ms(event, now_ms)  # refuses, as the worker would, one too far ahead
        if self._pseudonyms is not None:
            event = self._pseudonyms.applied(event)
            value = encode_event(event)
        return event.key, value, event
