"""Ranking metrics, vectorised over lists.

With one item to find per list, all follow from its rank (1 is best; inf: not among the candidates): `ranks`,
then hit_rate, ndcg, mrr. With sets to find, `recall`, `precision` and `f1` compare lists with sets.
Nothing to judge gives nan, never a made-up 0.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]


def ranks(scores: npt.NDArray[Any], target: npt.NDArray[Any]) -> F64:
    """Rank of each row's target by falling score; equals share the middle of their places. -inf: no candidate.

    scores: float[q, n]; target: int[q]; result: f64[q].  Taking the middle of a tie is what a random order gives
    on average; taking its best place would reward a model that scores all items alike.
    """
    own = np.take_along_axis(scores, target[:, None].astype(np.int64), axis=1)  # q 1
    better = (scores > own).sum(axis=1)
    equal = (scores == own).sum(axis=1) - 1
    rank = 1.0 + better + equal / 2.0
    return np.where(np.isneginf(own[:, 0]), np.inf, rank)


def hit_rate(rank: F64, k: int) -> float:
    """Share of lists with the target among the first k. rank: f64[q]."""
    return float((rank <= k).mean()) if len(rank) else math.nan


def ndcg(rank: F64, k: int) -> float:
    """Mean of 1 / log2(1 + rank), 0 beyond k: NDCG with one relevant item (Jarvelin, Kekalainen 2002)."""
    return float(np.where(rank <= k, 1.0 / np.log2(1.0 + rank), 0.0).mean()) if len(rank) else math.nan


def mrr(rank: F64, k: int) -> float:
    """Mean of 1 / rank, 0 beyond k."""
    return float(np.where(rank <= k, 1.0 / rank, 0.0).mean()) if len(rank) else math.nan


def _hits(lists: Sequence[Sequence[Any]], wanted: Sequence[Collection[Any]], k: int) -> list[int]:
    return [len(set(items[:k]) & set(want)) for items, want in zip(lists, wanted, strict=True)]


def recall(lists: Sequence[Sequence[Any]], wanted: Sequence[Collection[Any]], k: int) -> float:
    """Mean share of the wanted items that the first k hold; lists that want nothing are left out."""
    hits = _hits(lists, wanted, k)
    shares = [hit / len(set(want)) for hit, want in zip(hits, wanted, strict=True) if want]
    return float(np.mean(shares)) if shares else math.nan


def precision(lists: Sequence[Sequence[Any]], wanted: Sequence[Collection[Any]], k: int) -> float:
    """Mean share of k places that hold a wanted item; a list shorter than k does not gain by it."""
    hits = _hits(lists, wanted, k)
    shares = [hit / k for hit, want in zip(hits, wanted, strict=True) if want]
    return float(np.mean(shares)) if shares else math.nan


def f1(lists: Sequence[Sequence[Any]], wanted: Sequence[Collection[Any]], k: int) -> float:
    """Mean over lists of the harmonic mean of precision and recall at k."""
    hits = _hits(lists, wanted, k)
    shares = [2.0 * hit / (k + len(set(want))) for hit, want in zip(hits, wanted, strict=True) if want]
    return float(np.mean(shares)) if shares else math.nan


def coverage(lists: Sequence[Sequence[Any]], items: int, k: int) -> float:
    """Share of the catalogue's `items` that occurs among the first k of any list."""
    return len({item for list_ in lists for item in list_[:k]}) / items if items else math.nan
