"""What the learnt ranker sees of a candidate. One function for live lists and for fitting."""

import numpy as np
import numpy.typing as npt

from model.ranking.block import Block
from model.ranking.candidates import Fired
from model.ranking.fallback import Popular, PopularRows
from model.serving import BLOCK

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

FEATURES: tuple[str, ...] = (
    "personal_frequency",
    "recency",
    "seen",
    "network",
    "rules",
    "basket_rules",
    "popularity",
    "popularity_7d",
)
"""The features of a candidate, all finite and about -1 to 2. A learnt blend holds weights for this order."""

PART_OF_FEATURE = ("personal", "personal", "personal", "network", "rules", "rules", "popularity", "popularity")
"""Of which of the hybrid's parts (lists.PARTS) each feature is."""

_RECENCY_HALF_LIFE_DAYS = np.float32(14.0)
"""Recency is 1 for what was bought just now and a half two weeks ago; shoppers come weekly."""
_RULE_FLOOR = np.float32(1e-3)
"""Share of a user's fired rules where having a rule begins to count. Above the log-linear blend's EPSILON: there
an item without a rule has to fall behind, here the ranker learns how far."""
_RULE_SCALE = np.float32(4.0)

_ROWS: I64 = np.arange(BLOCK, dtype=np.int64)[:, None]  # 64 1


class FeatureTable:
    """Computes features for a block of users, into memory that is used again.

    Letters in shapes: B rows, at most 64, F = 8 features, n items, N the padded width of a row of scores, K
    candidates a row: N when every item is one.
    """

    def __init__(self, n: int, width: int, model_popularity: F32, candidates: int | None) -> None:
        """`candidates`: K, or None when every item is a candidate."""
        self._n = n
        self._width = width
        self.values: F32 = np.zeros((BLOCK, len(FEATURES), candidates or width), np.float32)
        """f32[64, F, K]: the rows of the last `fill`, then those of earlier ones."""
        self._long_popularity = _log_share(model_popularity, width)  # N
        self._popularity = PopularRows(lambda share: _log_share(share, width))
        self._filled_for: Popular | None = None  # whose popularity stands in all rows of `values`
        self._scratch = np.zeros(BLOCK * width if candidates else 0, np.float32)  # all zero between calls
        self._row_start = (np.arange(BLOCK, dtype=np.int64) * width)[:, None]  # 64 1
        if candidates is None:
            self.values[:, 6] = self._long_popularity

    def fill(
        self,
        block: Block,
        network: F32,
        rules: Fired | None,
        basket: Fired | None,
        candidates: I64 | None = None,
    ) -> F32:
        """Features f32[B, F, K], overwritten by the next call.

        network: f32[B, N], the network's raw scores, -inf from column n on. candidates: tokens i64[B, K] (n: none),
        when the table was made for some only.
        """
        rows = slice(block.rows)
        values, row_start = self.values[rows], self._row_start[rows]
        places = None if candidates is None else row_start + candidates
        counted = row_start + block.count_tokens  # B C
        recent = row_start + block.recent_tokens  # B H
        self._sparse(values, 0, counted, np.log1p(np.maximum(block.counts, 0.0)), places)
        age_days = block.count_age_s.astype(np.float32) / np.float32(86_400.0)
        self._sparse(values, 1, counted, np.exp2(-age_days / _RECENCY_HALF_LIFE_DAYS), places)
        self._sparse(values, 2, np.concatenate([recent, counted], axis=1), np.float32(1.0), places)

        # Log-probability under the network, relative to chance.
        logits = network - network.max(axis=1, keepdims=True)  # B N
        chance = np.log(np.exp(logits).sum(axis=1, keepdims=True) / np.float32(self._n))  # B 1
        if candidates is not None:
            logits = np.take_along_axis(logits, candidates, axis=1)  # B K
        np.clip((logits - chance) / np.float32(5.0), -4.0, 4.0, out=values[:, 3])

        for feature, fired in ((4, rules), (5, basket)):
            if fired is not None:
                strength = np.log1p(fired.totals / _RULE_FLOOR) / _RULE_SCALE
                self._sparse(values, feature, fired.places, strength, places, fired.last.rows[:, None])

        populars = block.popular
        if candidates is not None:
            values[:, 6] = self._long_popularity[candidates]
            values[:, 7] = self._popularity.table(populars)[block.popular_of[:, None], candidates]
        elif len(populars) > 1:
            values[:, 7] = self._popularity.table(populars)[block.popular_of]
            self._filled_for = None
        elif populars[0] is not self._filled_for:
            (self._filled_for,) = populars
            self.values[:, 7] = self._popularity.table(populars)
        return values

    def _sparse(
        self, values: F32, feature: int, at: I64, numbers: F32 | np.float32, places: I64 | None, rows: I64 | None = None
    ) -> None:
        """Set a feature that is zero but for a few items: at[i] is row * N + token of numbers[i], rows[i] its row.

        rows None: a row of `at` for each of the block's.
        """
        target = values[:, feature]  # B K
        if places is None:
            target.fill(0.0)
            # Rows of `target` lie F * N apart, those of `at` N.
            own = _ROWS[: len(values)] if rows is None else rows
            start = own * ((len(FEATURES) - 1) * self._width) + feature * self._width
            self.values.reshape(-1)[at + start] = numbers
        else:
            self._scratch[at] = numbers
            target[:] = self._scratch[places]
            self._scratch[at] = 0.0


def _log_share(share: F32, width: int) -> F32:
    """f32[N]: log of a share relative to a uniform one, with a hundredth of that as the floor; 0 for no item."""
    padded = np.zeros(width, np.float32)
    padded[: len(share)] = np.log(share * len(share) + 0.01) / 5.0
    return padded
