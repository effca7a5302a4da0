import numpy as np
import pytest

from model.online.pairs import AllPairs, HeavyPairs, PairCounts, pair_counts

N = 12


def whole(counts: PairCounts) -> np.ndarray:
    """All counts, f32[n, n]: each item read by itself, at weight 1."""
    one = np.ones((1, 1), np.float32)
    return np.concatenate([counts.total(np.array([item]), one) for item in range(N)])


def add(counts: PairCounts, item: int, *others: tuple[int, float]) -> None:
    items, amounts = zip(*others, strict=True)
    counts.add(item, np.array(items, np.int64), np.array(amounts, np.float32))


def add_at_random(*several: PairCounts, events: int = 200) -> None:
    draw = np.random.default_rng(5)
    for _ in range(events):
        item, *others = draw.choice(N, int(draw.integers(1, 6)), replace=False)
        for counts in several:
            counts.add(int(item), np.array(others, np.int64), np.arange(1, len(others) + 1, dtype=np.float32))


@pytest.mark.parametrize("rows", [None, N - 1])
def test_pairs_count_both_ways_and_add_up(rows: int | None) -> None:
    counts = pair_counts(N, rows)
    add(counts, 3, (1, 2.0), (5, 0.5))
    add(counts, 1, (3, 1.0))
    expected = np.zeros((N, N))
    expected[3, 1] = expected[1, 3] = 3.0
    expected[3, 5] = expected[5, 3] = 0.5
    np.testing.assert_array_equal(whole(counts), expected)


@pytest.mark.parametrize("rows", [None, N - 1])
def test_a_total_is_the_weighted_sum_of_rows_for_each_speed(rows: int | None) -> None:
    counts = pair_counts(N, rows)
    add_at_random(counts)
    weight = np.array([[1.0, 0.5, 0.25], [0.0, 0.0, 2.0]], np.float32)
    np.testing.assert_allclose(counts.total(np.array([4, 0, 7]), weight), weight @ whole(counts)[[4, 0, 7]], rtol=1e-5)


def test_no_items_add_nothing_and_total_nothing() -> None:
    none, weight = np.empty(0, np.int64), np.empty((3, 0), np.float32)
    for counts in (AllPairs(N), HeavyPairs(N, 2)):
        counts.add(4, none, np.empty(0, np.float32))
        assert counts.total(none, weight).tolist() == np.zeros((3, N)).tolist()


def test_slots_for_all_pairs_are_exact() -> None:
    exact, slots = AllPairs(N), HeavyPairs(N, N - 1)
    add_at_random(exact, slots)
    np.testing.assert_array_equal(whole(slots), whole(exact))


def test_few_slots_tell_no_more_than_was_counted_and_keep_what_is_heavy() -> None:
    exact, slots = AllPairs(N), HeavyPairs(N, 3)
    for _ in range(20):
        add(exact, 0, (1, 5.0))
        add(slots, 0, (1, 5.0))
        add_at_random(exact, slots, events=4)
    true, told = whole(exact), whole(slots)
    assert (told <= true + 1e-4).all()
    assert ((told > 0).sum(axis=1) <= 3).all()
    heavy = true > true.sum(axis=1, keepdims=True) / 3
    assert heavy.any()
    assert (told[heavy] > 0).all()


def test_more_new_pairs_than_slots_fill_the_slots() -> None:
    slots = HeavyPairs(N, 2)
    add(slots, 0, (1, 1.0), (2, 1.0), (3, 1.0))
    assert (whole(slots)[0] > 0).sum() == 2
    assert whole(slots)[1:4, 0].tolist() == [1.0, 1.0, 1.0]  # their own rows had room
