import math

import numpy as np
import pytest

from model.evaluation import metrics


def test_rank_is_the_place_by_score() -> None:
    scores = np.array([[0.1, 0.9, 0.5], [0.1, 0.9, 0.5], [0.1, 0.9, 0.5]])
    assert metrics.ranks(scores, np.array([1, 2, 0])).tolist() == [1, 2, 3]


def test_equals_share_the_middle() -> None:
    assert metrics.ranks(np.zeros((1, 5)), np.array([3])).tolist() == [3.0]


def test_a_hidden_item_is_never_found() -> None:
    scores = np.array([[-np.inf, 1.0]])
    assert metrics.ranks(scores, np.array([0])).tolist() == [math.inf]
    assert metrics.ranks(scores, np.array([1])).tolist() == [1.0]


def test_metrics_of_ranks() -> None:
    rank = np.array([1.0, 3.0, 21.0, np.inf])
    assert metrics.hit_rate(rank, 20) == 0.5
    assert metrics.hit_rate(rank, 1) == 0.25
    assert metrics.ndcg(rank, 20) == pytest.approx((1.0 + 1.0 / math.log2(4)) / 4)
    assert metrics.mrr(rank, 20) == pytest.approx((1.0 + 1.0 / 3.0) / 4)


def test_sets() -> None:
    lists = [["a", "b", "c", "d"], ["x", "y"]]
    wanted = [["a", "d", "e", "f"], ["y"]]
    assert metrics.recall(lists, wanted, 2) == pytest.approx((1 / 4 + 1) / 2)
    assert metrics.precision(lists, wanted, 2) == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert metrics.precision(lists, wanted, 4) == pytest.approx((2 / 4 + 1 / 4) / 2)
    assert metrics.f1(lists, wanted, 2) == pytest.approx((2 * 1 / (2 + 4) + 2 * 1 / (2 + 1)) / 2)


def test_lists_that_want_nothing_are_left_out() -> None:
    assert metrics.recall([["a"], ["b"]], [["a"], []], 1) == 1.0
    assert metrics.precision([["a"], ["b"]], [["a"], []], 1) == 1.0
    assert metrics.f1([["a"], ["b"]], [["a"], []], 1) == 1.0


def test_coverage() -> None:
    assert metrics.coverage([["a", "b"], ["a", "c"]], items=4, k=1) == 0.25
    assert metrics.coverage([["a", "b"], ["a", "c"]], items=4, k=2) == 0.75


def test_nothing_to_judge_is_no_zero() -> None:
    empty = np.empty(0)
    values = [metrics.hit_rate(empty, 5), metrics.ndcg(empty, 5), metrics.mrr(empty, 5)]
    values += [metrics.recall([], [], 5), metrics.precision([["a"]], [[]], 5), metrics.f1([], [], 5)]
    assert all(math.isnan(value) for value in [*values, metrics.coverage([], 0, 5)])
