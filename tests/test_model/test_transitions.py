import numpy as np
import pytest

from model.transitions import Transitions, basket_rules, sequence_rules


def i32(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def test_neighbours_count_by_their_gap() -> None:
    #  user 0:  0 1 2      user 1:  0 2
    rules = sequence_rules(3, i32(0, 0, 0, 1, 1), i32(0, 1, 2, 0, 2))
    assert rules.count(0, 1) == 1.0
    assert rules.count(0, 2) == 0.5 + 1.0
    assert rules.count(1, 2) == 1.0
    assert rules.count(2, 0) == 0.0  # not across users, not backwards


def test_only_the_last_ten_count() -> None:
    items = np.arange(12, dtype=np.int32)
    rules = sequence_rules(12, np.zeros(12, np.int32), items)
    assert rules.count(0, 10) == pytest.approx(0.1)
    assert rules.count(0, 11) == 0.0


def test_an_item_does_not_lead_to_itself() -> None:
    assert sequence_rules(2, i32(0, 0, 0), i32(1, 1, 0)).count(1, 1) == 0.0


def test_baskets_have_no_order() -> None:
    #  session 0: 0 1 2      session 1: 2 0
    rules = basket_rules(3, i32(0, 0, 0, 1, 1), i32(0, 1, 2, 2, 0))
    assert rules.count(0, 2) == rules.count(2, 0) == 2.0
    assert rules.count(0, 1) == rules.count(1, 0) == 1.0


def test_weight_is_normalised_and_best_first() -> None:
    rules = Transitions(3)
    rules.occur(i32(0, 0, 0, 0, 1, 2, 2, 2, 2))
    rules.add(i32(0, 0), i32(1, 2), 1.0)
    to, weight = rules.top(3)
    assert to[0].tolist() == [1, 2, -1]  # the rarer of two with one count comes first
    np.testing.assert_allclose(weight[0], [1 / 4**0.5, 1 / (4**0.5 * 4**0.35), 0], rtol=1e-6)
    assert to[1].tolist() == [-1, -1, -1]
    assert weight[1].tolist() == [0, 0, 0]


def test_counting_in_parts_is_counting_at_once() -> None:
    draw = np.random.default_rng(0)
    before, after = draw.integers(0, 20, (2, 500)).astype(np.int32)
    once, parts = Transitions(20), Transitions(20)
    once.add(before, after, 1.0)
    for part in np.array_split(np.arange(500), 7):
        parts.add(before[part], after[part], 1.0)
    dense = np.zeros((20, 20))
    np.add.at(dense, (before, after), 1.0)
    np.fill_diagonal(dense, 0.0)
    for x in range(20):
        for y in range(20):
            assert once.count(x, y) == parts.count(x, y) == dense[x, y]


def test_nothing_counted() -> None:
    to, weight = sequence_rules(2, i32(), i32()).top(5)
    assert to.tolist() == [[-1] * 5] * 2
    assert not weight.any()
