import numpy as np

from model.baselines.base import FitSettings
from model.baselines.rules import Rules
from model.evaluation.questions import Questions
from model.training.dataset import dataset_from_arrays
from model.transitions import sequence_rules
from state.weights import PURCHASE


def test_sums_the_rules_of_the_last_ten_items() -> None:
    draw = np.random.default_rng(3)
    users, events, items = 12, 25, 8
    data = dataset_from_arrays(
        user=np.repeat(np.arange(users), events).astype(np.int32),
        item=draw.integers(items, size=users * events).astype(np.int32),
        type=np.full(users * events, PURCHASE, np.uint8),
        time_ms=np.tile(np.arange(events) * 60_000, users),
        user_ids=[f"u{k}" for k in range(users)],
        item_ids=[f"i{k}" for k in range(items)],
    )
    to, weight = sequence_rules(items, data.user, data.item).top(items)
    model = Rules(rows=items, decay=0.6)
    model.fit(data, FitSettings())
    questions = Questions(data, np.arange(events - 1, users * events, events))
    scores = model.score(questions)
    for k, row in enumerate(questions.row):
        wanted = np.zeros(items)
        for age in range(10):
            x = data.item[row - 1 - age]
            for y, rule in zip(to[x], weight[x], strict=True):
                wanted[y] += 0.6**age * rule if y >= 0 else 0.0
        np.testing.assert_allclose(scores[k], wanted, rtol=1e-4)
