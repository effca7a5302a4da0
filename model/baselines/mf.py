"""Matrix factorisation by the library `implicit` (MIT; extra `driftline[baselines]`): ALS and BPR."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np

from model.baselines.base import F32, FitSettings
from model.baselines.related import user_item_pairs
from model.errors import ModelError
from model.evaluation.questions import Questions
from model.training.dataset import Dataset


def _user_item_matrix(train: Dataset) -> Any:
    """scipy's f32[N, n] of ones.  Raises ModelError where the library is not installed."""
    if find_spec("implicit") is None:
        raise ModelError(
            "Matrix factorisation needs the library implicit; install the extra: pip install 'driftline[baselines]'."
        )
    from scipy.sparse import csr_matrix  # comes with implicit

    user, item = user_item_pairs(train)
    shape = (len(train.user_ids), train.items)
    return csr_matrix((np.ones(len(user), np.float32), (user, item)), shape=shape)


class ALS:
    """Alternating least squares on implicit feedback (Hu, Koren, Volinsky 2008): taken is 1 with more confidence.

    A user is solved for anew from the history of each question, so that what came after training counts.
    """

    name = "als"

    def __init__(self, factors: int = 64, iterations: int = 15, l2: float = 0.01, confidence: float = 1.0) -> None:
        """confidence: an item taken counts 1 + confidence, one not taken 1."""
        self._factors = factors
        self._iterations = iterations
        self._l2 = l2
        self._confidence = confidence

    def fit(self, train: Dataset, fit: FitSettings) -> None:
        took = _user_item_matrix(train)  # N n
        from implicit.cpu.als import AlternatingLeastSquares
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1, "blas"):  # the library's own threads take users side by side
            library = AlternatingLeastSquares(
                factors=self._factors,
                iterations=self._iterations,
                regularization=self._l2,
                alpha=1.0 + self._confidence,
                num_threads=fit.threads,
                random_state=fit.seed,
            )
            library.fit(took, show_progress=False)
        self._items: F32 = np.asarray(library.item_factors)  # n d
        self._gram = self._items.T @ self._items + self._l2 * np.eye(self._factors, dtype=np.float32)  # d d

    def score(self, questions: Questions) -> F32:
        users = np.empty((len(questions), self._factors), np.float32)  # q d
        for k in range(len(questions)):
            taken = self._items[questions.seen(k)]  # s d
            # (Y^T Y + Y^T (C - I) Y + l2 I) u = Y^T C p, with c = 1 + confidence where p = 1 (equation 4).
            left = self._gram + self._confidence * (taken.T @ taken)  # d d
            users[k] = np.linalg.solve(left, (1.0 + self._confidence) * taken.sum(axis=0))  # d
        scores: F32 = users @ self._items.T  # q n
        return scores


class BPR:
    """Bayesian personalised ranking (Rendle et al. 2009): taken above not taken, by gradient.

    A user knows what training knew of them; one who is new gets the mean of all users.
    """

    name = "bpr"

    def __init__(self, factors: int = 64, iterations: int = 100, learning_rate: float = 0.01, l2: float = 0.01) -> None:
        self._factors = factors
        self._iterations = iterations
        self._learning_rate = learning_rate
        self._l2 = l2

    def fit(self, train: Dataset, fit: FitSettings) -> None:
        took = _user_item_matrix(train)  # N n
        from implicit.cpu.bpr import BayesianPersonalizedRanking

        library = BayesianPersonalizedRanking(
            factors=self._factors,
            iterations=self._iterations,
            learning_rate=self._learning_rate,
            regularization=self._l2,
            num_threads=1,  # several write over each other, and no two runs are alike
            random_state=fit.seed,
        )
        library.fit(took, show_progress=False)
        self._items: F32 = np.asarray(library.item_factors)  # n d+1: the last is the item's bias
        self._users: F32 = np.array(library.user_factors)  # N d+1: the last is 1
        known = np.diff(took.indptr) > 0  # N
        self._users[~known] = self._users[known].mean(axis=0)

    def score(self, questions: Questions) -> F32:
        scores: F32 = self._users[questions.user] @ self._items.T  # q n
        return scores
