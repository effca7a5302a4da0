"""What is popular: a feature of every list, and the whole list of a user of whom nothing known is known."""

from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from model.ranking.index import ItemIndex
from state.trend import Trend

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Popular:
    """Popularity at one snapshot. Arrays are over all n items."""

    def __init__(self, share: F32, shown_as_popular: int) -> None:
        self.share = share
        """f32[n]: each item's share of the decayed event weight; sums to 1."""
        self.order: I64 = np.argsort(-share, kind="stable")
        """i64[n]: tokens, the most popular first, equal ones by index."""
        self.is_popular = np.zeros(len(share) + 1, np.bool_)
        """bool[n + 1]: among the most popular; False for token n."""
        self.is_popular[self.order[:shown_as_popular]] = True


class PopularityCache:
    """Popularity of each partition's trend, blended with the model's, remade when the snapshot changed."""

    SHOWN_AS_POPULAR = 50
    """An item within so many places of the popular list may be explained as popular."""

    def __init__(self, index: ItemIndex, model_popularity: F32, prior: float) -> None:
        self._index = index
        self._prior = prior
        self._model = model_popularity.astype(np.float64)
        self._cache: WeakKeyDictionary[Trend, tuple[int, Popular]] = WeakKeyDictionary()

    def at(self, trend: Trend) -> Popular:
        """Popularity by the trend's snapshot.

        (counts + prior * model's share) / (sum of counts + prior): with few counts it is the model's popularity,
        with many the partition's own.
        """
        cached = self._cache.get(trend)
        if cached is not None and cached[0] == trend.version:
            return cached[1]
        counts = self._prior * self._model
        tokens = self._index.tokens(trend.snapshot_keys)
        known = tokens < len(counts)
        counts[tokens[known]] += trend.snapshot_amounts[known]  # keys are distinct, so tokens are
        popular = Popular((counts / counts.sum()).astype(np.float32), self.SHOWN_AS_POPULAR)
        self._cache[trend] = (trend.version, popular)
        return popular


class Fallback:
    """The popular list, for a user of whom nothing that the model knows is known."""

    CATEGORY_FACTOR = 9.0
    """An item in the only category of a user's interest counts like one ten times as popular."""

    def __init__(self, n: int, size: int) -> None:
        self._size = min(size, n)

    def list_of(
        self, popular: Popular, boost: F32, hidden: list[I64], outside: Bools | None = None
    ) -> tuple[list[int], list[float]]:
        """Tokens and scores (popularity, raised by interest), best first, equal ones by token.

        boost: f32[n], share of the user's interest in the item's category. hidden: tokens to leave out (n: none);
        when that leaves nothing they stay in, since any list serves a user better than none. outside: bool[n], items
        that stay out even then (None: there are none), so that the list is empty when there are no others.
        """
        n = len(boost)
        scores = self.scores(popular, boost)
        shown = np.ones(n + 1, np.bool_)
        for tokens in hidden:
            shown[tokens] = False
        inside = np.ones(n, np.bool_) if outside is None else ~outside
        shown[:n] &= inside
        if not shown[:n].any():
            shown[:n] = inside
        order = np.argsort(-scores, kind="stable")
        best = order[shown[order]][: self._size]
        return best.tolist(), scores[best].astype(np.float64).round(6).tolist()

    def scores(self, popular: Popular, boost: F32) -> F32:
        """f32[n]: popularity, raised by interest. boost: f32[n]."""
        raised: F32 = popular.share * (np.float32(1.0) + np.float32(self.CATEGORY_FACTOR) * boost)
        return raised

    def parts(self, popular: Popular, boost: F32, tokens: list[int]) -> F32:
        """f32[len(tokens), 2]: what popularity and the user's interests give to the scores, which they add up to."""
        share = popular.share[tokens]
        return np.stack([share, share * np.float32(self.CATEGORY_FACTOR) * boost[tokens]], axis=1)


class PopularRows:
    """A row of numbers computed once for each popularity, as long as that is in use; the rows of a block as a table."""

    def __init__(self, of: Callable[[F32], F32]) -> None:
        """`of`: from a share f32[n] to its row."""
        self._of = of
        self._rows: WeakKeyDictionary[Popular, F32] = WeakKeyDictionary()

    def table(self, populars: Sequence[Popular]) -> F32:
        """f32[len(populars), width of a row]."""
        rows = []
        for popular in populars:
            row = self._rows.get(popular)
            if row is None:
                row = self._rows[popular] = self._of(popular.share)
            rows.append(row)
        return np.stack(rows)
