"""Ranking metrics, vectorised over lists.

With one item to find per list, all follow from its rank (1 is best; inf: not among the candidates): `ranks`,
then hit_rate, ndcg, mrr. With sets to find, `recall`, `precision` and `f1` compare lists with sets. What lists are like
beside right or wrong (`diversity`, `novelty`, `calibration` ...) is told one value a list.
Nothing to judge gives nan, never a made-up 0.

Ties. Equal scores share the middle of their places, so that a target can have rank 10.5, which is no hit at 10 and
gains 1 / log2(11.5) at 11. Libraries break ties by position in memory; without ties all agree.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]


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


# --- of lists as arrays: one value a list, so that they can be averaged over users and compared in pairs -------------
#
# top: i32[q, K], the lists, best first; n marks places left. Letters: n items, c categories, d width of a vector.


def top_coverage(top: I32, items: int, k: int) -> float:
    """Share of the `items` that occur among the first k of any list."""
    found = np.unique(top[:, :k])
    return float((found < items).sum()) / items if items else math.nan


def diversity(top: I32, category: I64, k: int) -> F64:
    """f64[q]: of the pairs of a list's items, the share whose categories differ (intra-list diversity).

    category: i64[n + 1], a code for each item, -1 for none; items without one are left out. nan for fewer than two.
    """
    codes = category[top[:, :k]]  # q k
    has = codes >= 0
    both = has[:, :, None] & has[:, None, :]
    differ = both & (codes[:, :, None] != codes[:, None, :])
    count = has.sum(axis=1)
    return _divided(differ.sum(axis=(1, 2)), count * (count - 1))


def distance(top: I32, vectors: F32, k: int) -> F64:
    """f64[q]: mean cosine distance of the pairs of a list's items (Ziegler et al. 2005). vectors: f32[n, d].

    Items of a zero vector are left out. nan for fewer than two.
    """
    size = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.concatenate([vectors / np.maximum(size, 1e-30), np.zeros((1, vectors.shape[1]), vectors.dtype)])  # n+1 d
    count = (np.append(size > 0.0, False)[top[:, :k]]).sum(axis=1)
    # The sum over pairs of cosines, by the square of the sum: |sum u|^2 = count + sum of both orders of each pair.
    cosines = np.square(unit[top[:, :k]].sum(axis=1, dtype=np.float64)).sum(axis=1) - count
    return 1.0 - _divided(cosines, count * (count - 1))


def novelty(top: I32, share: F64, k: int) -> F64:
    """f64[q]: mean of -log2 of the popularity of a list's items (Zhou et al. 2010), in bits.

    share: f64[n], above 0, each item's share of the events.
    """
    bits = np.append(-np.log2(share), 0.0)
    filled = top[:, :k] < len(share)
    return _divided(bits[top[:, :k]].sum(axis=1), filled.sum(axis=1))


def popularity(top: I32, share: F64, k: int) -> F64:
    """f64[q]: mean popularity of a list's items. share: f64[n], each item's share of the events."""
    filled = top[:, :k] < len(share)
    return _divided(np.append(share, 0.0)[top[:, :k]].sum(axis=1), filled.sum(axis=1))


def calibration(history: F64, top: I32, category: I64, k: int) -> F64:
    """f64[q]: how far a list's categories are from those of the user's history; 0 is the same (Steck 2018).

    KL(p || q') with q' = 0.99 q + 0.01 p, natural logarithm, p the history's distribution and q the list's, every item
    weighing the same. history: f64[q, c], how often each category was taken; category: i64[n + 1], -1 for none. nan
    where one of the two has no category.
    """
    codes = category[top[:, :k]]  # q k
    lists = np.zeros(history.shape)
    rows, places = np.nonzero(codes >= 0)
    np.add.at(lists, (rows, codes[rows, places]), 1.0)
    p = _divided(history, history.sum(axis=1, keepdims=True))
    q = _divided(lists, lists.sum(axis=1, keepdims=True))
    mixed = 0.99 * q + 0.01 * p
    terms = np.where(p > 0.0, p * np.log(np.where(p > 0.0, p / np.where(p > 0.0, mixed, 1.0), 1.0)), 0.0)
    found: F64 = np.where(np.isnan(p + q).any(axis=1), np.nan, terms.sum(axis=1))
    return found


def _divided(above: npt.NDArray[Any], below: npt.NDArray[Any]) -> F64:
    """The quotient, nan where nothing is divided."""
    nothing: F64 = np.full(np.broadcast_shapes(above.shape, below.shape), np.nan)
    np.divide(above, below, out=nothing, where=below > 0)
    return nothing
