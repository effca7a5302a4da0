"""Event logs as columns: what training, counting and evaluation read.

Files: JSON lines (`.jsonl`, `.ndjson`, `.json`), CSV (`.csv`) and Parquet (`.parquet`), with the fields of our events:

    event_type, occurred_at, user_id | anonymous_id, item_id       needed
    event_id, category, item_name, tenant, domain, value           used when there
    items [{item_id, category}]                                    JSON lines only: an event of several items

A row that cannot be used stops the reading with a DatasetError that names file, row and column: a log that is
half understood trains a model that is half wrong.

Of the events, those that speak for an item (weight above 0: not impressions, dislikes, hides, removals, low ratings)
and session starts become rows. Users of different tenants are different users. A user's rows are in order of time,
those of one time in the file's order.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from model.errors import DatasetError
from state.keys import user_key
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

    def fingerprint(self) -> dict[str, Any]:
        """What identifies the data in an artifact: counts, span of time, digest of the columns."""
        digest = hashlib.sha256()
        for column in (self.user, self.item, self.type, self.time_ms):
            digest.update(np.ascontiguousarray(column).tobytes())
        digest.update("\0".join(self.item_ids).encode())
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
    new_session: Bool | None = None,
    session_gap_s: int = SESSION_GAP_S,
    source: str = "arrays",
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
    )


# --- files -----------------------------------------------------------------------------------


class _Line(msgspec.Struct, gc=False):
    """One item of an event of several."""

    item_id: str
    category: str | None = None
    item_name: str | None = None


class _Row(msgspec.Struct, gc=False):
    """What is read of an event; other fields are passed over."""

    event_type: str
    occurred_at: int | float | str
    user_id: str | None = None
    anonymous_id: str | None = None
    event_id: str | None = None
    item_id: str | None = None
    items: list[_Line | str] = []
    category: str | None = None
    item_name: str | None = None
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
    "tenant",
    "domain",
    "value",
)


def load_dataset(
    paths: str | Path | Sequence[str | Path],
    *,
    min_item_events: int = 1,
    session_gap_s: int = SESSION_GAP_S,
) -> Dataset:
    """Read one or several files as one log.

    min_item_events: items with fewer events are left out of the catalogue, and their events with them.
    Raises DatasetError for a file that is missing or of an unknown kind, a row that cannot be used, or a log in
    which nothing is left.
    """
    files = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
    reader = _Reader()
    for file in files:
        for number, row in _rows(file):
            reader.add(file, number, row)
    return reader.dataset(
        min_item_events=min_item_events, session_gap_s=session_gap_s, source=", ".join(f.name for f in files)
    )


def _rows(file: Path) -> Iterator[tuple[int, _Row]]:
    """The rows of one file, numbered as an editor would (CSV: the header is line 1)."""
    kinds = {
        ".jsonl": _json_rows,
        ".ndjson": _json_rows,
        ".json": _json_rows,
        ".csv": _csv_rows,
        ".parquet": _parquet_rows,
    }
    read = kinds.get(file.suffix.lower())
    if read is None:
        raise DatasetError(f"{file}: unknown kind of file; give one that ends in {', '.join(kinds)}.")
    if not file.is_file():
        raise DatasetError(f"{file}: there is no such file; correct the path.")
    try:
        yield from read(file)
    except OSError as error:
        raise DatasetError(f"{file}: cannot be read ({error}); check its rights.") from error


def _json_rows(file: Path) -> Iterator[tuple[int, _Row]]:
    decoder = msgspec.json.Decoder(_Row)
    with file.open("rb") as lines:
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


def _csv_rows(file: Path) -> Iterator[tuple[int, _Row]]:
    # The csv module and not pyarrow: ids such as 007 must stay text, and an error must know its line.
    with file.open(encoding="utf-8-sig", newline="") as text:
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


def _parquet_rows(file: Path) -> Iterator[tuple[int, _Row]]:
    try:
        table = pq.ParquetFile(file)
        names = table.schema_arrow.names
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DatasetError(f"{file}: is no Parquet file ({error}); write it again.") from error
    _check_columns(file, names)
    wanted = [name for name in _COLUMNS if name in names]
    number = 0
    try:
        for batch in table.iter_batches(65_536, columns=wanted):
            columns = [_cells(name, batch.column(name)) for name in wanted]
            for cells in zip(*columns, strict=True):
                number += 1
                yield number, _row(dict(zip(wanted, cells, strict=True)), file, number)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DatasetError(f"{file}, after row {number}: {error}; write the file again.") from error


def _cells(name: str, column: Any) -> list[Any]:
    """A Parquet column (pyarrow.Array) as Python values: times as epoch ms or text, all else as text."""
    if name == "occurred_at":
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.timestamp("ms"), safe=False).cast(pa.int64())
        elif pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
    elif not pa.types.is_string(column.type):
        column = (column.dictionary_decode() if pa.types.is_dictionary(column.type) else column).cast(pa.string())
    cells: list[Any] = column.to_pylist()
    return cells


def _check_columns(file: Path, names: Sequence[str]) -> None:
    for wanted in (("event_type",), ("occurred_at",), ("user_id", "anonymous_id"), ("item_id",)):
        if not any(name in names for name in wanted):
            raise DatasetError(
                f"{file}: has no column {' or '.join(wanted)} (it has: {', '.join(names) or 'none'}); rename its "
                "columns to the names of our events."
            )


def _row(cells: dict[str, Any], file: Path, number: int) -> _Row:
    for name in ("event_type", "occurred_at"):
        if cells.get(name) is None:
            raise DatasetError(f"{file}, row {number}, column {name}: is empty; fill or remove the row.")
    return _Row(**cells)


class _Reader:
    """Collects rows into columns, giving numbers to ids as they come."""

    def __init__(self) -> None:
        self.users: dict[str, int] = {}
        self.item_numbers: dict[str, int] = {}
        self.names: list[str] = []
        self.categories: list[str] = []
        self.domains: list[str] = []
        self.seen_events: set[tuple[int, str]] = set()
        self.user: list[int] = []
        self.item: list[int] = []  # -1: start of a session
        self.type: list[int] = []
        self.time_ms: list[int] = []

    def add(self, file: Path, number: int, row: _Row) -> None:
        def refuse(column: str, reason: str) -> DatasetError:
            return DatasetError(f"{file}, row {number}, column {column}: {reason}.")

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
        user = self.users.setdefault(user_key(user_id, str(row.tenant or "")).decode(), len(self.users))
        if row.event_id:
            if (user, row.event_id) in self.seen_events:
                return  # sent twice; live, the user's ring of event ids drops it too
            self.seen_events.add((user, row.event_id))
        if code == SESSION_START:
            self._append(user, -1, code, time_ms)
            return
        lines: Iterable[_Line | str] = row.items
        if not row.items:
            if not row.item_id:
                raise refuse("item_id", f"a {row.event_type} needs an item; fill it or remove the row")
            lines = (_Line(row.item_id, row.category, row.item_name),)
        for line in lines:
            item = self._item(_Line(line) if isinstance(line, str) else line, str(row.domain or ""))
            self._append(user, item, code, time_ms)

    def _append(self, user: int, item: int, code: int, time_ms: int) -> None:
        self.user.append(user)
        self.item.append(item)
        self.type.append(code)
        self.time_ms.append(time_ms)

    def _item(self, line: _Line, domain: str) -> int:
        number = self.item_numbers.setdefault(line.item_id, len(self.names))
        if number == len(self.names):
            self.names.append(line.item_name or line.item_id)
            self.categories.append(line.category or "")
            self.domains.append(domain)
            return number
        if line.category and not self.categories[number]:
            self.categories[number] = line.category
        if domain and not self.domains[number]:
            self.domains[number] = domain
        return number

    def dataset(self, *, min_item_events: int, session_gap_s: int, source: str) -> Dataset:
        item = np.array(self.item, np.int64)
        counts = np.bincount(item[item >= 0], minlength=len(self.names))
        kept = counts >= max(min_item_events, 1)
        if not kept.any():
            raise DatasetError(
                f"{source}: no item has {max(min_item_events, 1)} or more events that speak for it; "
                "give more data or a smaller minimum."
            )
        n = int(kept.sum())
        renumber = np.append(np.where(kept, np.cumsum(kept) - 1, -2), n)  # the last entry serves item -1: a start
        item = renumber[item]
        rows = item != -2
        ids = list(self.item_numbers)
        return dataset_from_arrays(
            user=np.array(self.user, np.int32)[rows],
            item=item[rows].astype(np.int32),
            type=np.array(self.type, np.uint8)[rows],
            time_ms=np.array(self.time_ms, np.int64)[rows],
            user_ids=list(self.users),
            item_ids=[ids[k] for k in np.flatnonzero(kept)],
            item_names=[self.names[k] for k in np.flatnonzero(kept)],
            item_categories=[self.categories[k] for k in np.flatnonzero(kept)],
            item_domains=[self.domains[k] for k in np.flatnonzero(kept)],
            session_gap_s=session_gap_s,
            source=source,
        )


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
