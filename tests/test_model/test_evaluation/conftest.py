"""Small logs written as rows, and one of random users."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from model.artifact import Artifact, untrained_artifact
from model.ranking.features import FEATURES
from model.training.dataset import Dataset, dataset_from_arrays
from state.weights import PURCHASE, TYPE_CODES

ITEMS = 40
CATEGORIES = [f"c{k % 5}" if k % 7 else "" for k in range(ITEMS)]
START_MS = 1_700_000_000_000

MakeLog = Callable[..., Dataset]


@pytest.fixture(scope="session")
def make_log() -> MakeLog:
    """make_log("abc", "b^ca") -> users u0 and u1 over items a to f, a row a minute of each user; ^ starts a session."""

    def make(*users: str, minutes: list[list[int]] | None = None) -> Dataset:
        item = [["abcdef^".index(letter) for letter in rows] for rows in users]
        times = minutes or [list(range(len(rows))) for rows in users]
        return dataset_from_arrays(
            user=np.repeat(np.arange(len(users), dtype=np.int32), [len(rows) for rows in users]),
            item=np.array([number for rows in item for number in rows], np.int32),
            type=np.full(sum(map(len, users)), PURCHASE, np.uint8),
            time_ms=START_MS + np.array([minute for rows in times for minute in rows], np.int64) * 60_000,
            user_ids=[f"u{k}" for k in range(len(users))],
            item_ids=list("abcdef"),
        )

    return make


@pytest.fixture(scope="session")
def crowd() -> Dataset:
    """Sixty users of 1 to 40 events of several types on ITEMS items, at the same time, some with long pauses."""
    draw = np.random.default_rng(5)
    length = draw.integers(1, 41, 60)
    rows = int(length.sum())
    types = [TYPE_CODES[name] for name in ("view", "click", "purchase")]
    return dataset_from_arrays(
        user=np.repeat(np.arange(60, dtype=np.int32), length),
        item=(draw.random(rows) ** 2 * ITEMS).astype(np.int32),
        type=draw.choice(types, rows).astype(np.uint8),
        time_ms=START_MS + draw.integers(0, 14 * 86_400_000, rows),
        user_ids=[f"u{k}" for k in range(60)],
        item_ids=[f"item-{k}" for k in range(ITEMS)],
        item_categories=CATEGORIES,
    )


@pytest.fixture(scope="session", params=["log-linear", "learnt"])
def artifact(request: pytest.FixtureRequest) -> Artifact:
    """A model of the crowd's items with random weights and rules, by either way to blend."""
    made = untrained_artifact([f"item-{k}" for k in range(ITEMS)], CATEGORIES, dim=16, hidden=16, rules=8)
    draw = np.random.default_rng(2)
    popularity = draw.random(ITEMS).astype(np.float32)
    shapes = {"w1": (6, len(FEATURES)), "b1": (6,), "w2": (4, 6), "b2": (4,), "w3": (1, 4)}
    blend = {name: draw.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    learnt = request.param == "learnt"
    return dataclasses.replace(made, popularity=popularity / popularity.sum(), blend=blend if learnt else None)
