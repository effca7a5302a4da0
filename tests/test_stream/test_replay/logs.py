"""A made-up log in blocks of rows, with all that a log has: duplicates, late events, events of no use, an erasure."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from model.artifact import save_artifact, untrained_artifact
from stream.replay.rows import Row
from stream.settings import Settings, load_settings

FIRST_MS = 1_780_000_000_000
NOW_MS = FIRST_MS + 90 * 86_400_000
TYPES = ("view", "view", "view", "add_to_cart", "purchase", "dislike")


def rows(count: int, seed: int = 1, users: int = 40) -> list[Row]:
    """`count` events of `users` users over some days."""
    draw = random.Random(seed)
    made = []
    for n in range(count):
        user = f"u{int(users * draw.random() ** 2)}"
        at_ms = FIRST_MS + n * 40_000 - (draw.randrange(600_000) if draw.random() < 0.1 else 0)
        event: dict[str, Any] = {
            "event_id": f"e{n if draw.random() > 0.02 else max(n - 5, 0)}",
            "event_type": draw.choice(TYPES),
            "occurred_at": at_ms if draw.random() > 0.01 else at_ms - 30 * 86_400_000,
            "user_id": user,
            "item_id": f"i{draw.randrange(60)}",
            "category": f"c{draw.randrange(7)}",
        }
        if n == count // 2:
            event = {"event_id": "x", "event_type": "user_erased", "occurred_at": at_ms, "user_id": user}
        value = msgspec.json.encode(event)
        if n % 97 == 96:
            value = value.replace(b'"event_type":"', b'"event_type":"un')
        made.append(Row(value, user.encode(), at_ms, n + 1))
    return made


def blocks(log: Sequence[Row], size: int) -> Iterator[list[Row]]:
    """The log, `size` rows at a time."""
    for at in range(0, len(log), size):
        yield list(log[at : at + size])


def settings_with_model(folder: Path, **overrides: Any) -> Settings:
    """Settings with a small model of the items in `rows`."""
    path = folder / "model"
    if not path.exists():
        items = [f"i{n}" for n in range(60)]
        save_artifact(path, untrained_artifact(items, [f"c{n % 7}" for n in range(60)], dim=8, hidden=8, seed=1))
    return load_settings(
        overrides={"model.path": str(path), "worker.data_dir": str(folder / "data"), **overrides}, environ={}
    )
