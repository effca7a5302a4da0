"""A made-up world as files: its events, users, items and truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model.errors import SimulationError
from model.simulation.world import NEVER_MS, SHARES, Events, World, category_name, item_id, user_id
from state.weights import EVENT_TYPES

_ROWS = 65_536
"""Events written at once: a group of rows of a Parquet file."""
_PRICE_LEVEL = 3.0
"""Logarithm of the usual price: 20."""


def event_lines(world: World) -> Iterator[bytes]:
    """Each event as a JSON object in UTF-8 without a newline, under the names of the contract; in order of time."""
    texts = _Texts(world)
    numbers = count(1)
    for events in world.events():
        rows = zip(*(column.tolist() for column in events), numbers, strict=False)  # numbers last: none is lost
        for user, item, code, time_ms, number in rows:
            yield (
                f'{{"event_id":"{texts.event}{number}","event_type":"{EVENT_TYPES[code]}","occurred_at":{time_ms},'
                f'"user_id":"{texts.users[user]}",{texts.items[item]}'
            ).encode()


class _Texts:
    """What is the same in many lines."""

    def __init__(self, world: World) -> None:
        self.event = f"sim{world.settings.seed}-"
        self.users = [user_id(user) for user in range(world.settings.users)]
        self.items = [
            f'"item_id":"{item_id(item)}","category":"{category_name(category)}"}}'
            for item, category in enumerate(world.category.tolist())
        ]


def write_events(world: World, path: Path, written: Callable[[int], None] = lambda _: None) -> None:
    """All events to a file, JSON lines or Parquet by its name.

    written: told now and then how many there are.  Raises SimulationError for a name of another kind.
    """
    if path.suffix == ".jsonl":
        _write_lines(world, path, written)
    elif path.suffix == ".parquet":
        _write_parquet(world, path, written)
    else:
        raise SimulationError(f"{path} is neither JSON lines nor Parquet by its name: end it in .jsonl or .parquet.")


def _write_lines(world: World, path: Path, written: Callable[[int], None]) -> None:
    with path.open("wb") as file:
        lines: list[bytes] = []
        total = 0
        for line in event_lines(world):
            lines.append(line)
            if len(lines) == _ROWS:
                total += _flush(file, lines)
                written(total)
        written(total + _flush(file, lines))


def _flush(file: IO[bytes], lines: list[bytes]) -> int:
    rows = len(lines)
    file.write(b"".join([line + b"\n" for line in lines]))
    lines.clear()
    return rows


def _write_parquet(world: World, path: Path, written: Callable[[int], None]) -> None:
    settings = world.settings
    users = pa.array([user_id(user) for user in range(settings.users)])
    items = pa.array([item_id(item) for item in range(settings.items)])
    categories = pa.array([category_name(category) for category in range(settings.categories)])
    types = pa.array(EVENT_TYPES)
    total = 0
    with pq.ParquetWriter(path, _SCHEMA, compression="zstd") as file:
        for events in _groups(world):
            numbers = np.arange(total + 1, total + 1 + len(events.user))
            columns = [
                pa.array([f"sim{settings.seed}-{number}" for number in numbers.tolist()]),
                types.take(pa.array(events.type)),
                pa.array(events.time_ms).cast(pa.timestamp("ms", "UTC")),
                users.take(pa.array(events.user)),
                items.take(pa.array(events.item)),
                categories.take(pa.array(world.category[events.item])),
            ]
            file.write_table(pa.table(columns, schema=_SCHEMA))
            total += len(events.user)
            written(total)


_SCHEMA = pa.schema(
    [
        ("event_id", pa.string()),
        ("event_type", pa.string()),
        ("occurred_at", pa.timestamp("ms", "UTC")),
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("category", pa.string()),
    ]
)


def _groups(world: World) -> Iterator[Events]:
    """The events in slices of _ROWS or a few more."""
    parts: list[Events] = []
    rows = 0
    for events in world.events():
        parts.append(events)
        rows += len(events.user)
        if rows >= _ROWS:
            yield Events.join(parts)
            parts, rows = [], 0
    if parts:
        yield Events.join(parts)


def write_users(world: World, path: Path) -> None:
    """One JSON object a user: user_id and its 10 features."""
    features = world.user_features.tolist()
    _write_objects(path, ({"user_id": user_id(user), "features": row} for user, row in enumerate(features)))


def write_items(world: World, path: Path) -> None:
    """One JSON object an item, as the catalogue takes it; its 5 features are among its properties."""
    _write_objects(path, (_item(world, item) for item in range(world.settings.items)))


def _item(world: World, item: int) -> dict[str, Any]:
    """The catalogue's record of an item. The price follows its first feature."""
    category = int(world.category[item])
    features = world.item_features[item].tolist()
    return {
        "item_id": item_id(item),
        "name": f"item {item // world.settings.categories + 1} of {category_name(category)}",
        "category": category_name(category),
        "price": round(float(np.exp(_PRICE_LEVEL + features[0])), 2),
        "currency": "EUR",
        "properties": {"features": features},
    }


def write_truth(world: World, path: Path) -> None:
    """One JSON object a user: drift_at_ms (null: none), and the shares of the categories before and after it."""
    columns = (world.drift_ms.tolist(), world.before.tolist(), world.after.tolist())
    _write_objects(
        path,
        (
            {
                "user_id": user_id(user),
                "drift_at_ms": None if drift_ms == NEVER_MS else drift_ms,
                "before": _shares(before),
                "after": _shares(after),
            }
            for user, (drift_ms, before, after) in enumerate(zip(*columns, strict=True))
        ),
    )


def _shares(categories: list[int]) -> dict[str, float]:
    return {category_name(category): share for category, share in zip(categories, SHARES, strict=True)}


def _write_objects(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    encode = msgspec.json.Encoder().encode
    with path.open("wb") as file:
        for row in rows:
            file.write(encode(row) + b"\n")
