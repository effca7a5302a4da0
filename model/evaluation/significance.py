"""How sure a metric is, and whether one model is better than another.

Users are drawn, not questions: the questions of one user are alike, and a thousand of one user say less than one of
each of a thousand. A metric is the mean over questions, sum(values) / number of questions, of the users drawn.

Letters in shapes: q questions, U users, M metrics, R draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]

_DRAWS_AT_ONCE = 128
"""Of U numbers each: at 100,000 users they take 100 MB."""


@dataclass(frozen=True)
class Interval:
    """A bootstrap interval."""

    low: float
    high: float


def intervals(values: F64, user: I32, *, level: float = 0.95, draws: int = 1000, seed: int = 0) -> list[Interval]:
    """Percentile bootstrap intervals (Efron 1979) of the means of M metrics, over users.

    values: f64[q, M], nan where a question has no value of that metric; user: i32[q]. With no value at all the
    interval is nan.
    """
    sums, counts = _by_user(values, user)  # U M
    draw = np.random.default_rng(seed)
    means = np.empty((draws, values.shape[1]))
    users = len(sums)
    if not users:
        return [Interval(np.nan, np.nan)] * values.shape[1]
    for start in range(0, draws, _DRAWS_AT_ONCE):
        size = min(_DRAWS_AT_ONCE, draws - start)
        # How often each user is drawn: a draw of U users with replacement, without holding their numbers.
        often = draw.multinomial(users, np.full(users, 1.0 / users), size).astype(np.float64)  # size U
        counted = often @ counts
        means[start : start + size] = np.divide(
            often @ sums, counted, out=np.full_like(counted, np.nan), where=counted > 0
        )
    found = []
    for column in means.T:
        drawn = column[~np.isnan(column)]
        low, high = np.quantile(drawn, [(1.0 - level) / 2.0, (1.0 + level) / 2.0]) if len(drawn) else (np.nan, np.nan)
        found.append(Interval(float(low), float(high)))
    return found


def paired_p(ours: F64, theirs: F64, user: I32, *, draws: int = 9999, seed: int = 0) -> F64:
    """Two-sided p-values f64[M] of the differences of M metrics between two models that were asked the same.

    A permutation test over users (Fisher 1935): if the models were equal, each user's answers could be swapped. p is
    (1 + draws with at least this difference) / (1 + draws).  ours, theirs: f64[q, M]; a question that lacks a value of
    either is left out. nan where nothing is left.
    """
    differences, counts = _by_user(ours - theirs, user)  # U M
    seen = np.abs(differences.sum(axis=0))  # M
    draw = np.random.default_rng(seed)
    as_large = np.zeros(ours.shape[1])
    for start in range(0, draws, _DRAWS_AT_ONCE):
        signs = draw.integers(0, 2, (min(_DRAWS_AT_ONCE, draws - start), len(differences)), np.int8) * 2.0 - 1.0
        # Sums in another order differ in their last bits: what is equal but for these counts as equal.
        as_large += (np.abs(signs @ differences) >= seen * (1.0 - 1e-9)).sum(axis=0)
    return np.where(counts.sum(axis=0) > 0, (1.0 + as_large) / (1.0 + draws), np.nan)


def _by_user(values: F64, user: I32) -> tuple[F64, F64]:
    """Sums of the values and their number, for each user that has a question: f64[U, M] both."""
    _, which = np.unique(user, return_inverse=True)
    users = int(which.max(initial=-1)) + 1
    there = ~np.isnan(values)
    columns = range(values.shape[1])
    filled = np.where(there, values, 0.0)
    sums = [np.bincount(which, weights=filled[:, m], minlength=users) for m in columns]
    counts = [np.bincount(which, weights=there[:, m], minlength=users) for m in columns]
    return np.stack(sums, axis=1), np.stack(counts, axis=1)
