"""Items related to an item: counted by shared users, kept as short lists, fired by the last items of a history.

history:    milk      bread     eggs           decay 0.7
weight:     0.49      0.7       1              times the weight of (eggs -> y), (bread -> y), (milk -> y)
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from model.baselines.base import F32, I32, I64, item_rows
from model.training.dataset import Dataset


def user_item_pairs(data: Dataset) -> tuple[I64, I64]:
    """Each pair of a user and an item they took, once, by user and item: i64[p] each.

    Raises DatasetError where there is none.
    """
    rows = item_rows(data)
    keys = np.unique(data.user[rows].astype(np.int64) * data.items + data.item[rows])
    return keys // data.items, keys % data.items


def shared_users(data: Dataset) -> Iterator[I64]:
    """For each item x in turn: how many users took both x and y. i64[n] each; at x itself, the users who took x."""
    user, item = user_item_pairs(data)
    borders = np.searchsorted(user, np.arange(len(data.user_ids) + 1))  # user u took item[borders[u]:borders[u + 1]]
    of_user = np.split(item, borders[1:-1])
    by_item = np.argsort(item, kind="stable")
    borders = np.searchsorted(item[by_item], np.arange(data.items + 1))
    for users in np.split(user[by_item], borders[1:-1]):
        taken = np.concatenate([of_user[u] for u in users]) if len(users) else item[:0]
        yield np.bincount(taken, minlength=data.items)


def fire(history: I32, to: I32, weight: F32, decay: float) -> F32:
    """Sum the related items of a history's items, each item's by decay**age: f32[q, n].

    history: i32[q, L], newest last, left-padded with n.  to: i32[n, R], padded with -1 where weight f32[n, R] is 0;
    the items of a row differ.
    """
    (q, length), n = history.shape, len(to)
    scores = np.zeros((q, n + 1), np.float32)  # the last takes the padding: index -1
    for age in range(length):
        item = history[:, length - 1 - age]  # q
        asked = np.flatnonzero(item < n)
        # The items of a row differ, so plain indexing adds each once.
        scores[asked[:, None], to[item[asked]]] += decay**age * weight[item[asked]]
    return scores[:, :n]
