"""Layouts of published data sets, so that their files can be read as they are.

Each is told by the first lines of a file, or chosen by its name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from model.training.layouts import kind_of_lines
from stream.errors import RefusedError
from stream.event_table import Reading

NONE = "none"
"""The preset that is none: columns are fields of events."""


@dataclass(frozen=True)
class Head:
    """The beginning of a file."""

    lines: list[str]
    """The first lines that are not empty; of Parquet none."""
    columns: tuple[str, ...]
    """Of Parquet; of JSON lines the members of the first object; else the cells of the first line at its commas."""
    kind: str | None
    """By the file's name: jsonl, csv or parquet; None: it does not tell."""

    def cells(self, separator: str) -> tuple[str, ...]:
        """Names of the columns, where the cells of the first line are between such separators."""
        if self.kind == "parquet" or separator == ",":
            return self.columns
        return tuple(self.lines[0].split(separator)) if self.lines else ()


class Preset(NamedTuple):
    """A layout."""

    about: str
    """For help."""
    told: Callable[[Head], bool]
    """Whether a file is of this layout."""
    reading: Callable[[Head], Reading]
    """How to read one that is."""


def preset_of(head: Head) -> str:
    """The layout of a file; NONE where it is none of PRESETS."""
    return next((name for name, preset in PRESETS.items() if preset.told(head)), NONE)


def reading_of(preset: str, head: Head) -> Reading:
    """How to read a file of a layout. Raises RefusedError when there is no such preset."""
    if preset == NONE:
        return Reading()
    if preset not in PRESETS:
        raise RefusedError(f"there is no preset {preset}. There are: {', '.join((NONE, *PRESETS))}.")
    return PRESETS[preset].reading(head)


# --- movielens

_RATING = {"user_id": "userId", "item_id": "movieId", "value": "rating", "occurred_at": "timestamp"}


def _movielens_told(head: Head) -> bool:
    if head.kind in ("jsonl", "parquet") or not head.lines:
        return False
    return set(_RATING.values()) <= set(head.columns) or all(
        re.fullmatch(r"\d+(::|\t)\d+\1[0-5](\.5)?\1\d{9,10}", line) for line in head.lines[:20]
    )


def _movielens(head: Head) -> Reading:
    line = head.lines[0] if head.lines else ""
    separator = next((mark for mark in ("::", "\t") if mark in line), ",")
    names = () if separator == "," else tuple(_RATING.values())
    return Reading(_RATING, "rating", time_unit="s", mapped_only=True, kind="csv", names=names, separator=separator)


# --- recbole


def _recbole(head: Head) -> Reading:
    cells = head.lines[0].split("\t") if head.lines else []
    of_name = {cell.partition(":")[0]: cell for cell in cells}
    columns = {"user_id": of_name.get("user_id", "user_id:token"), "item_id": of_name.get("item_id", "item_id:token")}
    columns["occurred_at"] = of_name.get("timestamp", "timestamp:float")
    if "rating" in of_name:
        columns["value"] = of_name["rating"]
    kind = "rating" if "rating" in of_name else "view"
    return Reading(columns, kind, time_unit="s", mapped_only=True, kind="csv", separator="\t")


# --- taobao

_TAOBAO = {
    "user_id": "user",
    "item_id": "item",
    "category": "category",
    "event_type": "behaviour",
    "occurred_at": "seconds",
}
_BEHAVIOURS = {"pv": "view", "cart": "add_to_cart", "fav": "like", "buy": "purchase"}


def _taobao_told(head: Head) -> bool:
    return len(head.columns) == len(_TAOBAO) and head.columns[3] in _BEHAVIOURS and head.kind in (None, "csv")


def _taobao(_: Head) -> Reading:
    names = ("user", "item", "category", "behaviour", "seconds")
    return Reading(_TAOBAO, types=_BEHAVIOURS, time_unit="s", mapped_only=True, kind="csv", names=names)


# --- sequences


def _numbers(head: Head) -> bool:
    return head.kind is None and bool(head.lines) and all(re.fullmatch(r"\d+( \d+)+", line) for line in head.lines)


def _kind(head: Head) -> str:
    return kind_of_lines(line.encode() for line in head.lines)


# --- shops

_RETAILROCKET = {
    "user_id": "visitorid",
    "item_id": "itemid",
    "event_type": "event",
    "occurred_at": "timestamp",
}
_YOOCHOOSE = {"user_id": "session", "session_id": "session", "item_id": "item", "occurred_at": "time"}
_JOURNEY = {
    "user_id": "household_id",
    "item_id": "product_id",
    "quantity": "quantity",
    "value": "sales_value",
    "session_id": "basket_id",
    "occurred_at": "transaction_timestamp",
}
_ISO_SECOND_CELL = re.compile(r"\d+,\d{4}-\d\d-\d\dT[\d:.]+Z,\d+,")


def _has(*columns: str) -> Callable[[Head], bool]:
    return lambda head: set(columns) <= set(head.columns)


def _yoochoose_told(cells: int) -> Callable[[Head], bool]:
    return lambda head: (
        bool(head.lines) and len(head.columns) == cells and _ISO_SECOND_CELL.match(head.lines[0]) is not None
    )


def _yoochoose(more: dict[str, str], event_type: str) -> Callable[[Head], Reading]:
    names = ("session", "time", "item", *more.values())
    return lambda _: Reading(_YOOCHOOSE | more, event_type, mapped_only=True, kind="csv", names=names)


PRESETS = {
    "movielens": Preset("MovieLens: ratings.csv, ratings.dat, u.data", _movielens_told, _movielens),
    "recbole": Preset("RecBole: .inter", lambda head: bool(head.lines) and ":token" in head.lines[0], _recbole),
    "taobao": Preset("Taobao: UserBehavior.csv", _taobao_told, _taobao),
    "sequences": Preset(
        "`user item item ...` a line, numbers; no times: rows count as a second apart, from 2000-01-01",
        lambda head: _numbers(head) and _kind(head) == "sequences",
        lambda _: Reading(kind="sequences"),
    ),
    "lists": Preset(
        "`item item ...` a line, the n-th of user n; no times, as sequences",
        lambda head: _numbers(head) and _kind(head) == "lists",
        lambda _: Reading(kind="lists"),
    ),
    "retailrocket": Preset(
        "Retailrocket: events.csv",
        _has(*_RETAILROCKET.values()),
        lambda _: Reading(
            _RETAILROCKET,
            types={"addtocart": "add_to_cart", "transaction": "purchase"},
            time_unit="ms",
            mapped_only=True,
            kind="csv",
        ),
    ),
    "yoochoose-clicks": Preset(
        "Yoochoose: yoochoose-clicks.dat; a session is a user",
        _yoochoose_told(4),
        _yoochoose({"category": "category"}, "click"),
    ),
    "yoochoose-buys": Preset(
        "Yoochoose: yoochoose-buys.dat; a session is a user",
        _yoochoose_told(5),
        _yoochoose({"price": "price", "quantity": "quantity"}, "purchase"),
    ),
    "amazon-2018": Preset(
        "Amazon reviews until 2018: JSON lines",
        _has("reviewerID", "asin", "unixReviewTime"),
        lambda _: Reading(
            {"user_id": "reviewerID", "item_id": "asin", "value": "overall", "occurred_at": "unixReviewTime"},
            "rating",
            time_unit="s",
            mapped_only=True,
            kind="jsonl",
        ),
    ),
    "amazon-2023": Preset(
        "Amazon reviews of 2023: JSON lines or CSV",
        _has("user_id", "parent_asin", "rating", "timestamp"),
        lambda head: Reading(
            {"user_id": "user_id", "item_id": "parent_asin", "value": "rating", "occurred_at": "timestamp"},
            "rating",
            time_unit="ms",
            mapped_only=True,
            kind=head.kind,
        ),
    ),
    "completejourney": Preset(
        "Complete Journey: transactions, a row a purchase",
        _has(*_JOURNEY.values()),
        lambda head: Reading(_JOURNEY, "purchase", mapped_only=True, kind=head.kind),
    ),
}
"""By name; the first that a file is told to be counts."""
