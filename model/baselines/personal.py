"""What this user took most, of late, and popularity where that says nothing. The best simple list in a shop."""

from __future__ import annotations

import numpy as np

from model.baselines.base import F32, FitSettings
from model.baselines.popularity import decayed_share
from model.evaluation.questions import Questions
from model.training.dataset import Dataset

_DAY_MS = 86_400_000


class PersonalCounts:
    """Decayed counts of the user's own events, plus the items' decayed share of all events."""

    name = "personal"

    def __init__(
        self,
        half_life_days: float = 60.0,
        popularity_half_life_days: float = 7.0,
        popularity_weight: float = 1.0,
    ) -> None:
        """popularity_weight: how many times taken the share 1 of all events is worth."""
        self._half_life_ms = half_life_days * _DAY_MS
        self._popularity_half_life_days = popularity_half_life_days
        self._weight = popularity_weight

    def fit(self, train: Dataset, fit: FitSettings) -> None:  # noqa: ARG002  # nothing to seed
        self._popularity = decayed_share(train, self._popularity_half_life_days) * self._weight  # n

    def score(self, questions: Questions) -> F32:
        n, data = questions.items, questions.data
        scores = np.empty((len(questions), n), np.float32)
        asked = zip(questions.begin, questions.row, questions.time_ms, strict=True)
        for k, (begin, row, time_ms) in enumerate(asked):
            amount = np.exp2((data.time_ms[begin:row] - time_ms) / self._half_life_ms)
            counts = np.bincount(data.item[begin:row], weights=amount, minlength=n + 1)[:n]  # n: a session's start
            scores[k] = counts + self._popularity
        return scores
