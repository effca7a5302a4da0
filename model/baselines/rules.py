"""The sequence rules alone: what came soon after the user's last items."""

from __future__ import annotations

from model.baselines.base import F32, FitSettings, item_rows
from model.baselines.related import fire
from model.evaluation.questions import Questions
from model.training.dataset import Dataset
from model.transitions import SEQUENCE_WINDOW, sequence_rules


class Rules:
    """Rules of model.transitions, fired by the last items, each back by `decay` less."""

    name = "rules"

    def __init__(self, rows: int = 100, decay: float = 0.7) -> None:
        """rows: rules kept per item; the model notes' figures are with 100, the hybrid keeps 50."""
        self._rows = rows
        self._decay = decay

    def fit(self, train: Dataset, fit: FitSettings) -> None:  # noqa: ARG002  # nothing to seed
        rows = item_rows(train)
        self._to, self._rule = sequence_rules(train.items, train.user[rows], train.item[rows]).top(self._rows)  # n R

    def score(self, questions: Questions) -> F32:
        return fire(questions.histories(SEQUENCE_WINDOW).item, self._to, self._rule, self._decay)
