import math

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

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


# --- against a library, on random input without ties -----------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 5, 10])
def test_metrics_are_those_of_scikit_learn(k: int) -> None:
    draw = np.random.default_rng(k)
    scores = draw.permuted(np.tile(np.arange(50.0), (200, 1)), axis=1)
    target = draw.integers(0, 50, 200)
    relevant = np.zeros(scores.shape)
    relevant[np.arange(200), target] = 1.0
    rank = metrics.ranks(scores, target)
    assert metrics.ndcg(rank, k) == pytest.approx(sklearn.metrics.ndcg_score(relevant, scores, k=k))
    assert metrics.hit_rate(rank, k) == pytest.approx(
        sklearn.metrics.top_k_accuracy_score(target, scores, k=k, labels=np.arange(50))
    )
    assert metrics.mrr(rank, 50) == pytest.approx(
        sklearn.metrics.label_ranking_average_precision_score(relevant, scores)
    )


@pytest.mark.parametrize("k", [1, 5, 10])
def test_sets_are_those_of_scikit_learn(k: int) -> None:
    draw = np.random.default_rng(k)
    lists = [draw.permutation(30)[:10].tolist() for _ in range(100)]
    wanted = [draw.permutation(30)[: draw.integers(1, 8)].tolist() for _ in range(100)]
    shown, right = np.zeros((100, 30), np.int64), np.zeros((100, 30), np.int64)
    for row in range(100):
        shown[row, lists[row][:k]] = 1
        right[row, wanted[row]] = 1
    expected = sklearn.metrics.precision_recall_fscore_support(right, shown, average="samples", zero_division=0)
    ours = (metrics.precision(lists, wanted, k), metrics.recall(lists, wanted, k), metrics.f1(lists, wanted, k))
    assert ours == pytest.approx(expected[:3])


def test_a_tie_counts_what_a_random_order_gives_on_average() -> None:
    """Unlike the library's, whose NDCG averages the gain over the tie; the two differ, and this says by how much."""
    scores = np.array([[1.0, 1.0, 0.0]])
    rank = metrics.ranks(scores, np.array([0]))
    assert rank.tolist() == [1.5]
    assert metrics.ndcg(rank, 10) == pytest.approx(1 / math.log2(2.5))
    theirs = sklearn.metrics.ndcg_score(np.array([[1.0, 0.0, 0.0]]), scores, k=10)
    assert theirs == pytest.approx((1.0 + 1 / math.log2(3)) / 2)
    assert metrics.ndcg(rank, 1) == 0.0  # half a hit is none


# --- of lists ---------------------------------------------------------------------------------------------------------

CATEGORY = np.array([0, 0, 1, 2, -1, -1])  # items 0 to 4, and none


def test_diversity_is_the_share_of_pairs_that_differ() -> None:
    top = np.array([[0, 1, 2], [0, 1, 4], [2, 3, 0], [4, 0, 5]], np.int32)
    assert metrics.diversity(top, CATEGORY, 3)[:3].tolist() == pytest.approx([2 / 3, 0.0, 1.0])
    assert math.isnan(metrics.diversity(top, CATEGORY, 3)[3])
    assert metrics.diversity(top, CATEGORY, 2)[2] == 1.0


def test_distance_is_the_mean_cosine_distance_of_pairs() -> None:
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(20, 6)).astype(np.float32)
    vectors[7] = 0.0
    top = np.array([[1, 2, 3, 4], [5, 7, 6, 20]], np.int32)
    expected = sklearn.metrics.pairwise.cosine_distances(vectors[[1, 2, 3, 4]])[np.triu_indices(4, 1)].mean()
    other = sklearn.metrics.pairwise.cosine_distances(vectors[[5, 6]])[0, 1]
    assert metrics.distance(top, vectors, 4).tolist() == pytest.approx([expected, other], abs=1e-6)


def test_novelty_is_in_bits() -> None:
    share = np.array([0.5, 0.25, 0.125, 0.125])
    top = np.array([[0, 1], [2, 3], [0, 4]], np.int32)
    assert metrics.novelty(top, share, 2).tolist() == [1.5, 3.0, 1.0]
    assert metrics.popularity(top, share, 2).tolist() == [0.375, 0.125, 0.5]


def test_calibration_is_the_divergence_of_scipy() -> None:
    history = np.array([[7.0, 3.0, 0.0]])
    top = np.array([[0, 1, 2, 4]], np.int32)  # two of category 0, one of category 1
    p, q = np.array([0.7, 0.3, 0.0]), np.array([2 / 3, 1 / 3, 0.0])
    expected = scipy.stats.entropy(p, 0.99 * q + 0.01 * p)
    assert metrics.calibration(history, top, CATEGORY, 4).tolist() == pytest.approx([expected])


def test_a_list_as_the_history_is_calibrated_and_another_is_not() -> None:
    top = np.array([[0, 2], [0, 2], [0, 2]], np.int32)
    history = np.array([[5.0, 5.0, 0.0], [0.0, 0.0, 9.0], [0.0, 0.0, 0.0]])
    same, other, none = metrics.calibration(history, top, CATEGORY, 2).tolist()
    assert same == pytest.approx(0.0, abs=1e-12)
    assert other == pytest.approx(math.log(100))  # the bound: p / (0.01 p)
    assert math.isnan(none)


def test_coverage_of_arrays() -> None:
    top = np.array([[0, 1], [0, 4]], np.int32)
    assert metrics.top_coverage(top, 4, 1) == 0.25
    assert metrics.top_coverage(top, 4, 2) == 0.5
