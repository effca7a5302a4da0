import numpy as np

from model.baselines.base import FitSettings
from model.baselines.personal import PersonalCounts
from model.evaluation.questions import Questions
from model.training.dataset import dataset_from_arrays
from state.weights import PURCHASE

DAY_MS = 86_400_000


def test_own_counts_decay_until_the_question_and_popularity_settles_the_rest() -> None:
    #           day:   0        10       20
    #   user 0:        a a      b        ?        user 1:  d d d, user 2: c
    user, item, day = [0, 0, 0, 0, 1, 1, 1, 2], [0, 0, 1, 2, 3, 3, 3, 2], [0, 0, 10, 20, 0, 0, 0, 0]
    data = dataset_from_arrays(
        user=np.array(user, np.int32),
        item=np.array(item, np.int32),
        type=np.full(8, PURCHASE, np.uint8),
        time_ms=np.array(day, np.int64) * DAY_MS,
        user_ids=["u0", "u1", "u2"],
        item_ids=["a", "b", "c", "d"],
    )
    model = PersonalCounts(half_life_days=10.0, popularity_half_life_days=1e9, popularity_weight=0.1)
    model.fit(data.select(data.time_ms < 20 * DAY_MS), FitSettings())
    scores = model.score(Questions(data, np.array([3])))[0]
    # a: 2 taken 20 days ago, b: one 10 days ago; of 7 events a has 2, b 1, c 1, d 3.
    np.testing.assert_allclose(scores, np.array([2 / 4, 1 / 2, 0, 0]) + 0.1 * np.array([2, 1, 1, 3]) / 7, rtol=1e-6)
