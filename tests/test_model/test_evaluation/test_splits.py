import numpy as np
import pytest

from model.errors import DatasetError
from model.evaluation.splits import leave_one_out, temporal


def text(data) -> str:
    return " ".join(f"{user}{'abcdef^'[item]}" for user, item in zip(data.user, data.item, strict=True))


def test_leave_one_out_asks_the_last_item_and_validates_by_the_one_before(make_log) -> None:
    #    u0 has a start before its last items, u1 too few items to be asked, u2 ends with a start
    split = leave_one_out(make_log("ab^cd", "e^f", "fed^"))
    assert text(split.train) == "0a 0b 0^ 1e 1^ 1f 2f"
    assert (split.validation.user.tolist(), split.validation.target.tolist()) == ([0, 2], [2, 4])
    assert (split.test.user.tolist(), split.test.target.tolist()) == ([0, 2], [3, 3])


def test_the_tests_history_holds_the_validation_item(make_log) -> None:
    split = leave_one_out(make_log("abc"))
    assert split.test.seen(0).tolist() == [0, 1]
    assert split.validation.seen(0).tolist() == [0]


def test_leave_one_out_of_short_histories_is_refused(make_log) -> None:
    with pytest.raises(DatasetError, match="no user has 3 items"):
        leave_one_out(make_log("ab", "c"))


def test_nothing_that_is_asked_is_trained_on(crowd) -> None:
    split = leave_one_out(crowd)
    assert len(split.train) + 2 * len(split.test) == len(crowd)
    counts = np.bincount(crowd.user)
    assert split.test.user.tolist() == np.flatnonzero(counts >= 3).tolist()


def test_temporal_cuts_all_users_at_the_same_times(make_log) -> None:
    #  minute   0 1 2 3 4 5 6 7 8 9
    #  u0       a b     c     d   e
    #  u1           b a   c d   f
    log = make_log("abcde", "bacdf", minutes=[[0, 1, 4, 7, 9], [2, 3, 5, 6, 8]])
    split = temporal(log, validation_share=0.2, test_share=0.3)
    assert text(split.train) == "0a 0b 0c 1b 1a"
    assert split.validation.target.tolist() == [2, 3]
    assert (split.test.user.tolist(), split.test.target.tolist()) == ([0, 0, 1], [3, 4, 5])
    assert split.test.seen(1).tolist() == [0, 1, 2, 3]  # the history runs on in the test


def test_rows_of_one_time_are_not_cut_apart(make_log) -> None:
    log = make_log("abc", "def", minutes=[[0, 5, 9], [1, 5, 9]])
    split = temporal(log, validation_share=0.3, test_share=0.2)
    assert sorted(split.validation.target.tolist()) == [1, 4]
    assert sorted(split.test.target.tolist()) == [2, 5]


@pytest.mark.parametrize("minutes", [[[1, 1, 1]], [[1, 1, 2]]])
def test_too_few_times_are_refused(make_log, minutes) -> None:
    with pytest.raises(DatasetError, match="too few distinct times"):
        temporal(make_log("abc", minutes=minutes), 0.1, 0.1)


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.0, 0.0)])
def test_shares_that_leave_nothing_are_refused(make_log, shares) -> None:
    with pytest.raises(DatasetError, match="shares"):
        temporal(make_log("abc"), *shares)
