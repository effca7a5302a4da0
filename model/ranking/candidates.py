"""What speaks for an item: the network's score, and the rules that the user's last items fire.

Every item is a candidate up to a few ten thousand items: the network scores all of them in one matrix product
(3 us a user for 3,400), and rules touch at most rules_items * rules_per_item of them.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from model.artifact import Artifact
from model.ranking.block import Block, LastItems, Request
from model.ranking.settings import RankingSettings
from model.serving import BLOCK, Serving

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

EPSILON = 1e-5
"""Share of a user's fired rules below which an item has as good as none."""


class Fired(NamedTuple):
    """The rules that users' last items fired: P last items of all rows together, R rules each.

    A `place` is an index into the scores f32[T, N] of the row's tile, read as one flat array; padding points to
    column n, with share 0.
    """

    tiles: list[slice]
    """For each tile of the block its part of the P."""

    last: LastItems
    """The P items that fired."""
    places: I64
    """i64[P, R]: where the rule's target is."""
    shares: F32
    """f32[P, R]: what the rule gives, as a share of all that the row's rules give."""
    totals: F32
    """f32[P, R]: sum of the shares of all rules of the row with the same target."""


class Scores(NamedTuple):
    """Scores of a block, and the rules behind them for explanations."""

    tiles: Iterator[F32]
    """f32[T, N] for each tile of T rows, -inf from column n on; overwritten by the next tile."""
    rules: Fired | None
    basket: Fired | None


class RuleTable:
    """Rules x -> y by source item, of fixed width."""

    def __init__(self, to: I32, weight: F32, *, per_item: int) -> None:
        """to i32[n, R] padded with -1, weight f32[n, R], best first."""
        n = len(to)
        used = to[:, :per_item] >= 0
        self._to: I32 = np.where(used, to[:, :per_item], n).astype(np.int32)  # n R
        self._weight: F32 = np.where(used, weight[:, :per_item], 0.0).astype(np.float32)  # n R
        self._whole: F32 = self._weight.sum(axis=1)  # n
        self.empty = not bool((self._weight > 0.0).any())
        """No item has a rule."""

    def fire(self, block: Block, last: LastItems, factors: F32, scratch: F32) -> Fired:
        """Fire the rules of a block's last items, those of age j weighed by factors f32[J].

        scratch: f32[64, N], memory to add up in; what stands there is lost.
        """
        weighed = factors.take(last.ages)  # P
        whole = np.zeros(block.rows, np.float32)
        # np.add.at adds one after the other, in the order of a row's items: a sum does not depend on other rows.
        np.add.at(whole, last.rows, weighed * self._whole.take(last.tokens))
        whole[whole <= 0.0] = 1.0
        shares = self._weight.take(last.tokens, axis=0)  # P R
        shares *= (weighed / whole.take(last.rows))[:, None]
        places = self._to.take(last.tokens, axis=0) + (last.rows % BLOCK * scratch.shape[1])[:, None]  # P R
        ends = np.searchsorted(last.rows, [rows.stop for rows in block.tiles]).tolist()
        tiles = [slice(start, end) for start, end in pairwise([0, *ends])]
        sums, totals = scratch.reshape(-1), np.empty_like(shares)
        for part in tiles:
            flat = places[part].reshape(-1)
            sums[flat] = 0.0
            np.add.at(sums, flat, shares[part].reshape(-1))
            sums.take(places[part], out=totals[part], mode="clip")  # in range: "clip" saves a copy
        return Fired(tiles, last, places, shares, totals)


class Candidates:
    """Scores of the network and fired rules for a block of users."""

    def __init__(self, artifact: Artifact, serving: Serving, settings: RankingSettings) -> None:
        per_item, self.width = settings.rules_per_item, serving.width
        self.n = len(artifact.item_ids)
        self._serving = serving
        self._rules = RuleTable(artifact.rules_to, artifact.rules_weight, per_item=per_item)
        self._basket = RuleTable(artifact.basket_to, artifact.basket_weight, per_item=per_item)
        self.scores: F32 = torch.full((BLOCK, self.width), -torch.inf).numpy()  # torch's memory is aligned
        """f32[64, N]: memory for the scores of a tile. Rules add up in it, so they fire before it is filled: one
        array that stays in the processor's cache is faster than two that push each other out."""
        self.scores[:, : self.n] = 0.0
        ages = np.arange(settings.rules_items, dtype=np.float32)
        self._age_factors: F32 = np.float32(settings.rules_age_decay) ** ages  # J
        self._same_factors: F32 = np.ones(settings.basket_items, np.float32)
        self.item_bias: F32 = np.full(self.width, -np.inf, np.float32)
        """f32[N]: the network's bias, -inf from column n on."""
        self.item_bias[: self.n] = artifact.item_bias

    @property
    def has_basket_rules(self) -> bool:
        """Any item was found in one session with another."""
        return not self._basket.empty

    def network(self, requests: Sequence[Request], biases: F32, which: I64, weight: float = 1.0) -> F32:
        """weight * how well each item matches the network's query, plus the bias that is the row's.

        For the T requests of one tile, as f32[T, N] in `scores`, which this fills. biases: f32[any, N]; which: i64[T].
        """
        vectors = [request.state.vector for request in requests]
        self._serving.score(vectors, biases, which, self.scores, weight)
        return self.scores[: len(vectors)]

    def rules(self, block: Block) -> Fired | None:
        """Sequence rules of the user's last items, older ones weighing less. None: the model has none.

        Overwrites `scores`.
        """
        if self._rules.empty:
            return None
        last = block.last_items(len(self._age_factors), of_session=False)
        return self._rules.fire(block, last, self._age_factors, self.scores)

    def basket(self, block: Block) -> Fired | None:
        """Rules among the items of one session, from those of the running session, all weighing the same.

        Overwrites `scores`.
        """
        if self._basket.empty:
            return None
        last = block.last_items(len(self._same_factors), of_session=True)
        return self._basket.fire(block, last, self._same_factors, self.scores)
