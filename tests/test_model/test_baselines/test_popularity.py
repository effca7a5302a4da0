import numpy as np
import pytest

from model.baselines.base import FitSettings
from model.baselines.popularity import DecayedPopularity, Popularity, decayed_share
from model.evaluation.questions import Questions
from model.training.dataset import Dataset, dataset_from_arrays
from state.weights import PURCHASE

DAY_MS = 86_400_000


def log(*events: tuple[int, int]) -> Dataset:
    """Rows of (item, day) of one user, three items."""
    item, day = (np.array(column) for column in zip(*events, strict=True))
    return dataset_from_arrays(
        user=np.zeros(len(item), np.int32),
        item=item.astype(np.int32),
        type=np.full(len(item), PURCHASE, np.uint8),
        time_ms=day.astype(np.int64) * DAY_MS,
        user_ids=["u"],
        item_ids=["a", "b", "c"],
        new_session=np.zeros(len(item), np.bool_),
    )


DATA = log((0, 0), (0, 0), (0, 0), (1, 14), (2, 7), (2, 14))
LAST = Questions(DATA, np.array([len(DATA) - 1]))


def test_counts_all_events_alike() -> None:
    model = Popularity()
    model.fit(DATA, FitSettings())
    np.testing.assert_allclose(np.exp(model.score(LAST)[0]), [3 / 6, 1 / 6, 2 / 6], rtol=1e-5)


def test_forgets_by_halves() -> None:
    # a: 3/4, b: 1, c: 1/2 + 1
    np.testing.assert_allclose(decayed_share(DATA, 7.0), np.array([0.75, 1.0, 1.5]) / 3.25)
    model = DecayedPopularity(half_life_days=7.0)
    model.fit(DATA, FitSettings())
    assert np.argsort(-model.score(LAST)[0]).tolist() == [2, 1, 0]


def test_what_is_very_old_keeps_its_order_and_is_finite() -> None:
    model = DecayedPopularity(half_life_days=1.0)
    model.fit(log((0, 0), (1, 100), (2, 900), (2, 3000)), FitSettings())  # 2**-3000 is no double
    scores = model.score(LAST)[0]
    assert np.isfinite(scores).all()
    model.fit(log((0, 0), (1, 100), (2, 900)), FitSettings())  # 2**-900 is no float, but a double
    assert np.argsort(-model.score(LAST)[0]).tolist() == [2, 1, 0]


def test_all_questions_have_the_same_scores_but_not_the_same_memory() -> None:
    model = Popularity()
    model.fit(DATA, FitSettings())
    scores = model.score(Questions(DATA, np.array([1, 2])))
    np.testing.assert_array_equal(scores[0], scores[1])
    scores[0] = -np.inf  # as a caller masks
    assert np.isfinite(model.score(LAST)).all()
    assert scores[1] == pytest.approx(model.score(LAST)[0])
