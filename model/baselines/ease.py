"""EASE^R: the best linear map from what a user took to what they took, in closed form (Steck 2019)."""

from __future__ import annotations

import numpy as np
import torch

from model.baselines.base import F32, FitSettings
from model.baselines.related import shared_users
from model.errors import DatasetError
from model.evaluation.questions import Questions
from model.training.dataset import Dataset

LARGEST_ITEMS = 20_000
"""Three matrices of n x n floats are held at once: 4.8 GB at 20,000, and the inverse takes minutes."""


class EASE:
    """score = x B, with B = I - P diag(1 / P), P = (X^T X + l2 I)^-1 (Steck 2019, equation 8); order does not count."""

    name = "ease"

    def __init__(self, l2: float = 500.0) -> None:
        """l2: what the diagonal is held down by; 500 is the paper's on MovieLens-20M."""
        self._l2 = l2

    def fit(self, train: Dataset, fit: FitSettings) -> None:
        n = train.items
        if n > LARGEST_ITEMS:
            raise DatasetError(
                f"{train.source}: EASE inverts a matrix of items by items, and {n:,} items are more than the "
                f"{LARGEST_ITEMS:,} it can; leave it out, or drop rare items."
            )
        torch.set_num_threads(fit.threads)
        gram = torch.empty(n, n)  # n n
        for x, shared in enumerate(shared_users(train)):
            gram[x] = torch.from_numpy(shared)
        gram.diagonal().add_(self._l2)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))  # n n
        weight = inverse.div_(-inverse.diagonal().clone())  # n n
        weight.fill_diagonal_(0.0)
        self._weight: F32 = weight.numpy()

    def score(self, questions: Questions) -> F32:
        taken = np.zeros((len(questions), questions.items), np.float32)  # q n
        for k in range(len(questions)):
            taken[k, questions.seen(k)] = 1.0
        scores: F32 = taken @ self._weight  # q n
        return scores
