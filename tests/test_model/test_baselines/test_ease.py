import numpy as np
import pytest

from model.baselines import ease
from model.baselines.base import FitSettings
from model.baselines.ease import EASE
from model.errors import DatasetError
from model.evaluation.questions import Questions
from model.training.dataset import Dataset, dataset_from_arrays
from state.weights import PURCHASE

USERS, ITEMS = 40, 9


def log() -> Dataset:
    draw = np.random.default_rng(2)
    return dataset_from_arrays(
        user=np.sort(draw.integers(USERS, size=250)).astype(np.int32),
        item=draw.integers(ITEMS, size=250).astype(np.int32),
        type=np.full(250, PURCHASE, np.uint8),
        time_ms=np.arange(250),
        user_ids=[f"u{k}" for k in range(USERS)],
        item_ids=[f"i{k}" for k in range(ITEMS)],
    )


def test_is_the_best_map_with_an_empty_diagonal() -> None:
    """Column by column: ridge regression of an item on all others (Steck 2019, section 3)."""
    data = log()
    took = np.zeros((USERS, ITEMS))
    took[data.user, data.item] = 1.0
    wanted = np.zeros((ITEMS, ITEMS))
    for y in range(ITEMS):
        others = np.delete(np.arange(ITEMS), y)
        x = took[:, others]
        wanted[others, y] = np.linalg.solve(x.T @ x + 3.0 * np.eye(ITEMS - 1), x.T @ took[:, y])
    model = EASE(l2=3.0)
    model.fit(data, FitSettings())
    questions = Questions(data, np.searchsorted(data.user, np.arange(USERS), side="right") - 1)
    history = np.zeros((USERS, ITEMS))
    for k in range(USERS):
        history[k, questions.seen(k)] = 1.0
    np.testing.assert_allclose(model.score(questions), history @ wanted, atol=1e-4)


def test_too_many_items_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ease, "LARGEST_ITEMS", ITEMS - 1)
    with pytest.raises(DatasetError, match=r"9 items are more than the 8 it can; leave it out"):
        EASE().fit(log(), FitSettings())
