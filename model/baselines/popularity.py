"""The same list for all: what was taken most, ever or of late."""

from __future__ import annotations

import numpy as np

from model.baselines.base import F32, F64, FitSettings, item_rows
from model.evaluation.questions import Questions
from model.training.dataset import Dataset

_DAY_MS = 86_400_000


def decayed_share(train: Dataset, half_life_days: float) -> F64:
    """Each item's share of the events, which halve in half_life_days before the last one. f64[n], sums to 1.

    Raises DatasetError where there is no event.
    """
    rows = item_rows(train)
    age = (train.time_ms[rows] - train.time_ms.max()) / (half_life_days * _DAY_MS)  # events
    counts = np.bincount(train.item[rows], weights=np.exp2(age), minlength=train.items)  # n
    share: F64 = counts / counts.sum()
    return share


class Popularity:
    """How often an item was taken."""

    name = "popularity"
    half_life_days = float("inf")

    def fit(self, train: Dataset, fit: FitSettings) -> None:  # noqa: ARG002  # nothing to seed
        share = decayed_share(train, self.half_life_days)
        # The logarithm keeps apart what is too small for 32 bits, and changes no order.
        self._scores = np.log(np.maximum(share, np.finfo(np.float64).tiny)).astype(np.float32)  # n

    def score(self, questions: Questions) -> F32:
        return np.repeat(self._scores[None], len(questions), axis=0)


class DecayedPopularity(Popularity):
    """How often an item was taken of late: mandatory on data cut by time, where little beats it."""

    name = "decayed-popularity"

    def __init__(self, half_life_days: float = 7.0) -> None:
        self.half_life_days = half_life_days
