"""What the learnt ranker sees of a candidate. One function for live lists and for fitting."""

import numpy as np
import numpy.typing as npt

from model.ranking.block import Block
from model.ranking.candidates import Fired
from model.ranking.fallback import Popular
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

_RECENCY_HALF_LIFE_DAYS = np.float32(14.0)
"""Recency is 1 for what was bought just now and a half two weeks ago; shoppers come weekly."""
_RULE_FLOOR = np.float32(1e-3)
"""Share of a user's fired rules where having a rule begins to count. Above the log-linear blend's EPSILON: there
an item without a rule has to fall behind, here the ranker learns how far."""
_RULE_SCALE = np.float32(4.0)

_ROWS: I64 = np.arange(BLOCK, dtype=np.int64)[:, None]  # B 1


class FeatureTable:
    """Computes features for a block of users, into memory that is used again.

    Letters in shapes: B = 64 rows, F = 8 features, n items, N the padded width of a row of scores, K candidates a
    row: N when every item is one.
    """

    def __init__(self, n: int, width: int, model_popularity: F32, candidates: int | None) -> None:
        """`candidates`: K, or None when every item is a candidate."""
        self._n = n
        self._width = width
        self.values: F32 = np.zeros((BLOCK, len(FEATURES), candidates or width), np.float32)
        """f32[B, F, K]: the result of the last `fill`."""
        self._long_popularity = _log_share(model_popularity, width)  # N
        self._popularity = self._long_popularity
        self._popular: Popular | None = None
        self._scratch = np.zeros(BLOCK * width if candidates else 0, np.float32)  # all zero between calls
        self._row_start = (np.arange(BLOCK, dtype=np.int64) * width)[:, None]  # B 1
        if candidates is None:
            self.values[:, 6] = self._long_popularity

    def fill(
        self,
        block: Block,
        network: F32,
        rules: Fired | None,
        basket: Fired | None,
        popular: Popular,
        candidates: I64 | None = None,
    ) -> F32:
        """Features f32[B, F, K], overwritten by the next call.

        network: f32[B, N], the network's raw scores, -inf from column n on. candidates: tokens i64[B, K] (n: none),
        when the table was made for some only.
        """
        places = None if candidates is None else self._row_start + candidates
        counted = self._row_start + block.count_tokens  # B C
        recent = self._row_start + block.recent_tokens  # B H
        self._sparse(0, counted, np.log1p(np.maximum(block.counts, 0.0)), places)
        age_days = block.count_age_s.astype(np.float32) / np.float32(86_400.0)
        self._sparse(1, counted, np.exp2(-age_days / _RECENCY_HALF_LIFE_DAYS), places)
        self._sparse(2, np.concatenate([recent, counted], axis=1), np.float32(1.0), places)

        # Log-probability under the network, relative to chance.
        logits = network - network.max(axis=1, keepdims=True)  # B N
        chance = np.log(np.exp(logits).sum(axis=1, keepdims=True) / np.float32(self._n))  # B 1
        if candidates is not None:
            logits = np.take_along_axis(logits, candidates, axis=1)  # B K
        np.clip((logits - chance) / np.float32(5.0), -4.0, 4.0, out=self.values[:, 3])

        for feature, fired in ((4, rules), (5, basket)):
            if fired is not None:
                strength = np.log1p(fired.totals / _RULE_FLOOR) / _RULE_SCALE
                self._sparse(feature, fired.places, strength, places, fired.last.rows[:, None])

        changed = popular is not self._popular
        if changed:
            self._popular = popular
            self._popularity = _log_share(popular.share, self._width)
        if candidates is not None:
            self.values[:, 6] = self._long_popularity[candidates]
            self.values[:, 7] = self._popularity[candidates]
        elif changed:
            self.values[:, 7] = self._popularity
        return self.values

    def _sparse(self, feature: int, at: I64, numbers: F32 | np.float32, places: I64 | None, rows: I64 = _ROWS) -> None:
        """Set a feature that is zero but for a few items: at[i] is row * N + token of numbers[i], rows[i] its row."""
        target = self.values[:, feature]  # B K
        if places is None:
            target.fill(0.0)
            # Rows of `target` lie F * N apart, those of `at` N.
            start = rows * ((len(FEATURES) - 1) * self._width) + feature * self._width
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
