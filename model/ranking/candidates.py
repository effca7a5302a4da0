"""What speaks for an item: the network's score, and the rules that the user's last items fire.

Every item is a candidate up to a few ten thousand items: the network scores all of them in one matrix product
(3 us a user for 3,400), and rules touch at most rules_items * rules_per_item of them.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from model.artifact import Artifact
from model.ranking.block import Block
from model.ranking.settings import RankingSettings
from model.serving import BLOCK, Serving

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

EPSILON = 1e-5
"""Share of a user's fired rules below which an item has as good as none."""


class Fired(NamedTuple):
    """The rules that users' last items fired. B rows, J items a row, R rules an item.

    A `place` is an index into scores f32[B, N] read as one flat array; padding points to column n, with share 0.
    """

    sources: I64
    """i64[B, J]: tokens of the items that fired."""
    types: U8
    """u8[B, J]: types of the events on them."""
    places: I64
    """i64[B, J, R]: where the rule's target is."""
    shares: F32
    """f32[B, J, R]: what the rule gives, as a share of all that the row's rules give."""
    totals: F32
    """f32[B, J, R]: sum of the shares of all rules of the row with the same target."""


class RuleTable:
    """Rules x -> y by source item, of fixed width, with an empty row n for "no item"."""

    def __init__(self, to: I32, weight: F32, *, per_item: int, width: int) -> None:
        """to i32[n, R] padded with -1, weight f32[n, R], best first; `width` is N of the score rows."""
        n = len(to)
        r = min(per_item, to.shape[1])
        used = to[:, :r] >= 0
        self._to = np.full((n + 1, r), n, np.int64)
        self._to[:n] = np.where(used, to[:, :r], n)
        self._weight = np.zeros((n + 1, r), np.float32)
        self._weight[:n] = np.where(used, weight[:, :r], 0.0)
        self.empty = not bool((self._weight > 0.0).any())
        """No item has a rule."""
        self._sums = np.zeros(BLOCK * width, np.float32)  # all zero between calls
        self._row_start = (np.arange(BLOCK, dtype=np.int64) * width)[:, None, None]

    def fire(self, tokens: I64, types: U8, factors: F32) -> Fired:
        """Fire the rules of tokens i64[B, J] (n: none), those of column j weighed by factors f32[J]."""
        places = self._to.take(tokens, axis=0)  # B J R
        places += self._row_start
        shares = self._weight.take(tokens, axis=0)  # B J R
        shares *= factors[:, None]
        whole = shares.reshape(BLOCK, -1).sum(axis=1)  # B
        shares /= np.where(whole > 0.0, whole, np.float32(1.0))[:, None, None]
        # Adds one after the other, in the order of a row's rules: a sum does not depend on other rows.
        flat = places.reshape(-1)
        np.add.at(self._sums, flat, shares.reshape(-1))
        totals = self._sums.take(flat).reshape(places.shape)  # B J R
        self._sums[flat] = 0.0
        return Fired(tokens, types, places, shares, totals)


class Candidates:
    """Scores of the network and fired rules for a block of users."""

    def __init__(self, artifact: Artifact, serving: Serving, settings: RankingSettings) -> None:
        per_item, self.width = settings.rules_per_item, serving.width
        self.n = len(artifact.item_ids)
        self._serving = serving
        self._rules = RuleTable(artifact.rules_to, artifact.rules_weight, per_item=per_item, width=self.width)
        self._basket = RuleTable(artifact.basket_to, artifact.basket_weight, per_item=per_item, width=self.width)
        ages = np.arange(settings.rules_items, dtype=np.float32)
        self._age_factors: F32 = np.float32(settings.rules_age_decay) ** ages  # J
        self._same_factors: F32 = np.ones(settings.basket_items, np.float32)
        self.item_bias: F32 = np.full(self.width, -np.inf, np.float32)
        """f32[N]: the network's bias, -inf from column n on."""
        self.item_bias[: self.n] = artifact.item_bias

    def network(self, block: Block, bias: F32, out: F32, weight: float = 1.0) -> None:
        """weight * how well each item matches the network's query, plus `bias` f32[N], into out f32[B, N]."""
        self._serving.score([request.state.vector for request in block.requests], bias, out, weight)

    def rules(self, block: Block) -> Fired | None:
        """Sequence rules of the user's last items, older ones weighing less. None: the model has none."""
        if self._rules.empty:
            return None
        tokens, types = block.last_items(len(self._age_factors), of_session=False)
        return self._rules.fire(tokens, types, self._age_factors)

    def basket(self, block: Block) -> Fired | None:
        """Rules among the items of one session, from those of the running session, all weighing the same."""
        if self._basket.empty:
            return None
        tokens, types = block.last_items(len(self._same_factors), of_session=True)
        return self._basket.fire(tokens, types, self._same_factors)
