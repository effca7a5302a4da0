import numpy as np
import pytest
from scipy import stats

from model.evaluation.significance import intervals, paired_p


def test_the_interval_is_that_of_scipy() -> None:
    """One question a user: then resampling users is the ordinary bootstrap."""
    values = np.random.default_rng(1).gamma(2.0, size=400)
    ((low, high),) = [(i.low, i.high) for i in intervals(values[:, None], np.arange(400), draws=5000)]
    theirs = stats.bootstrap((values,), np.mean, n_resamples=5000, method="percentile", rng=1).confidence_interval
    assert low == pytest.approx(theirs.low, abs=0.02)
    assert high == pytest.approx(theirs.high, abs=0.02)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    draw = np.random.default_rng(2)
    covered = 0
    for trial in range(200):
        taste = draw.normal(size=80)  # users differ ...
        user = draw.integers(0, 80, 600)
        values = (taste[user] + 0.1 * draw.normal(size=600))[:, None]  # ... and each user's questions are alike
        (span,) = intervals(values, user.astype(np.int32), draws=300, seed=trial)
        covered += span.low <= 0.0 <= span.high
    assert 0.89 <= covered / 200 <= 0.99  # over questions instead of users it would be about half


def test_users_and_not_questions_are_drawn() -> None:
    one = np.array([[1.0], [0.0]])
    user = np.array([0, 1], np.int32)
    many = intervals(np.repeat(one, 500, axis=0), np.repeat(user, 500))
    assert many == intervals(one, user)


def test_values_that_are_missing_are_left_out() -> None:
    values = np.array([[2.0, np.nan], [2.0, np.nan], [np.nan, np.nan]])
    known, unknown = intervals(values, np.array([0, 1, 1], np.int32))
    assert (known.low, known.high) == (2.0, 2.0)
    assert np.isnan([unknown.low, unknown.high]).all()


def test_no_question_has_no_interval() -> None:
    (span,) = intervals(np.empty((0, 1)), np.empty(0, np.int32))
    assert np.isnan([span.low, span.high]).all()
    assert np.isnan(paired_p(np.empty((0, 1)), np.empty((0, 1)), np.empty(0, np.int32))).all()


def test_p_is_that_of_scipy() -> None:
    draw = np.random.default_rng(3)
    ours = draw.normal(size=(60, 3)) + np.array([0.0, 0.25, 1.0])
    theirs = draw.normal(size=(60, 3))
    p = paired_p(ours, theirs, np.arange(60, dtype=np.int32))
    for m in range(3):
        expected = stats.permutation_test(
            (ours[:, m], theirs[:, m]),
            lambda a, b, axis: (a - b).mean(axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=9999,
            rng=1,
        ).pvalue
        assert p[m] == pytest.approx(expected, abs=0.015)
    assert p[2] == 1e-4


def test_the_questions_of_one_user_count_as_one() -> None:
    ours, theirs = np.ones((1000, 1)), np.zeros((1000, 1))
    assert paired_p(ours, theirs, np.zeros(1000, np.int32)).tolist() == [1.0]


def test_equal_models_do_not_differ() -> None:
    values = np.random.default_rng(4).random((50, 2))
    assert paired_p(values, values, np.arange(50, dtype=np.int32)).tolist() == [1.0, 1.0]
