"""Columns of a table as JSON: rows of events or of items under our own names.

columns of a block of rows ──(renamed, cells as JSON has them, constants, ids)──> one JSON object a row
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import UNSET

from stream.errors import EventError, ProduceError

# Of our own fields, those that are numbers: CSV has only text.
_NUMBERS = frozenset({"quantity", "price", "value", "position", "dwell_ms"})
TIMES = frozenset({"occurred_at", "sent_at"})
"""Fields that are times."""
# Fields that are text even where a table has whole numbers.
_IDS = frozenset({"event_id", "user_id", "anonymous_id", "item_id", "session_id", "recommendation_id", "tenant"})
_OTHER_EVENT_IDS = ("eventId", "messageId", "message_id")
# Of an item's fields, those that are true or false, as tables write them.
_FLAGS = frozenset({"available", "deleted"})
_FLAG_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
# How the catalogues of shops write a path in one cell.
_PATH_SEPARATOR = " > "

TIME_UNITS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
"""Units of times since 1970, in ns."""

Cells = Sequence[Any]


@dataclass(frozen=True)
class Reading:
    """How to read a file. The first two suffice for most."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Our field -> its column there."""
    event_type: str | None = None
    """Of rows that have none."""
    of_items: bool = False
    """Its rows are items, not events."""
    types: Mapping[str, str] = field(default_factory=dict)
    """Their event type -> ours; others stay as they are."""
    constants: Mapping[str, Any] = field(default_factory=dict)
    """Our field -> its value in every row that has none."""
    time_unit: str | None = None
    """Of numbers in columns of times, one of TIME_UNITS; None: told by their size (stream.contract.times)."""
    mapped_only: bool = False
    """Leave out columns that `columns` does not name."""
    kind: str | None = None
    """jsonl, csv, parquet, sequences or lists; None: told by the file's name."""
    names: tuple[str, ...] = ()
    """Of the columns of a CSV file without a header."""
    separator: str = ","
    """Between the cells of a CSV file. Only with a comma cells may be quoted."""

    @property
    def changes_lines(self) -> bool:
        """Whether JSON lines are read as a table, too, instead of going out as they are."""
        return bool(self.columns or self.types or self.constants or self.event_type or self.time_unit)


class Table:
    """Makes JSON of the rows of one file, block by block.

    Args:
        reading: what columns mean.
        name: of the file: an event without an id of its own gets NAME:ROW.
        as_text: cells are text, as in CSV.
    """

    def __init__(self, reading: Reading, name: str, *, as_text: bool) -> None:
        self._reading, self._name, self._as_text = reading, name, as_text
        self._columns: tuple[str, ...] | None = None

    def encode(self, columns: Mapping[str, Cells], rows: Sequence[int | str]) -> list[bytes | EventError]:
        """The value of the record of each row, or what is wrong with it.

        columns: cells by the column's name there, None or "" where a row has none. rows: what ids name each row by.

        Raises:
            ProduceError: a column that the reading names is not there.
        """
        if tuple(columns) != self._columns:
            self._plan(tuple(columns))
        cells = {own: convert(columns[column]) for own, column, convert in self._plan_of}
        if not self._reading.of_items:
            self._fill_in(cells, rows)
        struct, encode = self._struct, msgspec.json.encode
        lines = zip(*cells.values(), strict=True)
        try:
            return [encode(struct(*line)) for line in lines]
        except (TypeError, ValueError):
            return [self._encode_one(line) for line in zip(*cells.values(), strict=True)]

    def _encode_one(self, line: tuple[Any, ...]) -> bytes | EventError:
        try:
            return msgspec.json.encode(self._struct(*line))
        except (TypeError, ValueError) as error:
            return EventError("wrong_type", f"the row cannot be written as JSON: {error}")

    def _plan(self, columns: tuple[str, ...]) -> None:
        """What to make of columns of these names."""
        reading = self._reading
        sources = sources_of(reading, columns, self._name)
        self._plan_of = [(own, column, self._converter(own)) for own, column in sources.items()]
        self._defaults: dict[str, Any] = {}
        names = dict.fromkeys(sources)
        if not reading.of_items:
            self._defaults = dict(reading.constants)
            if reading.event_type is not None:
                self._defaults.setdefault("event_type", reading.event_type)
            names |= dict.fromkeys([*self._defaults, "event_id"])
        # Names of columns may be anything, names of fields not.
        fields = {f"f{k}": name for k, name in enumerate(names)}
        self._struct = msgspec.defstruct("Row", [(name, Any) for name in fields], rename=fields, gc=False)
        self._columns = columns

    def _fill_in(self, cells: dict[str, Cells], rows: Sequence[int | str]) -> None:
        """Constants, type and id, where rows have none of their own."""
        for own, value in self._defaults.items():
            given = cells.get(own)
            cells[own] = [value] * len(rows) if given is None else [value if c is UNSET else c for c in given]
        name = self._name
        ids = cells.get("event_id")
        others = [cells[other] for other in _OTHER_EVENT_IDS if other in cells]
        if ids is None and not others:
            cells["event_id"] = [f"{name}:{row}" for row in rows]
            return
        ids = ids or [UNSET] * len(rows)
        for other in others:  # one under another name does, too
            ids = [other[k] if c is UNSET else c for k, c in enumerate(ids)]
        cells["event_id"] = [f"{name}:{row}" if c is UNSET else c for c, row in zip(ids, rows, strict=True)]

    def _converter(self, own: str) -> Callable[[Cells], Cells]:
        """Cells of one of our fields as JSON has them; UNSET where there are none."""
        reading = self._reading
        cell: Callable[[Any], Any] | None = None
        if reading.of_items:
            cell = _item_cell(own)
        elif own == "event_type" and reading.types:
            types = reading.types
            cell = lambda value: types.get(str(value), value)  # noqa: E731
        elif own in TIMES and reading.time_unit is not None:
            unit_ns = TIME_UNITS[reading.time_unit]
            cell = lambda value: _time_ms(value, unit_ns)  # noqa: E731
        elif self._as_text and own in TIMES:
            cell = _whole
        elif self._as_text and own in _NUMBERS:
            cell = _number
        elif self._as_text and own in ("items", "properties"):
            cell = _json
        elif not self._as_text and own in _IDS:
            cell = lambda value: str(value) if type(value) is int else value  # noqa: E731
        if cell is not None:
            return lambda cells: [UNSET if value is None or value == "" else cell(value) for value in cells]
        if self._as_text:
            return lambda cells: [value or UNSET for value in cells]
        return lambda cells: [UNSET if value is None or value == "" else value for value in cells]


def sources_of(reading: Reading, columns: Sequence[str], name: str) -> dict[str, str]:
    """Our field -> its column, for a file that has these columns; columns that are not mapped stand for themselves.

    Raises:
        ProduceError: one that the reading names is not there.
    """
    for own, column in reading.columns.items():
        if column not in columns:
            raise ProduceError(
                f"{name} has no column {column!r}. It has: {', '.join(columns)}. Mend --map {own}={column}."
            )
    taken = {*reading.columns, *reading.columns.values()}
    kept = () if reading.mapped_only else [column for column in columns if column not in taken]
    return {**{column: column for column in kept}, **reading.columns}


def _time_ms(value: Any, unit_ns: int) -> Any:
    """A number of units since 1970 as whole ms; what is none is left for the contract to judge."""
    try:
        number = value if isinstance(value, int | float) else int(value) if value.isdigit() else float(value)
    except (AttributeError, TypeError, ValueError):
        return value
    if isinstance(number, int):
        return number * unit_ns // 1_000_000
    return int(number * unit_ns / 1_000_000) if math.isfinite(number) else value


def _whole(text: str) -> Any:
    """A time in digits as the number that the contract reads it as, which takes it a third of the time."""
    return int(text) if 9 <= len(text) <= 18 and text.isascii() and text.isdigit() else text


def _number(text: str) -> Any:
    """What is no number is left for the contract to refuse."""
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError:
        return text


def _json(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def _item_cell(own: str) -> Callable[[Any], Any]:
    """How a cell of an item's field is read. What is none is left for the contract to refuse."""

    def cell(value: Any) -> Any:
        if own in _FLAGS and type(value) is int and value in (0, 1):
            return bool(value)
        if not isinstance(value, str):
            return value
        if own in _FLAGS:
            return _FLAG_WORDS.get(value.strip().lower(), value)
        if own == "category" and _PATH_SEPARATOR in value:
            return [part for part in map(str.strip, value.split(_PATH_SEPARATOR)) if part]
        if own in _NUMBERS or own == "properties" or (own == "category" and value.startswith("[")):
            return _json(value)
        return value

    return cell
