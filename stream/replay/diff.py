"""What differs between the last lists of two sides: of two replays, or of a replay and live.

    Side a ─┐             ┌─ users: in both, in one only; who changed most
    Side b ─┴─ diff(a, b) ┼─ lists: share changed (order, set), overlap@k, Kendall's tau, rank-biased overlap
                          └─ what is shown: shifts of exposure, by item, category, reason, interest, strategy

A shift is told with its interval and p, so that what one side shows more is named, and chance is not. Of the users in
both sides only; all in blocks of users. Letters in shapes: U users of a block, K places.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from stream.errors import ReplayError
from stream.replay.lists import NONE, Side, Table, Words

F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

K = (5, 10, 20)
PERSISTENCE = 0.9
"""p of rank-biased overlap: the first ten places carry 86 % of its weight (Webber, Moffat, Zobel 2010)."""
NO_NAME = "(none)"
"""Stands for what has no category, no reason or no interest."""
CHANCE = 0.05
"""A shift is named raised or lowered where its corrected p is below this."""
BINS = 20

_USERS_AT_ONCE = 4096
_Z = 1.959964  # of a normal distribution 95 % lie within so many standard deviations
_EXAMPLES = 10


class Mean(msgspec.Struct, frozen=True):
    """A mean over users, with its 95 % interval (normal approximation); None where no user has a value."""

    mean: float | None
    low: float | None
    high: float | None


class Shift(msgspec.Struct, frozen=True):
    """How much more of the places one side gives to something.

    A place weighs 1 / log2(1 + rank), as in DCG (exposure of Singh, Joachims 2018), and each user's list 1 in all.
    """

    name: str
    a: float
    """Mean share of a list in a,"""
    b: float
    """in b,"""
    difference: float
    """b - a, with"""
    low: float
    high: float
    """its 95 % interval over users: normal approximation of the mean of the users' paired differences."""
    p: float
    """That chance alone makes as large a difference (two-sided, of the same approximation, and at least that of U
    users all changing one way by chance), times the number of names compared (Bonferroni), at most 1."""
    verdict: str
    """raised or lowered where p is below CHANCE, else empty."""


class ChangedUser(msgspec.Struct, frozen=True):
    """A user whose list changed, and how."""

    user: str
    rank_biased_overlap: float
    overlap: float
    gone: list[str]
    """The best items that only a has,"""
    new: list[str]
    """and that only b has."""


class Diff(msgspec.Struct, frozen=True):
    """All that differs. Shares and means are of the users that both sides have lists of."""

    a: str
    b: str
    places: int
    users_a: int
    users_b: int
    users_both: int
    only_a: list[str]
    """Examples of users who have a list in a only,"""
    only_b: list[str]
    """and in b only."""
    changed: float | None
    """Share of lists that differ in any way, order or items,"""
    changed_set: float | None
    """that differ in their items,"""
    changed_strategy: float | None
    """that were made in another way (hybrid, popular),"""
    changed_interest: float | None
    """whose strongest interest is another."""
    overlap: dict[str, Mean]
    """By k: items that the first k places of both hold, of the longer one's."""
    kendall: Mean
    """Kendall's tau of the order of the items in both, -1 to 1."""
    rank_biased_overlap: Mean
    """0 to 1; see rank_biased_overlap()."""
    overlap_bins: list[int]
    """How many users have an overlap at the largest k within each 20th of 0 to 1."""
    users: list[ChangedUser]
    """Who changed most, the most changed first."""
    items: list[Shift]
    """What is shown more or less: those of the largest difference, the largest first;"""
    categories: list[Shift]
    reasons: list[Shift]
    interests: list[Shift]
    strategies: list[Shift]


def diff(
    a: Side,
    b: Side,
    *,
    categories: Mapping[str, str] | None = None,
    k: Sequence[int] = K,
    largest: int = 20,
    progress: Callable[[float], None] = lambda _: None,
) -> Diff:
    """Compare two sides that share their words and number of places.

    categories: of items, by item id; absent or '' for none. k: for overlap; those beyond the number of places are left
    out. largest: how many users and shifts to tell of each kind. progress: told the share done.

    Raises:
        ReplayError: the sides do not share their words, or neither has a list.
    """
    words, places = a.words, a.places
    if b.words is not words or b.places != places:
        raise ReplayError("two sides to compare must be read with the same vocabulary and number of places.")
    table_a, table_b = a.table(), b.table()
    has_a, has_b = table_a.strategy != NONE, table_b.strategy != NONE
    if not has_a.any() and not has_b.any():
        raise ReplayError(f"neither {a.name} nor {b.name} has a list: nothing to compare.")
    both = np.flatnonzero(has_a & has_b)
    names = Words()
    names.number(NO_NAME)
    known = {} if categories is None else categories
    of_item = np.array([names.number(known.get(item) or NO_NAME) for item in words.items.texts] or [0], np.int32)

    depths = sorted({min(depth, places) for depth in k})
    falling = 1.0 / np.log2(np.arange(2, places + 2))
    level = np.ones(table_a.interests.shape[1])
    items = _Shifts(words.items.texts, falling)
    in_category = _Shifts(names.texts, falling)
    reasons = _Shifts(words.reasons.texts, falling)
    interests = _Shifts(words.interests.texts, level)
    strategies = _Shifts(words.strategies.texts, np.ones(1))
    overlaps = np.empty((len(both), len(depths)))
    taus, biased = np.empty(len(both)), np.empty(len(both))
    moved = np.zeros((len(both), 4), np.bool_)  # in any way, items, strategy, strongest interest
    for start in range(0, len(both), _USERS_AT_ONCE):
        block = both[start : start + _USERS_AT_ONCE]
        part = slice(start, start + len(block))
        one, two = _rows(table_a, block), _rows(table_b, block)
        same = (one.items[:, :, None] == two.items[:, None, :]) & (one.items >= 0)[:, :, None]  # U K K
        size = np.maximum((one.items >= 0).sum(axis=1), (two.items >= 0).sum(axis=1))
        for column, depth in enumerate(depths):
            overlaps[part, column] = _overlap(same, size, depth)
        taus[part] = kendall(same)
        biased[part] = rank_biased_overlap(same, (one.items >= 0).sum(axis=1), (two.items >= 0).sum(axis=1))
        moved[part, 0] = (one.items != two.items).any(axis=1)
        moved[part, 1] = same.sum(axis=(1, 2)) < size
        moved[part, 2] = one.strategy != two.strategy
        moved[part, 3] = one.interests[:, 0] != two.interests[:, 0]
        items.add(one.items, two.items)
        in_category.add(_coded(of_item, one.items), _coded(of_item, two.items))
        reasons.add(one.reasons, two.reasons)
        interests.add(one.interests, two.interests)
        strategies.add(one.strategy[:, None], two.strategy[:, None])
        progress((start + len(block)) / len(both))

    shares = moved.mean(axis=0).tolist() if len(both) else [None] * 4
    full = overlaps[:, -1]
    return Diff(
        a=a.name,
        b=b.name,
        places=places,
        users_a=int(has_a.sum()),
        users_b=int(has_b.sum()),
        users_both=len(both),
        only_a=_examples(words.users, has_a & ~has_b),
        only_b=_examples(words.users, has_b & ~has_a),
        changed=shares[0],
        changed_set=shares[1],
        changed_strategy=shares[2],
        changed_interest=shares[3],
        overlap={str(depth): _mean(overlaps[:, column]) for column, depth in enumerate(depths)},
        kendall=_mean(taus),
        rank_biased_overlap=_mean(biased),
        overlap_bins=np.histogram(full[~np.isnan(full)], BINS, (0.0, 1.0))[0].tolist(),
        users=_changed_users(a, both, table_a, table_b, biased, full, largest),
        items=items.largest(largest),
        categories=in_category.largest(largest) if known else [],
        reasons=reasons.largest(largest),
        interests=interests.largest(largest),
        strategies=strategies.largest(largest),
    )


# --- two lists of one user
#
# same: bool[U, K, K], whether place i of a and place j of b hold the same item; each item stands once on a list.


def _overlap(same: npt.NDArray[np.bool_], size: I64, depth: int) -> F64:
    """f64[U]: common items of the first `depth` places, of as many as the longer list has there; nan for none."""
    count = same[:, :depth, :depth].sum(axis=(1, 2))
    there = np.minimum(size, depth)
    return _divided(count, there)


def kendall(same: npt.NDArray[np.bool_]) -> F64:
    """f64[U]: Kendall's tau of the common items: pairs in the same order less those in the other, of all pairs
    (Kendall 1938). nan for fewer than two common items."""
    common = np.asarray(same.any(axis=2))  # U K
    place = same.argmax(axis=2)  # U K: where b has it
    pair = common[:, :, None] & common[:, None, :] & np.triu(np.ones(same.shape[1:], np.bool_), 1)
    order = np.sign(place[:, None, :] - place[:, :, None])
    return _divided((order * pair).sum(axis=(1, 2)), pair.sum(axis=(1, 2)))


def rank_biased_overlap(same: npt.NDArray[np.bool_], size_a: I64, size_b: I64, persistence: float = PERSISTENCE) -> F64:
    """f64[U]: extrapolated rank-biased overlap of lists of s and l >= s items, RBO_EXT.

    (1 - p) / p * (sum over d = 1..l of X_d / d p^d + sum over d = s+1..l of X_s (d - s) / (s d) p^d)
    + ((X_l - X_s) / l + X_s / s) p^l,  X_d the common items of the first d places: equation 32 of Webber, Moffat,
    Zobel, "A similarity measure for indefinite rankings", ACM TOIS 28(4), 2010. 1 for equal lists, 0 for nothing in
    common; nan where both are empty. size_a, size_b: i64[U].
    """
    users, places = same.shape[:2]
    depth = np.arange(1, places + 1)
    # The common items of the first d places: those whose later place of the two is d at most.
    later = np.maximum(depth[:, None], depth[None, :]).reshape(-1)
    common = np.zeros((users, places))
    row, pair = np.nonzero(same.reshape(users, -1))
    np.add.at(common, (row, later[pair] - 1), 1.0)
    common = common.cumsum(axis=1)  # X_d
    short, long = np.minimum(size_a, size_b), np.maximum(size_a, size_b)
    row = np.arange(users)
    x_short, x_long = common[row, np.maximum(short, 1) - 1], common[row, np.maximum(long, 1) - 1]
    x_short = np.where(short > 0, x_short, 0.0)
    s, powers = np.maximum(short, 1)[:, None], persistence**depth
    terms = common / depth * powers
    terms += np.where(depth > short[:, None], x_short[:, None] * (depth - s) / (s * depth) * powers, 0.0)
    terms = np.where(depth <= long[:, None], terms, 0.0)
    rest = ((x_long - x_short) / np.maximum(long, 1) + x_short / s[:, 0]) * persistence**long
    found: F64 = (1.0 - persistence) / persistence * terms.sum(axis=1) + rest
    return np.where(long > 0, found, np.nan)


# --- shifts


class _Shifts:
    """Sums over users of how a side's places are shared out among names.

    names: by code; a code of NONE counts as NO_NAME. weights: f64[K], of the places.
    """

    def __init__(self, names: Sequence[str], weights: F64) -> None:
        self._names = list(names) if NO_NAME in names else [*names, NO_NAME]
        self._none = self._names.index(NO_NAME)
        self._weights = weights
        self._sums = np.zeros((2, len(self._names)))
        self._squares = np.zeros(len(self._names))
        self._users = 0

    def add(self, a: I32, b: I32) -> None:
        """Codes of the places of the same users in both sides: i32[U, K]."""
        size, users = len(self._names), len(a)
        self._users += users
        cells, shares = [], []
        for side, codes in enumerate((a, b)):
            there = codes != NONE
            there[~there.any(axis=1), 0] = True  # a user with nothing at all: NO_NAME
            weight = np.where(there, self._weights, 0.0)
            share = (weight / weight.sum(axis=1, keepdims=True))[there]
            row, place = np.nonzero(there)
            code = codes[row, place].astype(np.int64)
            code[code == NONE] = self._none
            self._sums[side] += np.bincount(code, share, size)
            cells.append(row * size + code)
            shares.append(share if side else -share)
        # A user's difference for each name that the user has on either side; for all others it is 0.
        cell, which = np.unique(np.concatenate(cells), return_inverse=True)
        difference = np.bincount(which, np.concatenate(shares))
        self._squares += np.bincount(cell % size, difference**2, size)

    def largest(self, count: int) -> list[Shift]:
        """The names of the largest differences, the largest first; those without a difference are left out."""
        users = self._users
        used = np.flatnonzero(self._sums.any(axis=0))
        if users < 2:
            return []
        a, b = self._sums[:, used] / users
        difference = b - a
        variance = np.maximum(self._squares[used] / users - difference**2, 0.0) * users / (users - 1)
        error = np.sqrt(variance / users)
        order = np.lexsort((used, -np.abs(difference)))[:count]
        found = []
        for at in order.tolist():
            value, spread = float(difference[at]), float(error[at])
            if abs(value) < 1e-12:  # sums in another order differ in their last bits
                break
            # Of few users chance alone has all differences on one side so often, whatever their spread.
            fewest = 2.0 ** (1 - users)
            chance = max(math.erfc(abs(value) / max(spread, 1e-12) / math.sqrt(2.0)), fewest)
            p = min(1.0, chance * len(used))
            found.append(
                Shift(
                    name=self._names[used[at]],
                    a=float(a[at]),
                    b=float(b[at]),
                    difference=value,
                    low=value - _Z * spread,
                    high=value + _Z * spread,
                    p=p,
                    verdict="" if p >= CHANCE else "raised" if value > 0 else "lowered",
                )
            )
        return found


def _coded(codes: I32, items: I32) -> I32:
    """Codes of items, NONE where there is no item."""
    found: I32 = np.where(items == NONE, NONE, codes[items])
    return found


# --- small things


def _rows(table: Table, users: I64) -> Table:
    return Table(table.strategy[users], table.items[users], table.reasons[users], table.interests[users])


def _divided(above: I64, below: I64) -> F64:
    """The quotient, nan where nothing is divided."""
    found: F64 = np.full(len(above), np.nan)
    np.divide(above, below, out=found, where=below > 0)
    return found


def _mean(values: F64) -> Mean:
    there = values[~np.isnan(values)]
    if not len(there):
        return Mean(None, None, None)
    mean = float(there.mean())
    spread = _Z * float(there.std(ddof=1)) / math.sqrt(len(there)) if len(there) > 1 else 0.0
    return Mean(mean, mean - spread, mean + spread)


def _examples(users: Words, wanted: npt.NDArray[np.bool_]) -> list[str]:
    return [users.texts[user] for user in np.flatnonzero(wanted)[:_EXAMPLES].tolist()]


def _changed_users(
    side: Side, both: I64, a: Table, b: Table, biased: F64, overlap: F64, count: int
) -> list[ChangedUser]:
    """The users of the least rank-biased overlap."""
    texts = side.words.items.texts
    found = []
    for at in np.argsort(biased, kind="stable")[:count].tolist():
        if math.isnan(biased[at]) or biased[at] > 1.0 - 1e-9:
            break
        user = int(both[at])
        one, two = (table.items[user][table.items[user] != NONE].tolist() for table in (a, b))
        found.append(
            ChangedUser(
                user=side.words.users.texts[user],
                rank_biased_overlap=float(biased[at]),
                overlap=float(overlap[at]),
                gone=[texts[item] for item in one if item not in two][:5],
                new=[texts[item] for item in two if item not in one][:5],
            )
        )
    return found
