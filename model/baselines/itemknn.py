"""ItemKNN: items taken by the same users (cosine), fired by a user's last items; once, and learning from each event."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from model.baselines.base import F32, I32, FitSettings
from model.baselines.related import fire, shared_users, user_item_pairs
from model.errors import DatasetError
from model.evaluation.questions import Questions
from model.training.dataset import Dataset

LARGEST_INCREMENTAL_ITEMS = 20_000
"""The incremental one counts all pairs in a matrix of n x n floats: 1.6 GB at 20,000."""
_HISTORY = 30
"""Items that fire: at a decay of 0.8 the thirtieth weighs 0.0015 of the first."""


class ItemKNN:
    """cosine(x, y) = users of both / sqrt(users of x * users of y) (Sarwar et al. 2001), the older the less."""

    name = "itemknn"

    def __init__(self, neighbours: int = 500, decay: float = 0.8, history: int = _HISTORY) -> None:
        """neighbours: kept per item.  decay: 1 forgets the order.  history: last items that fire."""
        self._neighbours = neighbours
        self._decay = decay
        self._history = history

    def fit(self, train: Dataset, fit: FitSettings) -> None:  # noqa: ARG002  # nothing to seed
        n, kept = train.items, min(self._neighbours, train.items)
        users = np.bincount(user_item_pairs(train)[1], minlength=n)  # n
        self._to: I32 = np.empty((n, kept), np.int32)
        self._cosine: F32 = np.empty((n, kept), np.float32)
        for x, shared in enumerate(shared_users(train)):
            cosine = shared / np.sqrt(np.maximum(users[x] * users, 1))  # n
            cosine[x] = 0.0
            best = np.argpartition(-cosine, kept - 1)[:kept]
            self._to[x], self._cosine[x] = best, cosine[best]

    def score(self, questions: Questions) -> F32:
        return fire(questions.histories(self._history).item, self._to, self._cosine, self._decay)


class IncrementalItemKNN:
    """ItemKNN as a Scorer of model.evaluation.prequential: every event is counted at once.

    A user's new item meets each item the user took before; an item taken again only becomes the newest.
    """

    def __init__(self, items: int, decay: float = 0.8, history: int = _HISTORY) -> None:
        """Raises DatasetError above LARGEST_INCREMENTAL_ITEMS items."""
        if items > LARGEST_INCREMENTAL_ITEMS:
            raise DatasetError(
                f"The incremental ItemKNN counts all pairs of items, and {items:,} items are more than the "
                f"{LARGEST_INCREMENTAL_ITEMS:,} it can; leave it out, or drop rare items."
            )
        self._shared: F32 = np.zeros((items, items), np.float32)  # n n: users of both
        self._users: F32 = np.zeros(items, np.float32)  # n
        self._amounts: F32 = (decay ** np.arange(history)[::-1]).astype(np.float32)  # history: the newest last
        self._taken: dict[int, dict[int, None]] = {}  # of each user, the newest last

    def begin(self, past: Dataset, users: npt.NDArray[np.int32]) -> None:  # noqa: ARG002  # all users count
        for user, item, time_ms in zip(past.user.tolist(), past.item.tolist(), past.time_ms.tolist(), strict=True):
            self.learn(user, item, time_ms)

    def score(self, user: int, time_ms: int) -> F32:  # noqa: ARG002  # order counts, not time
        last = list(self._taken.get(user, ()))[-len(self._amounts) :]
        length: F32 = np.sqrt(np.maximum(self._users, 1.0))  # n: of the items' vectors of users
        amount: F32 = self._amounts[len(self._amounts) - len(last) :] / length[last]  # last
        scores: F32 = (amount @ self._shared[last]) / length  # n
        return scores

    def learn(self, user: int, item: int, time_ms: int) -> None:  # noqa: ARG002  # order counts, not time
        if item >= len(self._users):
            return
        taken = self._taken.setdefault(user, {})
        if item in taken:
            del taken[item]
        else:
            before = list(taken)
            self._shared[before, item] += 1.0
            self._shared[item, before] += 1.0
            self._users[item] += 1.0
        taken[item] = None
