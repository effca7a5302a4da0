"""What a model has to beat, and its parts alone: scorers of all items that learn from each event.

A scorer is asked before an event and told after it (model.evaluation.prequential). Baselines keep rows of n
floats per user and no bound on their number: they are for evaluation, not for serving.

Letters in shapes: n items, m rows, B users, S and D as in model.artifact.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from model.artifact import Artifact
from model.training.dataset import Dataset

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

_REBASE_HALF_LIVES = 500.0
"""Sums in forward decay grow by 2 a half-life; they are brought down long before a double overflows at 1023."""


class Scorer(Protocol):
    """Scores items for a user, and learns."""

    def begin(self, past: Dataset, users: npt.NDArray[np.int32]) -> None:
        """Learn a whole past; only `users` will be asked for."""

    def score(self, user: int, time_ms: int) -> npt.NDArray[Any]:
        """Scores of all items, float[n], larger is better; not to be changed by the caller."""

    def learn(self, user: int, item: int, time_ms: int) -> None:
        """One event more; item n is a session's start."""


class DecayedCounts:
    """Counts of n items that halve in `half_life_s`, by forward decay (Cormode et al. 2009).

    An event at t adds 2**((t - reference) / half_life): older counts fall behind without being touched, and the
    count at any time is the sum times one factor.
    """

    def __init__(self, items: int, half_life_s: float) -> None:
        self.sums: F64 = np.zeros(items)  # n
        self._half_life_ms = half_life_s * 1000.0
        self._reference_ms: int | None = None

    def add(self, item: int, time_ms: int) -> None:
        self.sums[item] += self._amount(time_ms)

    def add_all(self, item: npt.NDArray[np.int32], time_ms: npt.NDArray[np.int64]) -> None:
        """item: i32[k], time_ms: i64[k], in any order."""
        if len(item):
            self._amount(int(time_ms.max()))  # makes the newest the reference if need be
            age = (time_ms - (self._reference_ms or 0)) / self._half_life_ms
            self.sums += np.bincount(item, weights=np.exp2(age), minlength=len(self.sums))

    def at(self, time_ms: int) -> F64:
        """The counts at a time. f64[n]."""
        if self._reference_ms is None:
            return self.sums
        counts: F64 = self.sums * 2.0 ** ((self._reference_ms - time_ms) / self._half_life_ms)
        return counts

    def _amount(self, time_ms: int) -> float:
        if self._reference_ms is None:
            self._reference_ms = time_ms
        age = (time_ms - self._reference_ms) / self._half_life_ms
        if age > _REBASE_HALF_LIVES:
            self.sums *= 2.0**-age
            self._reference_ms = time_ms
            return 1.0
        return float(2.0**age)


class DecayedPopularity:
    """The same list for all: what was taken most, of late."""

    def __init__(self, items: int, half_life_s: float) -> None:
        self._counts = DecayedCounts(items, half_life_s)
        self._items = items

    def begin(self, past: Dataset, users: npt.NDArray[np.int32]) -> None:  # noqa: ARG002  # all users count
        rows = past.is_item
        self._counts.add_all(past.item[rows], past.time_ms[rows])

    def score(self, user: int, time_ms: int) -> F64:  # noqa: ARG002  # the factor of time changes no order
        return self._counts.sums

    def learn(self, user: int, item: int, time_ms: int) -> None:  # noqa: ARG002  # all users count
        if item < self._items:
            self._counts.add(item, time_ms)


class PersonalCounts:
    """What this user took most, of late; popularity settles what the user never took. The best simple list."""

    def __init__(
        self,
        items: int,
        half_life_s: float,
        popularity_half_life_s: float,
        popularity_weight: float = 1.0,
    ) -> None:
        """popularity_weight: how many times taken the share 1 of all events is worth."""
        self._items = items
        self._half_life_s = half_life_s
        self._weight = popularity_weight
        self._popularity = DecayedCounts(items, popularity_half_life_s)
        self._users: dict[int, DecayedCounts] = {}

    def begin(self, past: Dataset, users: npt.NDArray[np.int32]) -> None:
        rows = past.is_item
        self._popularity.add_all(past.item[rows], past.time_ms[rows])
        for user in users:
            first, last = np.searchsorted(past.user, [user, user + 1])
            own = np.flatnonzero(rows[first:last]) + first
            self._of(int(user)).add_all(past.item[own], past.time_ms[own])

    def score(self, user: int, time_ms: int) -> F64:
        popularity = self._popularity.sums
        scores: F64 = self._of(user).at(time_ms) + popularity * (self._weight / max(popularity.sum(), 1e-300))
        return scores

    def learn(self, user: int, item: int, time_ms: int) -> None:
        if item < self._items:
            self._popularity.add(item, time_ms)
            self._of(user).add(item, time_ms)

    def _of(self, user: int) -> DecayedCounts:
        if user not in self._users:
            self._users[user] = DecayedCounts(self._items, self._half_life_s)
        return self._users[user]


class RulesAlone:
    """The artifact's sequence rules, fired by a user's last items; fixed at the end of training."""

    def __init__(self, artifact: Artifact, window: int = 10, decay: float = 0.7) -> None:
        self._artifact = artifact
        self._window = window
        self._decay = decay
        self._last: dict[int, deque[int]] = {}

    def begin(self, past: Dataset, users: npt.NDArray[np.int32]) -> None:
        rows = past.is_item
        for user in users:
            first, last = np.searchsorted(past.user, [user, user + 1])
            own = past.item[first:last][rows[first:last]]
            self._last[int(user)] = deque(own[-self._window :].tolist(), self._window)

    def score(self, user: int, time_ms: int) -> F64:  # noqa: ARG002  # rules do not age
        scores = np.zeros(self._artifact.items + 1)  # n + 1: the last takes the padding
        for age, item in enumerate(reversed(self._last.get(user, ()))):
            # The items of one row are distinct, so plain indexing adds each once.
            scores[self._artifact.rules_to[item]] += self._decay**age * self._artifact.rules_weight[item]
        return scores[:-1]

    def learn(self, user: int, item: int, time_ms: int) -> None:  # noqa: ARG002  # order counts, not time
        if item < self._artifact.items:
            self._last.setdefault(user, deque(maxlen=self._window)).append(item)


class NetworkAlone:
    """The artifact's network without counts, rules or popularity."""

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact
        self._matrix = torch.from_numpy(artifact.item_matrix)  # n D
        self._bias = torch.from_numpy(artifact.item_bias)  # n
        self._states: dict[int, torch.Tensor] = {}  # 1 S each

    def begin(self, past: Dataset, users: npt.NDArray[np.int32]) -> None:
        """All users side by side, one event of each a step; those with the longest past first in the block."""
        network, n = self._artifact.network, self._artifact.items
        first = np.searchsorted(past.user, users)
        length = np.searchsorted(past.user, users, side="right") - first  # B
        order = np.argsort(-length, kind="stable")
        state = torch.zeros(len(users), self._artifact.state_size)  # B S
        with torch.no_grad():
            for step in range(int(length.max(initial=0))):
                active = int((length > step).sum())  # the first `active` of the order have an event here
                token = torch.from_numpy(past.item[first[order[:active]] + step].astype(np.int64))
                state[:active] = network.step(state[:active], token.clamp(max=n), torch.zeros_like(token))
        for place, k in enumerate(order):
            self._states[int(users[k])] = state[place : place + 1].clone()

    def score(self, user: int, time_ms: int) -> F32:  # noqa: ARG002  # the network knows no time
        with torch.no_grad():
            query = self._artifact.network.query(self._of(user))  # 1 D
            scores: F32 = torch.addmv(self._bias, self._matrix, query[0]).numpy()
        return scores

    def learn(self, user: int, item: int, time_ms: int) -> None:  # noqa: ARG002
        token = torch.tensor([item])
        with torch.no_grad():
            self._states[user] = self._artifact.network.step(self._of(user), token, torch.zeros_like(token))

    def _of(self, user: int) -> torch.Tensor:
        state = self._states.get(user)
        return torch.zeros(1, self._artifact.state_size) if state is None else state
