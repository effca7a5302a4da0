"""Event logs as columns: what training, counting and evaluation read.

Files, each also packed with gzip: published data sets as model.training.layouts has them, or JSON lines (`.jsonl`,
`.ndjson`, `.json`), CSV (`.csv`) and Parquet (`.parquet`) with the fields of our events:

    event_type, occurred_at, user_id | anonymous_id, item_id       needed
    event_id, tenant, domain, value                                used when there
    category, item_name, brand, price                              of the item: the first that is told stays
    items [{item_id, category, item_name, brand, price}]           JSON lines only: an event of several items

A row that cannot be used stops the reading with a DatasetError that names file, row and column: a log that is
half understood trains a model that is half wrong.

Of the events, those that speak for an item (weight above 0: not impressions, dislikes, hides, removals, low ratings)
and session starts become rows. Users of different tenants are different users. A user's rows are in order of time,
those of one time in the file's order.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from model.errors import DatasetError
from model.training.details import NOTHING, ItemDetails, price_of
from model.training.layouts import LAYOUTS, TABLE_LAYOUTS, Rows, files_of, find_layout, item_details, opened, read_rows
from state.keys import event_key, key_of, user_key
from state.weights import DEFAULT_WEIGHTS, EVENT_TYPES, RATING, SESSION_START, WeightSettings, weigh

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]

SESSION_GAP_S = 1800
"""A pause longer than this begins a new session, as in the state of a user."""

_CODES = {name: code for code, name in enumerate(EVENT_TYPES)}
_SPEAKS_FOR = frozenset(_CODES[name] for name, weight in DEFAULT_WEIGHTS.items() if weight > 0)
_WEIGHTS = WeightSettings()
_TYPES = pa.array(EVENT_TYPES)
_KEPT = np.array([*_SPEAKS_FOR, SESSION_START])
"""Codes of events that become rows."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """m rows of events in columns, sorted by user and then time.

    A row is an item, or (item == n) a session's start. Numbers of users and items index the lists of ids; a
    part of a dataset keeps the lists of the whole.
    """

    user: I32
    """i32[m]."""
    item: I32
    """i32[m]: 0..n-1, or n for a session's start."""
    type: U8
    """u8[m]: index into state.weights.EVENT_TYPES."""
    time_ms: I64
    """i64[m]: when it happened, UTC."""
    session: I32
    """i32[m]: number of the row's session, never decreasing."""
    user_ids: list[str]
    item_ids: list[str]
    item_names: list[str]
    item_categories: list[str]
    source: str
    """Where the rows came from, for messages and for the artifact."""
    item_domains: list[str] = field(default_factory=list)
    """The domain of each item by its first event that names one, '' for none; empty where none has one."""
    item_brands: list[str] = field(default_factory=list)
    """The brand of each item by its first event that names one, '' for none; empty where none has one."""
    item_prices: list[float | None] = field(default_factory=list)
    """The price of each item by its first event that tells one, None for none; empty where none has one."""
    listed: list[ItemDetails] = field(default_factory=list)
    """What a catalogue tells of each item: names and categories above are taken from it already, where it tells them.
    Empty without a catalogue."""
    has_time: bool = True
    """False: the log has an order and no times. time_ms is then the place among the user's rows, 0, 1, 2, ..., and
    nothing may be made of it beyond the order: no sessions, no decay, no split by time."""

    def __len__(self) -> int:
        return len(self.user)

    @property
    def items(self) -> int:
        """n: items of the catalogue, and the token of a session's start."""
        return len(self.item_ids)

    @property
    def is_item(self) -> Bool:
        """bool[m]: rows that are items and not starts of sessions."""
        return self.item < self.items

    def select(self, rows: Bool | I64) -> Dataset:
        """The part with these rows, in their order; ids and catalogue stay."""
        return replace(
            self,
            user=self.user[rows],
            item=self.item[rows],
            type=self.type[rows],
            time_ms=self.time_ms[rows],
            session=self.session[rows],
        )

    def details(self, told: Bool) -> list[ItemDetails]:
        """What is known of each item: what the catalogue tells, then what events tell where told[item]. bool[n]."""
        n = self.items
        events = zip(
            self.item_names,
            self.item_categories,
            self.item_brands or [""] * n,
            self.item_prices or [None] * n,
            strict=True,
        )
        return [
            listed.over(ItemDetails(name, category, category, brand, price)) if is_told else listed
            for is_told, listed, (name, category, brand, price) in zip(
                told.tolist(), self.listed or [NOTHING] * n, events, strict=True
            )
        ]

    def catalog_digest(self) -> bytes:
        """Tells catalogues apart: the ids, and all that is told of the items."""
        digest = hashlib.sha256()
        for column in (
            self.item_ids,
            self.item_names,
            self.item_categories,
            self.item_domains,
            self.item_brands,
            self.item_prices,
            self.listed,
        ):
            digest.update(msgspec.json.encode(column) + b"\n")
        return digest.digest()

    def fingerprint(self) -> dict[str, Any]:
        """What identifies the data in an artifact: counts, span of time, digest of the columns and of the catalogue."""
        digest = hashlib.sha256()
        for column in (self.user, self.item, self.type, self.time_ms):
            digest.update(np.ascontiguousarray(column).tobytes())
        digest.update(self.catalog_digest())
        return {
            "source": self.source,
            "events": int(self.is_item.sum()),
            "users": len(np.unique(self.user)),
            "items": self.items,
            "first_time_ms": int(self.time_ms.min()) if len(self) else 0,
            "last_time_ms": int(self.time_ms.max()) if len(self) else 0,
            "sha256": digest.hexdigest(),
        }


def dataset_from_arrays(
    *,
    user: I32,
    item: I32,
    type: U8,
    time_ms: I64,
    user_ids: list[str],
    item_ids: list[str],
    item_names: list[str] | None = None,
    item_categories: list[str] | None = None,
    item_domains: list[str] | None = None,
    item_brands: list[str] | None = None,
    item_prices: list[float | None] | None = None,
    listed: list[ItemDetails] | None = None,
    new_session: Bool | None = None,
    session_gap_s: int = SESSION_GAP_S,
    source: str = "arrays",
    has_time: bool = True,
) -> Dataset:
    """Sort rows, find the sessions and make a Dataset.  All arrays have m rows.

    new_session: rows that begin a session; a start is put before each. Without it, a session begins where the data
    says so (rows with item == n), or after a pause of session_gap_s; then no start is put in, because the
    live stream would have none either, and a network must see in training what it will see when it serves.
    """
    order = np.lexsort((time_ms, user))  # stable: rows of one time stay in their order
    user, item, type, time_ms = user[order], item[order], type[order], time_ms[order]
    if new_session is not None:
        first = new_session[order]
        at = np.flatnonzero(first)
        user, time_ms = np.insert(user, at, user[at]), np.insert(time_ms, at, time_ms[at])
        item, type = np.insert(item, at, len(item_ids)), np.insert(type, at, SESSION_START)
        begins = item == len(item_ids)
    else:
        begins = item == len(item_ids)
        begins[1:] |= np.diff(time_ms) > session_gap_s * 1000
    if len(user):
        begins[0] = True
        begins[1:] |= user[1:] != user[:-1]
    return Dataset(
        user=user.astype(np.int32),
        item=item.astype(np.int32),
        type=type.astype(np.uint8),
        time_ms=time_ms.astype(np.int64),
        session=(np.cumsum(begins) - 1).astype(np.int32),
        user_ids=user_ids,
        item_ids=item_ids,
        item_names=item_names if item_names is not None else list(item_ids),
        item_categories=item_categories if item_categories is not None else [""] * len(item_ids),
        source=source,
        item_domains=item_domains if item_domains is not None and any(item_domains) else [],
        item_brands=item_brands if item_brands is not None and any(item_brands) else [],
        item_prices=item_prices if item_prices is not None and any(item_prices) else [],
        listed=listed or [],
        has_time=has_time,
    )


# --- files -----------------------------------------------------------------------------------


class EventLine(msgspec.Struct, gc=False):
    """One item of an event of several."""

    item_id: str
    category: str | None = None
    item_name: str | None = None
    brand: str | int | None = None
    price: float | str | None = None


class EventRow(msgspec.Struct, gc=False):
    """What is read of an event; other fields are passed over."""

    event_type: str
    occurred_at: int | float | str
    user_id: str | None = None
    anonymous_id: str | None = None
    event_id: str | None = None
    item_id: str | None = None
    items: list[EventLine | str] = []
    category: str | None = None
    item_name: str | None = None
    brand: str | int | None = None
    price: float | str | None = None
    tenant: str | int | None = None
    domain: str | int | None = None
    value: Any = None
    """Read of ratings only: others may hold what they like in it."""


_COLUMNS = (
    "event_type",
    "occurred_at",
    "user_id",
    "anonymous_id",
    "event_id",
    "item_id",
    "category",
    "item_name",
    "brand",
    "price",
    "tenant",
    "domain",
    "value",
)


def load_dataset(
    paths: str | Path | Sequence[str | Path],
    *,
    min_item_events: int = 1,
    session_gap_s: int = SESSION_GAP_S,
    layout: str | None = None,
) -> Dataset:
    """Read one or several files, or all files of folders, as one log.

    min_item_events: items with fewer events are left out of the catalogue, and their events with them.
    layout: one of layouts.LAYOUTS; without it the files' names and content tell.
    Raises DatasetError for a file that is missing or of an unknown kind, a row that cannot be used, files of layouts
    that cannot be one log, or a log in which nothing is left.
    """
    given = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
    reader = LogReader()
    for _ in reader.read_files(given, layout):
        pass
    source = ", ".join(path.name for path in given)
    return reader.dataset(min_item_events=min_item_events, session_gap_s=session_gap_s, source=source)


def log_files(paths: Sequence[Path], layout: str | None = None) -> list[tuple[Path, str]]:
    """The files of a log and the layout of each. Raises DatasetError, also when they cannot be one log."""
    if layout is not None and layout not in LAYOUTS:
        raise DatasetError(f"layout {layout!r} is unknown; use one of {', '.join(LAYOUTS)}.")
    files = [(file, layout or find_layout(file)) for path in paths for file in files_of(path)]
    kinds = {kind for _, kind in files}
    if len(kinds) > 1 and kinds & set(TABLE_LAYOUTS):
        raise DatasetError(f"the files have the layouts {', '.join(sorted(kinds))}; train on each by itself.")
    if kinds == {"lists"} and len(files) > 1:
        raise DatasetError("several files of lists name no users, so they cannot be one log; give one of them.")
    return files


def _rows(file: Path, layout: str) -> Iterator[tuple[int, EventRow]]:
    """The rows of one file of events as text, numbered as an editor would (CSV: the header is line 1)."""
    return {"jsonl": _json_rows, "csv": _csv_rows}[layout](file)


def _json_rows(file: Path) -> Iterator[tuple[int, EventRow]]:
    decoder = msgspec.json.Decoder(EventRow)
    with opened(file) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise DatasetError(
                    f"{file}, line {number}: {error}; a line is one event as JSON: mend or remove it."
                ) from error
            yield number, row


def _csv_rows(file: Path) -> Iterator[tuple[int, EventRow]]:
    # The csv module and not pyarrow: ids such as 007 must stay text, and an error must know its line.
    with opened(file) as stream, io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
        reader = csv.reader(text)
        try:
            header = next(reader, [])
            _check_columns(file, header)
            at = [(name, header.index(name)) for name in _COLUMNS if name in header]
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise DatasetError(
                        f"{file}, line {reader.line_num}: {len(cells)} cells, the header has {len(header)}; "
                        "quote cells that hold commas."
                    )
                yield reader.line_num, _row({name: cells[k] or None for name, k in at}, file, reader.line_num)
        except (csv.Error, UnicodeDecodeError) as error:
            raise DatasetError(
                f"{file}, line {reader.line_num + 1}: {error}; save the file as CSV in UTF-8."
            ) from error


def _parquet_batches(file: Path) -> Iterator[tuple[int, Any]]:
    """The file as pyarrow record batches of the columns that are read, each with the number of its first row."""
    whole = None
    if file.suffix.lower() == ".gz":  # it is read from its end: packed once more, all of it must be unpacked first
        with opened(file) as stream:
            whole = io.BytesIO(stream.read())
    try:
        table = pq.ParquetFile(whole or file)
        names = table.schema_arrow.names
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DatasetError(f"{file}: is no Parquet file ({error}); write it again.") from error
    _check_columns(file, names)
    wanted = [name for name in _COLUMNS if name in names]
    number = 1
    try:
        for batch in table.iter_batches(_BATCH_ROWS, columns=wanted):
            yield number, batch
            number += len(batch)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DatasetError(f"{file}, after row {number - 1}: {error}; write the file again.") from error


def _plain(name: str, column: Any) -> Any:
    """A Parquet column (pyarrow.Array) in a plain type: times as epoch ms or text, prices as numbers or text, all else
    as text."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if name == "price" and (
        pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type)
    ):
        return column.cast(pa.float64())
    if name == "occurred_at":
        if pa.types.is_timestamp(column.type):
            return column.cast(pa.timestamp("ms"), safe=False).cast(pa.int64())
        return column
    return column if pa.types.is_string(column.type) else column.cast(pa.string())


def _filled(column: Any) -> Any:
    """A text column with null for ''."""
    return pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)


def _told(column: Any) -> Bool:
    """bool[k]: where a plain column tells something: a text, or a price above 0."""
    if pa.types.is_float64(column.type):
        told = pc.and_(pc.is_finite(column), pc.greater(column, 0.0)).fill_null(False)
    else:
        told = pc.greater(pc.binary_length(column.fill_null("")), 0)
    at: Bool = told.to_numpy(zero_copy_only=False)
    return at


def _check_columns(file: Path, names: Sequence[str]) -> None:
    for wanted in (("event_type",), ("occurred_at",), ("user_id", "anonymous_id"), ("item_id",)):
        if not any(name in names for name in wanted):
            raise DatasetError(
                f"{file}: has no column {' or '.join(wanted)} (it has: {', '.join(names) or 'none'}); rename its "
                "columns to the names of our events."
            )


def _row(cells: dict[str, Any], file: Path, number: int) -> EventRow:
    for name in ("event_type", "occurred_at"):
        if cells.get(name) is None:
            raise DatasetError(f"{file}, row {number}, column {name}: is empty; fill or remove the row.")
    return EventRow(**cells)


class Columns(NamedTuple):
    """k rows in the order in which they came, before duplicates and the forgotten are left out."""

    user: I64
    """i64[k]: number of the user, or 63 bits of his key's hash: see LogReader."""
    item: I64
    """i64[k]: number of the item, START, or FORGET: what the user did before must not be known."""
    type: U8
    time_ms: I64
    """i64[k]; 0 where the log has no times."""
    event: I64
    """i64[k]: 63 bits of the hash of the event's id, 0 without one."""
    line: I64
    """i64[k]: place of the item in its event."""

    def select(self, rows: Bool | I64) -> Columns:
        """The part with these rows."""
        return Columns(
            self.user[rows], self.item[rows], self.type[rows], self.time_ms[rows], self.event[rows], self.line[rows]
        )


START, FORGET = -1, -2
_DTYPES = (np.int64, np.int64, np.uint8, np.int64, np.int64, np.int64)
_BATCH_ROWS = 65_536


def cleaned(rows: Columns) -> Columns:
    """Without events sent twice by one user, and without what came before a user asked to be forgotten."""
    kept = np.ones(len(rows.user), np.bool_)
    named = np.flatnonzero(rows.event)
    order = named[np.lexsort((rows.line[named], rows.event[named], rows.user[named]))]  # stable: the first stays
    if len(order):
        same = [np.diff(column[order]) == 0 for column in (rows.user, rows.event, rows.line)]
        kept[order[1:][same[0] & same[1] & same[2]]] = False
    forget = np.flatnonzero(rows.item == FORGET)
    if len(forget):
        users, number = np.unique(rows.user, return_inverse=True)
        last = np.full(len(users), -1, np.int64)
        np.maximum.at(last, number[forget], forget)
        kept &= np.arange(len(number)) > last[number]
    return rows if kept.all() else rows.select(kept)


class LogReader:
    """Reads events into columns, giving numbers to items as they come.

    hashed: users are told apart by 63 bits of a hash and not numbered, so that memory does not grow with them.
    """

    def __init__(self, *, hashed: bool = False) -> None:
        self.hashed = hashed
        self.users: dict[str, int] = {}
        self.item_numbers: dict[str, int] = {}
        self.names: list[str] = []
        self.categories: list[str] = []
        self.domains: list[str] = []
        self.brands: list[str] = []
        self.prices: list[float | None] = []
        self.listed: dict[int, ItemDetails] = {}
        """What catalogues tell, by the item's number."""
        self.has_time = True
        self._lists: tuple[list[int], ...] = tuple([] for _ in _DTYPES)
        self._parts: list[Columns] = []
        self._kept: Bool | None = None
        self._catalog: dict[str, Any] = {}

    def read_files(self, paths: Iterable[Path], layout: str | None = None) -> Iterator[None]:
        """Read the files of one log, some tens of thousands of rows at each step. Raises DatasetError."""
        for file, kind in log_files(list(paths), layout):
            yield from self.read(file, kind)

    def read(self, file: Path, layout: str) -> Iterator[None]:
        """Read a file, some tens of thousands of rows at each step. Raises DatasetError."""
        if layout in TABLE_LAYOUTS:
            catalog = item_details(file) if layout == "recbole" else {}
            for rows in read_rows(file, layout):
                self._add_table(rows)
                yield
            self.describe(catalog)
        elif layout == "parquet":
            for number, batch in _parquet_batches(file):
                self._add_batch(file, number, batch)
                yield
        else:
            for count, (number, row) in enumerate(_rows(file, layout), 1):
                self.add(f"{file}, row {number}", row)
                if count % _BATCH_ROWS == 0:
                    yield
            yield

    def add(self, where: str, row: EventRow) -> None:
        """Take one event. where: names it in an error. Raises DatasetError when it cannot be used."""

        def refuse(column: str, reason: str) -> DatasetError:
            return DatasetError(f"{where}, column {column}: {reason}.")

        code = _CODES.get(row.event_type)
        if code is None:
            raise refuse("event_type", f"{row.event_type!r} is unknown; use one of {', '.join(EVENT_TYPES)}")
        user_id = row.user_id or row.anonymous_id
        if not user_id:
            raise refuse("user_id", "neither user_id nor anonymous_id is given; fill one or remove the row")
        try:
            time_ms = parse_time_ms(row.occurred_at)
        except ValueError as error:
            raise refuse(
                "occurred_at", f"{row.occurred_at!r} is no time ({error}); use ISO-8601 or epoch ms"
            ) from error
        if code != SESSION_START and code not in _SPEAKS_FOR:
            return
        if code == RATING and row.value is not None:
            try:
                stars = float(row.value)
            except (TypeError, ValueError):
                raise refuse("value", f"{row.value!r} is no number; give the stars, or nothing") from None
            if not isfinite(stars):
                raise refuse("value", f"{row.value!r} says nothing; give the stars, or nothing")
            if weigh(RATING, None, stars, None, _WEIGHTS) <= 0.0:
                return
        user = self._user(user_key(user_id, str(row.tenant or "")).decode())
        event = event_key(row.event_id) if row.event_id else 0
        if code == SESSION_START:
            self._append(user, START, code, time_ms, event, 0)
            return
        lines: Iterable[EventLine | str] = row.items
        if not row.items:
            if not row.item_id:
                raise refuse("item_id", f"a {row.event_type} needs an item; fill it or remove the row")
            lines = (EventLine(row.item_id, row.category, row.item_name, row.brand, row.price),)
        for place, line in enumerate(lines):
            told = EventLine(line) if isinstance(line, str) else line
            try:
                item = self._item(told, str(row.domain or ""))
            except ValueError:
                raise refuse("price", f"{told.price!r} is no number; give the price of one, or nothing") from None
            self._append(user, item, code, time_ms, event, place)

    def describe(self, items: Mapping[str, ItemDetails]) -> int:
        """Take a catalogue, after all events were read; returns how many items of the log it has.

        What it tells of an item goes before what events, or a catalogue taken earlier, tell. Its other items are left
        out: a model knows nothing of what nobody took.
        """
        found = [(number, items[item_id]) for item_id, number in self.item_numbers.items() if item_id in items]
        for number, details in found:
            self.listed[number] = details.over(self.listed.get(number, NOTHING))
        return len(found)

    def forget(self, user_id: str, tenant: str) -> None:
        """Leave out all that came so far of a user."""
        self._append(self._user(user_key(user_id, tenant).decode()), FORGET, SESSION_START, 0, 0, 0)

    def _append(self, *cells: int) -> None:
        for column, cell in zip(self._lists, cells, strict=True):
            column.append(cell)

    def _user(self, key: str) -> int:
        return key_of(key) if self.hashed else self.users.setdefault(key, len(self.users))

    def _item(self, line: EventLine, domain: str) -> int:
        """The item's number; of what is told of it, the first stays. Raises ValueError when the price is no number."""
        price = price_of(line.price)
        number = self.item_numbers.setdefault(line.item_id, len(self.names))
        if number == len(self.names):
            self.names.append(line.item_name or line.item_id)
            self.categories.append(line.category or "")
            self.domains.append(domain)
            self.brands.append(str(line.brand or ""))
            self.prices.append(price)
            return number
        if line.category and not self.categories[number]:
            self.categories[number] = line.category
        if domain and not self.domains[number]:
            self.domains[number] = domain
        if line.brand and not self.brands[number]:
            self.brands[number] = str(line.brand)
        if price and not self.prices[number]:
            self.prices[number] = price
        return number

    def _add_batch(self, file: Path, number: int, batch: Any) -> None:
        """Rows of a Parquet file: in columns where nothing speaks against it, else one by one."""
        names = batch.schema.names
        plain = {}
        for name in names:
            try:
                plain[name] = _plain(name, batch.column(name))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise DatasetError(
                    f"{file}, from row {number}, column {name}: {error}; write single values."
                ) from error
        code = pc.index_in(plain["event_type"], value_set=_TYPES)
        user = pc.coalesce(*(_filled(plain[name]) for name in ("user_id", "anonymous_id") if name in plain))
        time = plain["occurred_at"]
        codes = code.to_numpy(zero_copy_only=False)
        usable = (
            not code.null_count
            and not user.null_count
            and pa.types.is_integer(time.type)
            and not time.null_count
            and all(plain[name].null_count == len(batch) for name in ("tenant", "domain", "item_name") if name in plain)
            and not ("value" in plain and (codes == RATING).any())
            and ("price" not in plain or pa.types.is_float64(plain["price"].type))
        )
        if usable:
            time_ms = time.cast(pa.int64()).to_numpy()
            starts = codes == SESSION_START
            kept = np.isin(codes, _KEPT)
            item = _filled(plain["item_id"])
            missing = pc.is_null(item).to_numpy(zero_copy_only=False) & kept & ~starts
            usable = bool((time_ms >= 10**11).all() and (time_ms < 10**14).all()) and not missing.any()
        if not usable:  # the row that is wrong is found and named
            cells = [plain[name].to_pylist() for name in names]
            for at, values in enumerate(zip(*cells, strict=True)):
                row = _row(dict(zip(names, values, strict=True)), file, number + at)
                self.add(f"{file}, row {number + at}", row)
            return
        keep = pa.array(kept)
        told = {name: plain[name].filter(keep) for name in ("category", "brand", "price") if name in plain}
        item = pc.if_else(pa.array(starts), "", item)
        items = self._numbers(item.filter(keep), told)
        event = np.zeros(int(kept.sum()), np.int64)
        if "event_id" in plain:
            ids = plain["event_id"].filter(keep).fill_null("")
            event = np.fromiter((event_key(text) if text else 0 for text in ids.to_pylist()), np.int64, len(ids))
        self._put(
            self._user_numbers(user.filter(keep)),
            items,
            codes[kept].astype(np.uint8),
            time_ms[kept],
            event,
            np.zeros(int(kept.sum()), np.int64),
        )

    def _add_table(self, rows: Rows) -> None:
        k = len(rows.type)
        none = np.zeros(k, np.int64)
        self.has_time = self.has_time and rows.time_ms is not None
        item = self._numbers(rows.item, {} if rows.category is None else {"category": rows.category})
        time_ms = none if rows.time_ms is None else rows.time_ms
        self._put(self._user_numbers(rows.user), item, rows.type, time_ms, none, none)

    def _user_numbers(self, user: Any) -> I64:
        """Numbers of the users of a pyarrow string array."""
        found = user.dictionary_encode()
        numbers = np.fromiter(map(self._user, found.dictionary.to_pylist()), np.int64, len(found.dictionary))
        of_row: I64 = numbers[found.indices.to_numpy()]
        return of_row

    def _numbers(self, item: Any, told: dict[str, Any]) -> I64:
        """Numbers of the items of a pyarrow string array; '' is START. told: plain columns, by field of EventLine."""
        found = item.dictionary_encode()
        indices = found.indices.to_numpy()
        ids = found.dictionary.to_pylist()
        lines = [EventLine(text) for text in ids]
        for name, column in told.items():
            rows = np.flatnonzero(_told(column))
            number, first = np.unique(indices[rows], return_index=True)
            values = column.take(pa.array(rows[first])).to_pylist()
            for k, value in zip(number.tolist(), values, strict=True):
                setattr(lines[k], name, value)
        of_id = (self._item(line, "") if line.item_id else START for line in lines)
        numbers = np.fromiter(of_id, np.int64, len(lines))
        of_row: I64 = numbers[indices]
        return of_row

    def _put(self, *columns: npt.NDArray[Any]) -> None:
        self._flush()
        self._parts.append(Columns(*columns))

    def _flush(self) -> None:
        if self._lists[0]:
            self._parts.append(
                Columns(*(np.array(column, kind) for column, kind in zip(self._lists, _DTYPES, strict=True)))
            )
            self._lists = tuple([] for _ in _DTYPES)

    def take(self) -> Columns:
        """What was read since the last call."""
        self._flush()
        parts, self._parts = self._parts, []
        if len(parts) == 1:
            return parts[0]
        return Columns(
            *(
                np.concatenate([part[k] for part in parts]) if parts else np.empty(0, kind)
                for k, kind in enumerate(_DTYPES)
            )
        )

    def kept_items(self, counts: I64, min_item_events: int, source: str) -> Bool:
        """bool: which items have enough events. counts: i64, events of each. Raises DatasetError when none has."""
        kept: Bool = counts >= max(min_item_events, 1)
        if not kept.any():
            raise DatasetError(
                f"{source}: no item has {max(min_item_events, 1)} or more events that speak for it; "
                "give more data or a smaller minimum."
            )
        return kept

    def part(
        self, rows: Columns, kept: Bool, *, session_gap_s: int, source: str, user_ids: list[str] | None
    ) -> Dataset:
        """The dataset of cleaned rows. kept: which items stay; user_ids: None where users are hashes."""
        n = int(kept.sum())
        renumber = np.append(np.where(kept, np.cumsum(kept) - 1, -2), n)  # the last entry serves START
        item = renumber[rows.item]
        rows, item = rows.select(item != -2), item[item != -2]
        user = rows.user if user_ids is not None else np.unique(rows.user, return_inverse=True)[1]
        if self._kept is not kept:  # once for all shards: they share the lists
            self._kept, self._catalog = kept, self._catalog_of(np.flatnonzero(kept).tolist())
        return dataset_from_arrays(
            user=user.astype(np.int32),
            item=item.astype(np.int32),
            type=rows.type,
            time_ms=rows.time_ms if self.has_time else places(user),
            user_ids=user_ids or [],
            **self._catalog,
            session_gap_s=session_gap_s,
            source=source,
            has_time=self.has_time,
        )

    def _catalog_of(self, numbers: list[int]) -> dict[str, Any]:
        """The lists of a Dataset, of the items with these numbers."""
        ids = list(self.item_numbers)
        listed = [self.listed.get(k, NOTHING) for k in numbers]
        return {
            "item_ids": [ids[k] for k in numbers],
            "item_names": [told.name or self.names[k] for k, told in zip(numbers, listed, strict=True)],
            "item_categories": [told.category or self.categories[k] for k, told in zip(numbers, listed, strict=True)],
            "item_domains": [self.domains[k] for k in numbers],
            "item_brands": [self.brands[k] for k in numbers],
            "item_prices": [self.prices[k] for k in numbers],
            "listed": listed if self.listed else [],
        }

    def dataset(self, *, min_item_events: int, session_gap_s: int, source: str) -> Dataset:
        """All that was read as one dataset. Raises DatasetError when nothing is left."""
        rows = cleaned(self.take())
        counts = np.bincount(rows.item[rows.item >= 0], minlength=len(self.names))
        kept = self.kept_items(counts, min_item_events, source)
        return self.part(rows, kept, session_gap_s=session_gap_s, source=source, user_ids=list(self.users))


def places(user: I32 | I64) -> I64:
    """The place of each row among its user's: 0, 1, 2, ... int[m] -> i64[m]; a user's rows need not be together."""
    order = np.argsort(user, kind="stable")
    ordered = user[order]
    place = np.empty(len(user), np.int64)
    place[order] = np.arange(len(user)) - np.searchsorted(ordered, ordered)
    return place


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_time_ms(value: float | str) -> int:
    """Epoch ms of an ISO-8601 text (UTC when it names no zone) or of a number since 1970.

    The number's unit is told by its size: seconds below 1e11, then ms, us, ns, a thousandfold each.
    Raises ValueError when it is neither.
    """
    if isinstance(value, str):
        text = value
        try:
            value = float(text) if "." in text else int(text)
        except ValueError:
            moment = datetime.fromisoformat(text)
            since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH
            return since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000
    if not 1e8 <= value < 1e20:
        raise ValueError("not a time after 1973")
    for above, per_ms in ((1e17, 1_000_000), (1e14, 1000), (1e11, 1)):
        if value >= above:
            return int(value // per_ms)
    return int(value * 1000)
