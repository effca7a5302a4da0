import math

import numpy as np
import pytest

from model.errors import ModelError
from model.evaluation.offline import best_items, judge
from model.evaluation.questions import Questions


class Fixed:
    """The same scores for every question; counts how it is asked."""

    name = "fixed"

    def __init__(self, *scores: float) -> None:
        self.scores = np.array(scores, np.float32)
        self.asked: list[int] = []

    def score(self, questions: Questions) -> np.ndarray:
        self.asked.append(len(questions))
        return np.broadcast_to(self.scores, (len(questions), len(self.scores)))


def test_seen_items_are_masked_and_repeats_are_no_questions(make_log) -> None:
    log = make_log("abca")  # asked: b after a, c after ab, a again
    questions = Questions(log, np.array([1, 2, 3]))
    model = Fixed(6, 5, 4, 3, 2, 1)
    kept = judge(model, questions, seen_filtered=False, k=(2,))
    assert kept.rank.tolist() == [2, 3, 1]
    assert kept.top.tolist() == [[0, 1]] * 3
    filtered = judge(model, questions, seen_filtered=True, k=(2,))
    assert filtered.rank.tolist() == [1, 1]
    assert filtered.top.tolist() == [[1, 2], [2, 3]]
    assert filtered.questions.row.tolist() == [1, 2]


def test_the_models_own_scores_stay_as_they_are(make_log) -> None:
    model = Fixed(6, 5, 4, 3, 2, 1)
    model.score = lambda questions: model.scores[None]  # type: ignore[method-assign]
    judge(model, Questions(make_log("ab"), np.array([1])), seen_filtered=True)
    assert model.scores.tolist() == [6, 5, 4, 3, 2, 1]


def test_questions_come_in_blocks(make_log) -> None:
    log = make_log(*["ab"] * 300)
    model = Fixed(1, 2, 3, 4, 5, 6)
    steps: list[tuple[int, int]] = []
    found = judge(
        model, Questions(log, np.arange(1, 600, 2)), seen_filtered=True, progress=lambda *at: steps.append(at)
    )
    assert model.asked == [256, 44]
    assert steps == [(256, 300), (300, 300)]
    assert set(found.rank.tolist()) == {5.0}


def test_lists_of_more_than_all_candidates_end_early(make_log) -> None:
    found = judge(Fixed(1, 2, 3, 4, 5, 6), Questions(make_log("abc"), np.array([2])), seen_filtered=True, k=(10, 3))
    assert found.top.tolist() == [[5, 4, 3, 2, 6, 6]]


def test_a_score_that_is_no_number_is_refused(make_log) -> None:
    questions = Questions(make_log("abc"), np.array([2]))
    with pytest.raises(ModelError, match="no number"):
        judge(Fixed(1, 2, math.nan, 4, 5, 6), questions, seen_filtered=True)
    with pytest.raises(ModelError, match="shape"):
        judge(Fixed(1, 2), questions, seen_filtered=True)


def test_the_best_are_those_of_a_stable_sort() -> None:
    draw = np.random.default_rng(0)
    for size in (1, 3, 30):
        scores = draw.integers(0, 4, (50, 30)).astype(np.float32)  # full of ties
        assert np.array_equal(best_items(scores, size), np.argsort(-scores, axis=1, kind="stable")[:, :size])
