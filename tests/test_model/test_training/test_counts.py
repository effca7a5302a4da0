import numpy as np
import pytest

from model.training.counts import count
from model.training.dataset import Dataset, dataset_from_arrays
from state.weights import PURCHASE

DAY_MS = 86_400_000


def dataset(user: list[int], item: list[int], time_ms: list[int], items: int, *, has_time: bool = True) -> Dataset:
    return dataset_from_arrays(
        user=np.array(user, np.int32),
        item=np.array(item, np.int32),
        type=np.full(len(user), PURCHASE, np.uint8),
        time_ms=np.array(time_ms, np.int64),
        user_ids=[f"u{k}" for k in range(max(user, default=-1) + 1)],
        item_ids=[f"i{k}" for k in range(items)],
        has_time=has_time,
    )


def test_popularity_is_a_decayed_share() -> None:
    data = dataset([0, 0, 0], [0, 1, 1], [0, 7 * DAY_MS, 7 * DAY_MS], 3)
    np.testing.assert_allclose(count(3, 7.0, [data]).popularity(), [0.5 / 2.5, 2 / 2.5, 0], rtol=1e-6)


def test_without_times_nothing_decays_and_no_session_is_known() -> None:
    data = dataset([0, 0, 0], [0, 1, 1], [0, 7 * DAY_MS, 8 * DAY_MS], 3, has_time=False)
    counts = count(3, 7.0, [data])
    np.testing.assert_allclose(counts.popularity(), [1 / 3, 2 / 3, 0], rtol=1e-6)
    assert len(counts.baskets) == 0
    assert counts.rules.count(0, 1) == pytest.approx(1.5)


def test_a_log_in_shards_counts_as_one() -> None:
    draw = np.random.default_rng(0)
    user, item, time = np.sort(draw.integers(0, 30, 900)), draw.integers(0, 20, 900), draw.integers(0, 10**10, 900)
    whole = dataset(user.tolist(), item.tolist(), time.tolist(), 20)
    one, other = count(20, 7.0, [whole]), count(20, 7.0, [whole.select(whole.user % 3 == k) for k in range(3)])
    np.testing.assert_allclose(one.popularity(), other.popularity(), rtol=1e-5)
    for kind in ("rules", "baskets"):
        for x, y in zip(getattr(one, kind).top(), getattr(other, kind).top(), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5)
