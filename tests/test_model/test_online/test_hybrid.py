"""A toy world whose answers are obvious: items 0..9 in order, then 10..19 in order, each user on one of the roads."""

import numpy as np
import pytest

from model.evaluation.prequential import prequential
from model.online.hybrid import HybridSettings, OnlineHybrid
from model.training.dataset import Dataset, dataset_from_arrays
from state.weights import PURCHASE

N = 20


def taught(events: list[tuple[int, int, int]], **options: object) -> OnlineHybrid:
    """A hybrid that learnt events of (user, item, time in s)."""
    hybrid = OnlineHybrid(N, HybridSettings(**options))  # type: ignore[arg-type]  # options of a test
    for user, item, time_s in events:
        hybrid.learn(user, item, time_s * 1000)
    return hybrid


def roads(users: int, length: int = 10) -> list[tuple[int, int, int]]:
    """Each user walks one of the two roads, an item a second."""
    return [(user, (user % 2) * 10 + step, user * 100 + step) for user in range(users) for step in range(length)]


def dataset(events: list[tuple[int, int, int]]) -> Dataset:
    user, item, time_s = (np.array(column, np.int64) for column in zip(*events, strict=True))
    return dataset_from_arrays(
        user=user.astype(np.int32),
        item=item.astype(np.int32),
        type=np.full(len(user), PURCHASE, np.uint8),
        time_ms=time_s * 1000,
        user_ids=[f"u{k}" for k in range(int(user.max()) + 1)],
        item_ids=[f"i{k}" for k in range(N)],
    )


def best(hybrid: OnlineHybrid, user: int, k: int = 1) -> list[int]:
    return np.argsort(-hybrid.score(user, 0), kind="stable")[:k].tolist()


def best_score(hybrid: OnlineHybrid, user: int) -> float:
    return float(hybrid.score(user, 0).max())


def test_one_who_begins_with_nothing_has_scores_for_all() -> None:
    hybrid = OnlineHybrid(N)
    assert hybrid.score(0, 0).shape == (N,)
    assert np.isfinite(hybrid.score(0, 0)).all()


@pytest.mark.parametrize("pairs_per_item", [None, 5])
def test_users_are_led_along_the_road_they_are_on(pairs_per_item: int | None) -> None:
    hybrid = taught([*roads(30), (40, 12, 5000), (40, 13, 5001)], pairs_per_item=pairs_per_item)
    assert set(best(hybrid, 40, 4)) <= set(range(10, 20)) - {12, 13}


def test_a_stranger_gets_what_is_popular() -> None:
    assert best(taught([*roads(8), *((50 + k, 7, 9000 + k) for k in range(20))]), 99) == [7]


def test_what_was_taken_follows_the_rest_unless_repeats_are_wanted() -> None:
    events = [*roads(30), (40, 12, 5000)]
    assert taught(events).score(40, 0)[12] < 1.0 < best_score(taught(events), 40)
    again = taught([*events, *((40, 12, 5000 + k) for k in range(1, 5))], repeats=True)
    assert again.score(40, 0)[12] >= 1.0  # a candidate


def test_items_of_one_moment_belong_together_whatever_their_order() -> None:
    page = [(user, item, user * 100) for user in range(6) for item in (3, 5, 8)]
    turned = [(user, item, user * 100) for user in range(6) for item in (8, 5, 3)]
    one, other = taught(page), taught(turned)
    for item in (3, 5, 8):
        weight = np.ones((1, 1), np.float32)
        np.testing.assert_allclose(
            one._pairs.total(np.array([item]), weight), other._pairs.total(np.array([item]), weight)
        )


def test_pairs_grow_thin_with_the_moments_between_them() -> None:
    hybrid = taught([(0, 1, 0), (0, 2, 0), (0, 3, 1), (0, 4, 2)])
    row = hybrid._pairs.total(np.array([1]), np.ones((1, 1), np.float32))[0]
    np.testing.assert_allclose(row[[2, 3, 4]], [1.0, 2**-0.5, 3**-0.5])


def test_asking_changes_nothing() -> None:
    events = roads(12)
    silent, asked = taught(events), OnlineHybrid(N)
    for user, item, time_s in events:
        asked.score(user, time_s * 1000)
        asked.score((user + 1) % 12, time_s * 1000)
        asked.learn(user, item, time_s * 1000)
    np.testing.assert_array_equal(silent.score(3, 0), asked.score(3, 0))


def test_beginning_with_a_past_is_learning_its_events_in_order_of_time() -> None:
    events = roads(12)
    begun = OnlineHybrid(N)
    begun.begin(dataset(events), np.array([0, 1], np.int32))  # holds session starts too: they teach nothing
    np.testing.assert_array_equal(begun.score(3, 0), taught(events).score(3, 0))


def test_scores_know_no_event_to_come() -> None:
    """The score before an event is the same whatever the event is."""
    one, other = taught(roads(10)), taught(roads(10))
    np.testing.assert_array_equal(one.score(4, 0), other.score(4, 10**9))
    one.learn(4, 9, 0)
    assert not np.array_equal(one.score(4, 0), other.score(4, 0))


def test_the_shortlist_bounds_what_is_blended() -> None:
    scores = taught(roads(30), shortlist=4).score(99, 0)
    assert (scores >= 1.0).sum() == 4
    assert (scores < 1.0).sum() == N - 4


def test_likeness_leads_to_items_that_nobody_paired() -> None:
    content = np.zeros((N, 2), np.float32)
    content[:10, 0] = content[10:, 1] = 1.0
    hybrid = OnlineHybrid(N, content=content)
    for k in range(400):  # each user takes two items of one kind, by chance
        first, second = np.random.default_rng(k).choice(10, 2, replace=False) + (k % 2) * 10
        hybrid.learn(k, int(first), k * 2000)
        hybrid.learn(k, int(second), k * 2000 + 1000)
    assert hybrid.signals[-1] == "content"
    hybrid.learn(1000, 15, 10**7)
    assert set(best(hybrid, 1000, 9)) == set(range(10, 20)) - {15}


def test_it_does_better_than_it_did_before_it_learnt() -> None:
    data = dataset(roads(60))
    judged = prequential(
        data.select(np.zeros(len(data), np.bool_)), data, {"it": OnlineHybrid(N)}, hide="seen", known_only=True
    )["it"]
    half = len(judged.rank) // 2
    assert (judged.rank[half:] <= 3).mean() > 0.8
    assert judged.rank[half:].mean() < judged.rank[:half].mean()
