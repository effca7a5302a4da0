"""One suite over every scorer, on a tiny log whose answer is obvious."""

from collections.abc import Callable

import numpy as np
import pytest

from model.artifact import artifact_from_network, untrained_artifact
from model.evaluation.baselines import DecayedPopularity, NetworkAlone, PersonalCounts, RulesAlone, Scorer
from model.interest_net import InterestNet, NetSettings
from model.training.dataset import Dataset, dataset_from_arrays
from state.weights import PURCHASE

DAY_MS = 86_400_000
DAY_S = 86_400.0
ITEMS = ["a", "b", "c", "d"]


def log(*events: tuple[int, int, int]) -> Dataset:
    """Rows of (user, item, day)."""
    user, item, day = (np.array(column) for column in zip(*events, strict=True)) if events else ([], [], [])
    return dataset_from_arrays(
        user=np.asarray(user, np.int32),
        item=np.asarray(item, np.int32),
        type=np.full(len(user), PURCHASE, np.uint8),
        time_ms=np.asarray(day, np.int64) * DAY_MS,
        user_ids=["u0", "u1"],
        item_ids=ITEMS,
    )


def rules_alone() -> Scorer:
    to = np.array([[1, -1], [2, -1], [-1, -1], [0, 1]], np.int32)
    weight = np.array([[1, 0], [1, 0], [0, 0], [3, 2]], np.float32)
    network = InterestNet(NetSettings(items=4, dim=4, hidden=4))
    return RulesAlone(artifact_from_network(network, name="x", item_ids=ITEMS, rules=(to, weight)))


SCORERS: dict[str, Callable[[], Scorer]] = {
    "popularity": lambda: DecayedPopularity(4, 7 * DAY_S),
    "personal": lambda: PersonalCounts(4, 60 * DAY_S, 7 * DAY_S),
    "rules": rules_alone,
    "network": lambda: NetworkAlone(untrained_artifact(ITEMS, dim=8, hidden=8, seed=4)),
}


@pytest.mark.parametrize("name", SCORERS)
def test_beginning_with_a_past_is_learning_its_events(name: str) -> None:
    past = log((0, 0, 0), (0, 4, 1), (0, 1, 1), (0, 1, 9), (1, 3, 2), (1, 2, 3))
    at_once, one_by_one = SCORERS[name](), SCORERS[name]()
    at_once.begin(past, np.array([0, 1], np.int32))
    one_by_one.begin(log(), np.array([0, 1], np.int32))
    for row in np.argsort(past.time_ms, kind="stable"):
        one_by_one.learn(int(past.user[row]), int(past.item[row]), int(past.time_ms[row]))
    for user in (0, 1):
        one, other = (scorer.score(user, 10 * DAY_MS) for scorer in (at_once, one_by_one))
        assert one.shape == (4,)
        # A scale of its own is each scorer's business: only the order counts, and that in ratios.
        np.testing.assert_allclose(one / np.abs(one).sum(), other / np.abs(other).sum(), atol=1e-6)


@pytest.mark.parametrize("name", SCORERS)
def test_a_user_nobody_knows_has_scores(name: str) -> None:
    scorer = SCORERS[name]()
    scorer.begin(log(), np.array([], np.int32))
    assert np.isfinite(scorer.score(1, 0)).all()


def test_popularity_forgets() -> None:
    scorer = DecayedPopularity(4, 7 * DAY_S)
    scorer.begin(log((0, 0, 0), (0, 0, 0), (1, 0, 0), (1, 1, 0)), np.array([0]))
    assert scorer.score(0, 0).argmax() == 0
    scorer.learn(1, 1, 14 * DAY_MS)  # a, three times a fortnight ago, is worth 0.75 today
    assert scorer.score(0, 14 * DAY_MS).argmax() == 1


def test_sums_do_not_overflow_over_many_half_lives() -> None:
    scorer = DecayedPopularity(4, 1.0)  # a second: ten days are 864,000 half-lives
    for day, item in enumerate((0, 1, 2, 3, 2)):
        scorer.learn(0, item, day * 10 * DAY_MS)
    assert np.isfinite(scorer.score(0, 0)).all()
    assert scorer.score(0, 0).argmax() == 2


def test_own_counts_come_first_then_popularity() -> None:
    scorer = PersonalCounts(4, 60 * DAY_S, 7 * DAY_S)
    scorer.begin(log((0, 3, 0), (1, 1, 0), (1, 1, 0), (1, 2, 0)), np.array([0, 1], np.int32))
    assert np.argsort(-scorer.score(0, DAY_MS))[:3].tolist() == [3, 1, 2]


def test_rules_of_the_newest_item_weigh_most() -> None:
    scorer = rules_alone()
    scorer.begin(log(), np.array([0], np.int32))
    scorer.learn(0, 0, 0)
    assert scorer.score(0, 0).tolist() == [0, 1, 0, 0]
    scorer.learn(0, 1, 0)
    np.testing.assert_allclose(scorer.score(0, 0), [0, 0.7, 1, 0])
