import math

import numpy as np
import pytest

from model.evaluation.offline import Judged
from model.evaluation.questions import Questions
from model.evaluation.report import Facts, facts_of, p_values, report, values_of, whole_metrics

FACTS = Facts(np.array([0.4, 0.2, 0.1, 0.1, 0.1, 0.1]), np.array([0, 0, 1, 1, -1, -1, -1]), 2)


@pytest.fixture
def judged(make_log) -> Judged:
    questions = Questions(make_log("abc", "ad"), np.array([1, 2, 4]))  # b after a, c after ab, d after a
    top = np.array([[1, 2], [2, 3], [0, 6]], np.int32)
    return Judged("it", questions, np.array([1.0, 2.0, np.inf]), top, True, (1, 2))


def test_metrics_have_names_with_their_k(judged) -> None:
    found = report(judged, FACTS, values_of(judged, FACTS))
    metrics = found["metrics"]
    assert metrics["accuracy"] == metrics["hr@1"] == pytest.approx(1 / 3)
    assert metrics["hr@2"] == metrics["recall@2"] == pytest.approx(2 / 3)
    assert metrics["precision@2"] == pytest.approx(1 / 3)
    assert metrics["f1@2"] == pytest.approx(2 / 3 * 2 / 3)
    assert metrics["ndcg@2"] == pytest.approx((1 + 1 / math.log2(3)) / 3)
    assert metrics["mrr@2"] == pytest.approx(0.5)
    assert metrics["coverage@2"] == pytest.approx(4 / 6)
    assert metrics["diversity@2"] == pytest.approx(0.5)  # of bc and cd; of one item nothing is told
    assert metrics["novelty@1"] == pytest.approx(-np.log2([0.2, 0.1, 0.4]).mean())
    assert set(found["intervals"]) == set(metrics) - {
        f"{name}@{k}" for name in ("coverage", "popularity_lift") for k in (1, 2)
    }
    low, high = found["intervals"]["hr@2"]
    assert low <= 2 / 3 <= high


def test_what_nothing_can_be_said_of_is_null(judged) -> None:
    found = report(judged, FACTS, values_of(judged, FACTS))
    assert found["metrics"]["diversity@1"] is None  # a list of one has no pairs
    assert found["intervals"]["diversity@1"] == [None, None]


def test_without_categories_there_are_no_metrics_of_them(judged) -> None:
    plain = Facts(FACTS.share, np.full(7, -1), 0, np.eye(6, dtype=np.float32))
    names = values_of(judged, plain).names
    assert not {"diversity@2", "calibration@2"} & set(names)
    assert "distance@2" in names


def test_calibration_is_told_by_each_questions_own_history(judged) -> None:
    values = values_of(judged, FACTS)
    column = values.values[:, values.names.index("calibration@2")]
    # histories a, ab, a are all of category 0; lists bc (half), cd (nothing of it), a (the same)
    assert column.tolist() == pytest.approx([-math.log(0.99 * 0.5 + 0.01), math.log(100), 0.0], abs=1e-9)


def test_popularity_lift_is_against_what_was_taken(judged) -> None:
    shown = np.mean([(0.2 + 0.1) / 2, 0.1, 0.4])
    taken = np.mean([0.2, 0.1, 0.1])
    assert whole_metrics(judged, FACTS)["popularity_lift@2"] == pytest.approx(shown / taken - 1)


def test_facts_count_what_was_learnt(make_log) -> None:
    facts = facts_of(make_log("aa^b"))
    assert facts.share.tolist() == pytest.approx([3 / 9, 2 / 9, 1 / 9, 1 / 9, 1 / 9, 1 / 9])
    assert (facts.categories, set(facts.category.tolist())) == (0, {-1})


def test_p_values_are_by_name(judged) -> None:
    values = values_of(judged, FACTS)
    found = p_values(values, values, judged.questions)
    assert found["hr@2"] == 1.0
    assert found["diversity@1"] is None
