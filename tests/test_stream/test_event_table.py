"""Columns as JSON; what each kind of file gives is in test_event_file."""

import json
from typing import Any

import pytest

from stream.errors import EventError, ProduceError
from stream.event_table import Reading, Table, sources_of


def made(columns: dict[str, list[Any]], reading: Reading | None = None, **more: Any) -> list[Any]:
    values = Table(reading or Reading(), "f", as_text=False, **more).encode(columns, range(1, 9)[: len(columns["a"])])
    return [value if isinstance(value, EventError) else json.loads(value) for value in values]


def test_only_the_row_that_cannot_be_written_is_bad() -> None:
    first, bad, last = made({"a": [1, object(), 3]})
    assert (first, last) == ({"a": 1, "event_id": "f:1"}, {"a": 3, "event_id": "f:3"})
    assert bad.reason == "wrong_type"


def test_columns_may_have_any_name_and_change_between_blocks() -> None:
    table = Table(Reading({"price": "a"}), "f", as_text=False)
    first = table.encode({"a": [1], "is it, so?": ["x"]}, [1])
    second = table.encode({"b": ["y"], "a": [2]}, [2])
    assert [json.loads(value) for value in (*first, *second)] == [  # type: ignore[arg-type]
        {"is it, so?": "x", "price": 1, "event_id": "f:1"},
        {"b": "y", "price": 2, "event_id": "f:2"},
    ]


def test_none_and_empty_text_are_absent_and_zero_is_not() -> None:
    assert [set(row) for row in made({"a": [None, "", 0, False]})] == [{"event_id"}] * 2 + [{"a", "event_id"}] * 2


def test_sources() -> None:
    reading = Reading({"user_id": "who", "item_id": "x"})
    assert sources_of(reading, ["who", "user_id", "x", "own"], "f") == {"own": "own", "user_id": "who", "item_id": "x"}
    with pytest.raises(ProduceError, match=r"f has no column 'x'\. It has: who\. Mend --map item_id=x"):
        sources_of(reading, ["who"], "f")


def test_items_have_no_ids_of_events() -> None:
    reading = Reading({"price": "a"}, "view", of_items=True, constants={"tenant": "x"})
    assert made({"a": ["9.5"], "available": ["no"]}, reading) == [{"price": 9.5, "available": False}]
