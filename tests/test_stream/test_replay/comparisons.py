"""A comparison made without a replay, for tests of what tells it."""

from __future__ import annotations

import json
import random

import numpy as np

from stream.replay.diff import diff
from stream.replay.judge import Judged, compared
from stream.replay.lists import Side, Vocabulary
from stream.replay.report import Report

CATEGORIES = {f"i{n}": f"c{n % 7}" for n in range(140)}


def made_report(*, users: int = 200, boost: float = 0.3, name: str = "a report", evil: str = "") -> Report:
    """b shows c3 more, has other words for half of the users, and is better.

    evil: goes into every text that comes from outside.
    """
    draw = random.Random(1)
    words = Vocabulary()
    a, b = Side("a", words, 10), Side("b", words, 10)
    boosted = [item for item, category in CATEGORIES.items() if category == "c3"]
    for user in range(users):
        items = draw.sample(list(CATEGORIES), 10)
        for side in (a, b):
            if side is b and draw.random() < boost * 2:
                items[0] = draw.choice(boosted)
            shown = dict.fromkeys(items)
            word = "new" if side is b and boost and user % 2 else "old"
            side.put(
                json.dumps(
                    {
                        "user_id": f"u{user}{evil}",
                        "strategy": word + evil,
                        "items": [{"item_id": item + evil, "reasons": [{"type": word + evil}]} for item in shown],
                        "interests": [{"name": word + evil}],
                    }
                ).encode()
            )
    a.put(json.dumps({"user_id": f"alone{evil}"}).encode())
    ranks = np.random.default_rng(0).integers(0, 11, 5 * users).astype(np.int32)
    return Report(
        title=f"{name}{evil}",
        a={"model": f"old{evil}"},
        b={"model": f"new{evil}", "set": "ranking.a=1"},
        log=f"log.jsonl{evil}",
        quality=compared(_judged(ranks), _judged(np.where(ranks > 2, ranks - 2, ranks))),
        diff=diff(a, b, categories={item + evil: category + evil for item, category in CATEGORIES.items()}, k=(5, 10)),
    )


def _judged(ranks: np.ndarray) -> Judged:
    size = len(ranks)
    place = np.stack([np.zeros(size, np.int64), np.arange(size), np.ones(size, np.int64)], axis=1)
    return Judged(place, np.arange(size) // 5, ranks, frozenset(range(30)))
