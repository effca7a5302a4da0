"""Rules "who took x takes y", counted and not learnt: cheap, exact, and strong where data is thin.

Two kinds are counted over the same events:

- **sequence rules**: y came within the next ten items after x; each time counts 1/gap, so neighbours count most;
- **basket rules**: x and y were in one session, in any order; each time counts 1.

A count is turned into a weight count(x -> y) / (pop_x^.5 * pop_y^.35): dividing by pop_y only in part keeps
popular items somewhat ahead, which a list of any length needs (the exponents: MODEL notes, tuned on MovieLens-1M).
Counting is additive, so new events can be added at any time; only `top` looks at the whole.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

SEQUENCE_WINDOW = 10
"""Items before y that count as its cause; at 1/gap an eleventh would add less than a tenth of the first."""
BASKET_WINDOW = 60
"""Largest distance of two items of a session: bounds the work on a bot's session of thousands of items."""
_MERGE_PAIRS = 4_000_000
"""Pairs held back before they are merged: 64 MB."""
ROWS_KEPT = 50
"""Rules kept per item: a list of 20 draws on the last ten items, and the tail of a row says little."""
FROM_EXPONENT = 0.5
TO_EXPONENT = 0.35


class Transitions:
    """Counts of ordered pairs of items, and how often each item occurred."""

    def __init__(self, items: int, most_pairs: int = 0) -> None:
        """most_pairs: pairs kept when counts are merged, 0 for all.

        Where there are more, those with the smallest counts go, which are mostly pairs that met by chance, and all of
        the rarest items (as in lossy counting; Manku, Motwani 2002).
        """
        self.items = items
        self.most_pairs = most_pairs
        self.occurrences: F64 = np.zeros(items)  # n
        self._keys: I64 = np.empty(0, np.int64)  # x * n + y, ascending
        self._counts: F64 = np.empty(0)
        self._added: list[tuple[I64, F64]] = []  # keys and amounts not merged yet
        self._waiting = 0

    def occur(self, item: I32) -> None:
        """Count occurrences. item: i32[k]."""
        self.occurrences += np.bincount(item, minlength=self.items)

    def add(self, before: I32, after: I32, amount: F64 | float) -> None:
        """Add `amount` to the count of each pair; pairs may repeat, an item never leads to itself.

        before, after: i32[k]; amount: f64[k], or one number for all.
        """
        apart = before != after
        keys = before[apart].astype(np.int64) * self.items + after[apart]
        amounts = np.broadcast_to(np.asarray(amount, np.float64), before.shape)[apart]
        self._added.append((keys, amounts))
        self._waiting += len(keys)
        if self._waiting > _MERGE_PAIRS:
            self._merge()

    def _merge(self) -> None:
        """Bring what was added into the sorted counts: a sort of all, so not for every few pairs."""
        if not self._added:
            return
        added_keys, added_amounts = zip(*self._added, strict=True)
        keys, inverse = np.unique(np.concatenate([self._keys, *added_keys]), return_inverse=True)
        amounts = np.concatenate([self._counts, *added_amounts])
        self._keys = keys
        self._counts = np.bincount(inverse, weights=amounts, minlength=len(keys)).astype(np.float64)
        self._added, self._waiting = [], 0
        if 0 < self.most_pairs < len(keys):
            least = np.partition(self._counts, -self.most_pairs)[-self.most_pairs]
            kept = self._counts > least
            spare = np.flatnonzero(self._counts == least)[: self.most_pairs - int(kept.sum())]
            kept[spare] = True
            self._keys, self._counts = keys[kept], self._counts[kept]

    def __len__(self) -> int:
        """Pairs with a count."""
        self._merge()
        return len(self._keys)

    def count(self, before: int, after: int) -> float:
        """The count of one pair."""
        self._merge()
        key = before * self.items + after
        at = int(np.searchsorted(self._keys, key))
        return float(self._counts[at]) if at < len(self._keys) and self._keys[at] == key else 0.0

    def pairs(self) -> tuple[I64, I64, F64]:
        """All counts: before i64[k], after i64[k], count f64[k]."""
        self._merge()
        return self._keys // self.items, self._keys % self.items, self._counts

    def top(self, rows: int = ROWS_KEPT) -> tuple[I32, F32]:
        """The best `rows` rules of every item: to i32[n, rows] (-1 padded), weight f32[n, rows] (0 padded)."""
        self._merge()
        x, y = np.divmod(self._keys, self.items)
        popularity = np.maximum(self.occurrences, 1.0)
        weight = self._counts / (popularity[x] ** FROM_EXPONENT * popularity[y] ** TO_EXPONENT)
        order = np.lexsort((y, -weight, x))  # by x, best first; equal weights by item, so that it is repeatable
        x, y, weight = x[order], y[order], weight[order]
        place = np.arange(len(x)) - np.searchsorted(x, x)  # rank within the item's own rules
        kept = place < rows
        to = np.full((self.items, rows), -1, np.int32)
        to_weight = np.zeros((self.items, rows), np.float32)
        to[x[kept], place[kept]] = y[kept]
        to_weight[x[kept], place[kept]] = weight[kept]
        return to, to_weight


def sequence_pairs(user: I32, item: I32, window: int = SEQUENCE_WINDOW) -> Iterator[tuple[I32, I32, float]]:
    """Pairs (x, y, 1/gap) for gaps of 1 to `window` in each user's items. user, item: i32[m], by user and time."""
    for gap in range(1, min(window, len(item) - 1) + 1):
        same = user[gap:] == user[:-gap]
        yield item[:-gap][same], item[gap:][same], 1.0 / gap


def basket_pairs(session: I32, item: I32, window: int = BASKET_WINDOW) -> Iterator[tuple[I32, I32, float]]:
    """Pairs (x, y, 1) of each session, both ways round. session, item: i32[m], sessions together."""
    for gap in range(1, min(window, len(item) - 1) + 1):
        same = session[gap:] == session[:-gap]
        if not same.any():
            return  # no session is that long
        x, y = item[:-gap][same], item[gap:][same]
        yield x, y, 1.0
        yield y, x, 1.0


def sequence_rules(items: int, user: I32, item: I32) -> Transitions:
    """Sequence rules over n = `items` items."""
    return _counted(items, item, sequence_pairs(user, item))


def basket_rules(items: int, session: I32, item: I32) -> Transitions:
    """Basket rules over n = `items` items."""
    return _counted(items, item, basket_pairs(session, item))


def _counted(items: int, item: I32, pairs: Iterator[tuple[I32, I32, float]]) -> Transitions:
    rules = Transitions(items)
    rules.occur(item)
    for before, after, amount in pairs:
        rules.add(before, after, amount)
    return rules
