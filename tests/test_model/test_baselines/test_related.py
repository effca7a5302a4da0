import numpy as np

from model.baselines.related import fire, shared_users, user_item_pairs
from model.training.dataset import Dataset, dataset_from_arrays
from state.weights import PURCHASE


def random_log(users: int, items: int, events: int, seed: int) -> Dataset:
    draw = np.random.default_rng(seed)
    return dataset_from_arrays(
        user=draw.integers(users, size=events).astype(np.int32),
        item=draw.integers(items + 1, size=events).astype(np.int32),  # items: starts of sessions
        type=np.full(events, PURCHASE, np.uint8),
        time_ms=draw.integers(10**9, size=events),
        user_ids=[f"u{k}" for k in range(users + 2)],  # two users without events
        item_ids=[f"i{k}" for k in range(items)],
    )


def test_shared_users_are_those_of_the_matrix_product() -> None:
    data = random_log(30, 12, 200, seed=1)
    took = np.zeros((32, 12), np.int64)
    took[data.user[data.is_item], data.item[data.is_item]] = 1
    np.testing.assert_array_equal(np.stack(list(shared_users(data))), took.T @ took)
    user, item = user_item_pairs(data)
    np.testing.assert_array_equal(np.stack([user, item]), np.nonzero(took))


def test_an_item_nobody_took_shares_no_user() -> None:
    data = random_log(5, 6, 40, seed=2)
    data = data.select(data.item != 3)
    rows = list(shared_users(data))
    assert len(rows) == 6
    assert rows[3].tolist() == [0] * 6


def test_fires_the_newest_item_in_full_and_older_ones_less() -> None:
    to = np.array([[1, 2], [2, -1], [-1, -1]], np.int32)
    weight = np.array([[4, 2], [3, 0], [0, 0]], np.float32)
    history = np.array([[3, 0, 1], [0, 1, 0], [3, 3, 2], [3, 3, 3]], np.int32)  # 3: padding
    np.testing.assert_allclose(
        fire(history, to, weight, 0.5),
        [
            [0, 2, 1 + 3],  # a, then b: half of a's (4, 2), all of b's 3
            [0, 1 + 4, 0.5 + 1.5 + 2],  # a, b, a: a quarter of a, half of b, all of a
            [0, 0, 0],  # c has no rule
            [0, 0, 0],  # a stranger
        ],
    )
