"""How much each part of the hybrid gave to an item's score, for the items of a list only."""

from collections.abc import Sequence
from itertools import product
from math import factorial

import numpy as np
import numpy.typing as npt
import torch

from model.ranking.lists import PARTS

F32 = npt.NDArray[np.float32]


def shown_parts(parts: F32, digits: int = 2) -> list[list[float]]:
    """Rows of parts as they go out, from [any, number of parts]. Never -0.0."""
    rounded: list[list[float]] = (parts.astype(np.float64).round(digits) + 0.0).tolist()
    return rounded


class ShapleyParts:
    """Parts of the score that a small network f computes from a candidate's features.

    The Shapley value of each part (Shapley 1953), with all features of an absent part 0: as likely as chance for the
    network, as popular as the average, no rule, nothing done with it.

        part p = sum over the sets S of other parts of |S|! (P - 1 - |S|)! / P! * (f(S and p) - f(S))

    Whatever the network, the parts of an item add up to f(all) - f(none); f(none) is one number for all items and
    users. One call of f a user, always of the same shape: parts do not depend on who else is in the block.
    """

    def __init__(self, part_of_feature: Sequence[str], blend: Sequence[F32], size: int) -> None:
        """part_of_feature: a name of PARTS for each feature; blend: LearntBlend.ARRAYS; `size`: L, items a list."""
        sets = np.array(list(product((0, 1), repeat=len(PARTS))), np.int64)  # M P: all sets of parts, M = 2 ** P
        own = [PARTS.index(name) for name in part_of_feature]
        self._mask: F32 = sets[:, own].T[:, :, None].astype(np.float32)  # F M 1
        orders = np.array([factorial(k) * factorial(len(PARTS) - 1 - k) for k in range(len(PARTS))])
        others = sets.sum(axis=1)[:, None] - sets  # M P: parts in the set beside p
        self._weights: F32 = (orders[others] * (2 * sets - 1) / factorial(len(PARTS))).astype(np.float32)  # M P
        w1, b1, w2, b2, w3 = blend
        self._w1, self._b1 = torch.from_numpy(w1), torch.from_numpy(b1[:, None])  # H F, H 1
        self._w2, self._b2 = torch.from_numpy(w2), torch.from_numpy(b2[:, None])  # H2 H, H2 1
        self._w3 = torch.from_numpy(w3)  # 1 H2
        columns = len(sets) * size
        self._masked: F32 = np.zeros((len(own), len(sets), size), np.float32)  # F M L
        self._inputs = torch.from_numpy(self._masked).view(len(own), columns)  # F M*L
        self._hidden, self._hidden2 = torch.empty(len(b1), columns), torch.empty(len(b2), columns)
        self._out = torch.empty(1, columns)

    def of(self, features: F32) -> F32:
        """Parts f32[B, L, P] from the features f32[B, F, L] of the lists' items."""
        found = np.empty((len(features), features.shape[2], len(PARTS)), np.float32)  # B L P
        scores = self._out.numpy().reshape(self._masked.shape[1:])  # M L
        with torch.inference_mode():
            for row, own in enumerate(features):
                np.multiply(own[:, None, :], self._mask, out=self._masked)
                torch.addmm(self._b1, self._w1, self._inputs, out=self._hidden).relu_()  # H M*L
                torch.addmm(self._b2, self._w2, self._hidden, out=self._hidden2).relu_()  # H2 M*L
                torch.mm(self._w3, self._hidden2, out=self._out)  # 1 M*L
                np.matmul(scores.T, self._weights, out=found[row])  # L P
        return found
