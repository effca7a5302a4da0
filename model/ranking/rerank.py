"""From what is known of the candidates to one score each, and from scores to a list."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from model.artifact import Artifact
from model.errors import ArtifactError
from model.ranking.block import Block
from model.ranking.candidates import EPSILON, Candidates, Fired, Scores
from model.ranking.explain import Hits
from model.ranking.fallback import PopularRows
from model.ranking.features import FEATURES, PART_OF_FEATURE, FeatureTable
from model.ranking.lists import PARTS
from model.ranking.parts import ShapleyParts
from model.ranking.settings import RankingSettings
from model.serving import BLOCK, LANES

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

_LOWEST = np.float32(np.finfo(np.float32).min)
_ROW_SHIFT, _SCORE_SHIFT, _TOKEN_BITS = 56, 24, 0xFF_FFFF


ALL_ITEMS_UP_TO = 2_000
"""The learnt blend scores every item of a catalogue up to this size; of a larger one the best CANDIDATES by the
log-linear blend (the network on top, the rules' targets, the user's own items, the popular ones)."""

CANDIDATES = 512

WEIGHTS = "weights"
"""Name in an artifact's `blend` of the weights that were chosen for it: f32[5], as LogLinear.WEIGHTS."""


class LogLinear:
    """A weighted sum of logarithms: of the network's probability, of rules, counts and popularity.

    What is the same for all items of a user changes no order and is left out: the log-softmax's constant, and
    log(EPSILON) of all items that no rule touched. What remains of the rules is a bonus on the few items that they
    touched.
    """

    WEIGHTS = ("network_weight", "rules_weight", "basket_weight", "personal_weight", "popularity_weight")
    """What an artifact may bring of its own."""
    ROWS = 16 * BLOCK
    """Rows of a block. Measured a list: 33 us with one tile, 29 with 4, 26 with 16, which most chunks do not fill."""

    def __init__(self, candidates: Candidates, settings: RankingSettings) -> None:
        self._candidates = candidates
        self._settings = settings
        self._row_start = (np.arange(BLOCK, dtype=np.int64) * candidates.width)[:, None]
        self._biases = PopularRows(self._bias)

    def score(self, block: Block, hidden: Sequence[I64] | None = None) -> Scores:  # noqa: ARG002  # all are candidates
        """Scores of all items."""
        s = self._settings
        rules = self._candidates.rules(block) if s.rules_weight else None
        basket = self._candidates.basket(block) if s.basket_weight else None
        bonuses = []
        for fired, weight in ((rules, s.rules_weight), (basket, s.basket_weight)):
            if fired is not None:
                bonus = fired.totals * np.float32(1.0 / EPSILON)  # P R
                np.log1p(bonus, out=bonus)
                bonus *= np.float32(weight)
                bonuses.append((fired, bonus))
        return Scores(self._tiles(block, bonuses), rules, basket)

    def parts(self, block: Block, tokens: I64, best: F32, scores: Scores, hits: Sequence[Hits]) -> F32:
        """The terms f32[B, L, P] that the scores `best` f32[B, L] of tokens i64[B, L] are sums of.

        hits: of sequence rules, basket rules and counted items on the lists. The network's term is what remains.
        """
        s = self._settings
        terms = np.zeros((tokens.size, len(PARTS)), np.float32)  # B*L P
        network, rules, personal, popularity = terms.T
        sequence, basket, counted = hits
        for fired, weight, hit in ((scores.rules, s.rules_weight, sequence), (scores.basket, s.basket_weight, basket)):
            if fired is not None:
                bonus = np.log1p(fired.totals.reshape(-1).take(hit.at) * np.float32(1.0 / EPSILON))
                rules[hit.slot] += bonus * np.float32(weight)  # a slot's rules all have the same total: the last stays
        if len(counted.at):
            count = np.maximum(block.counts.reshape(-1).take(counted.at), 0.0)
            personal[counted.slot] = np.log1p(count) * np.float32(s.personal_weight)
        shares = np.concatenate([popular.share for popular in block.popular])
        places = np.minimum(tokens, block.n - 1) + block.popular_of[:, None] * block.n  # B L; n, no item, is not shown
        popularity[:] = self._popularity(shares.take(places.reshape(-1)))
        network[:] = best.reshape(-1) - (rules + personal + popularity)
        return terms.reshape(*tokens.shape, len(PARTS))

    def _popularity(self, share: F32) -> F32:
        """Popularity's term f32[any] for items of these shares f32[any]."""
        above_uniform = share * np.float32(self._candidates.n) + np.float32(0.01)
        term: F32 = np.float32(self._settings.popularity_weight) * np.log(above_uniform)
        return term

    def _bias(self, share: F32) -> F32:
        """f32[N]: what the network and popularity give an item, whoever the user is."""
        n = self._candidates.n
        bias = self._candidates.item_bias.copy()
        bias[:n] *= np.float32(self._settings.network_weight)
        bias[:n] += self._popularity(share)
        return bias

    def _tiles(self, block: Block, bonuses: list[tuple[Fired, F32]]) -> Iterator[F32]:
        s = self._settings
        personal = s.exclude != "seen" and s.personal_weight != 0.0
        biases = self._biases.table(block.popular)
        for tile, rows in enumerate(block.tiles):
            which = block.popular_of[rows]
            scores = self._candidates.network(block.requests[rows], biases, which, s.network_weight)
            flat = scores.reshape(-1)
            for fired, bonus in bonuses:
                part = fired.tiles[tile]
                places = fired.places[part]
                # Places repeat within a row, always with the same total: the last write equals the first.
                flat[places] = flat.take(places) + bonus[part]
            if personal:
                counted = self._row_start[: len(scores)] + block.count_tokens[rows]  # T C
                bonus = np.log1p(np.maximum(block.counts[rows], 0.0)) * np.float32(s.personal_weight)
                # A user's counted items are distinct; those unknown share column n, which stays at -inf.
                flat[counted] = flat.take(counted) + bonus
            yield scores


def with_weights_of(artifact: Artifact, settings: RankingSettings) -> RankingSettings:
    """The settings with the artifact's own weights, if it brings any.

    Raises ArtifactError when these are not five finite numbers.
    """
    weights = (artifact.blend or {}).get(WEIGHTS)
    if weights is None:
        return settings
    if weights.shape != (len(LogLinear.WEIGHTS),) or not np.isfinite(weights).all():
        raise ArtifactError(
            f"the model's weights of its signals are not {len(LogLinear.WEIGHTS)} finite numbers; train it again."
        )
    return msgspec.structs.replace(settings, **dict(zip(LogLinear.WEIGHTS, weights.tolist(), strict=True)))


class LearntBlend:
    """A small network over the features of one candidate, F -> H -> H2 -> 1, the same for every candidate.

    One call a user, always of the same shape: a score cannot depend on who else is in the block.
    """

    ARRAYS = ("w1", "b1", "w2", "b2", "w3")
    """f32[H, F], f32[H], f32[H2, H], f32[H2], f32[1, H2]: what an artifact's `blend` holds."""
    ROWS = BLOCK
    """Rows of a block: one tile, as all features of all its candidates are there at once."""

    def __init__(self, candidates: Candidates, artifact: Artifact, settings: RankingSettings) -> None:
        """Raises ArtifactError when the artifact's blend is not one that fit_blend made for these features."""
        self.inputs = LearntInputs(candidates, artifact, settings)
        w1, b1, w2, b2, w3 = _checked(artifact.blend or {})
        width = self.inputs.columns
        self._w1, self._b1 = torch.from_numpy(w1), torch.from_numpy(b1[:, None])  # H F, H 1
        self._w2, self._b2 = torch.from_numpy(w2), torch.from_numpy(b2[:, None])  # H2 H, H2 1
        self._w3 = torch.from_numpy(w3)  # 1 H2
        self._hidden = torch.empty(len(b1), width)
        self._hidden2 = torch.empty(len(b2), width)
        self._out = torch.zeros(BLOCK, width)
        self._scores: F32 = np.zeros((BLOCK, candidates.width), np.float32)
        self._n = candidates.n
        self._blend, self._list_size = (w1, b1, w2, b2, w3), min(settings.list_size, candidates.n)
        self._features: F32 = self._scores[:0, None]
        """f32[B, F, K]: what the last block was scored by,"""
        self._tokens: I64 | None = None
        """and of which tokens i64[B, K] (None: column = token)."""

    def score(self, block: Block, hidden: Sequence[I64] | None = None) -> Scores:
        """Scores of all items, -inf for those that are no candidates.

        hidden, for evaluation: for each row the tokens i64[any] that can be no candidates. Items that are none stand
        behind all candidates then, in the order in which candidates were chosen, so that every item has a rank.
        """
        first = None if hidden is None else np.empty_like(self._scores[: block.rows])  # B N
        features, tokens, rules, basket = self.inputs.of(block, hidden or (), first)
        self._features, self._tokens = features, tokens
        inputs = torch.from_numpy(features)  # B F K
        with torch.inference_mode():
            for row in range(block.rows):
                torch.addmm(self._b1, self._w1, inputs[row], out=self._hidden).relu_()  # H K
                torch.addmm(self._b2, self._w2, self._hidden, out=self._hidden2).relu_()  # H2 K
                torch.mm(self._w3, self._hidden2, out=self._out[row : row + 1])  # 1 K
        scored = self._out.numpy()[: block.rows]
        if tokens is None:
            scored[:, self._n :] = -np.inf
            return Scores(iter([scored]), rules, basket)
        scores = self._scores[: block.rows]
        if first is None:
            scores.fill(-np.inf)
        else:
            lowest = np.where(tokens < self._n, scored, np.float32(0.0)).min(axis=1, keepdims=True)  # B 1
            best = np.maximum(first.max(axis=1, keepdims=True), _LOWEST)  # B 1
            np.subtract(first, best - (lowest - np.float32(1.0)), out=scores)
        np.put_along_axis(scores, tokens, scored, axis=1)
        scores[:, self._n] = -np.inf
        return Scores(iter([scores]), rules, basket)

    def parts(
        self,
        block: Block,
        tokens: I64,
        best: F32,  # noqa: ARG002  # as LogLinear's
        scores: Scores,  # noqa: ARG002
        hits: Sequence[Hits],  # noqa: ARG002
    ) -> F32:
        """What each part gives to the scores of tokens i64[B, L], as f32[B, L, P]: see ShapleyParts.

        block: that of the last call of `score`, whose candidates the tokens are.
        """
        columns = tokens  # B L
        if self._tokens is not None:
            table = self._columns[: block.rows]
            np.put_along_axis(table, self._tokens, np.arange(self._tokens.shape[1], dtype=np.int16)[None], axis=1)
            columns = np.take_along_axis(table, tokens, axis=1).astype(np.int64)
        return self._shapley.of(np.take_along_axis(self._features, columns[:, None], axis=2))

    @cached_property
    def _columns(self) -> npt.NDArray[np.int16]:
        """i16[BLOCK, N]: the column of each candidate of a row; of other tokens, any."""
        return np.zeros_like(self._scores, np.int16)

    @cached_property
    def _shapley(self) -> ShapleyParts:
        return ShapleyParts(PART_OF_FEATURE, self._blend, self._list_size)


def scorer_of(candidates: Candidates, artifact: Artifact, settings: RankingSettings) -> LogLinear | LearntBlend:
    """What blends an artifact's signals: its learnt ranker if it has one, else weights."""
    if artifact.blend is not None and LearntBlend.ARRAYS[0] in artifact.blend:
        return LearntBlend(candidates, artifact, settings)
    return LogLinear(candidates, settings)


class LearntInputs:
    """Features of a block's candidates: for LearntBlend, and for fitting one."""

    def __init__(self, candidates: Candidates, artifact: Artifact, settings: RankingSettings) -> None:
        n, width = candidates.n, candidates.width
        self._candidates = candidates
        self._first: LogLinear | None = None
        some = None
        if n > ALL_ITEMS_UP_TO:
            # Every kind of signal brings candidates, whatever the settings' weights for lists without a blend.
            weights = {"basket_weight": settings.basket_weight or 0.5, "exclude": "none"}
            self._first = LogLinear(candidates, msgspec.structs.replace(settings, **weights))
            self._best = TopItems(n, width, CANDIDATES)
            some = self._best.size
        self.columns = some or width
        """K: candidates a row, with padding."""
        self._table = FeatureTable(n, width, artifact.popularity, some)

    def of(
        self, block: Block, hidden: Sequence[I64] = (), first: F32 | None = None
    ) -> tuple[F32, I64 | None, Fired | None, Fired | None]:
        """Features f32[B, F, K], their tokens i64[B, K] (None: column = token), sequence and basket rules.

        Of a block of one tile. hidden: for each row tokens that can be no candidates where there is a choice; `first`
        takes the scores f32[B, N] that it was made by.
        """
        tokens: I64 | None = None
        if self._first is None:
            rules, basket = self._candidates.rules(block), self._candidates.basket(block)
        else:
            tiles, rules, basket = self._first.score(block)
            chosen_by = next(tiles)
            for row, own in enumerate(hidden):
                chosen_by[row, own] = -np.inf
            if first is not None:
                first[:] = chosen_by
            tokens, _ = self._best.pick(chosen_by)
        network = self._candidates.network(block.requests, self._candidates.item_bias[None], block.popular_of * 0)
        features = self._table.fill(block, network, rules, basket, tokens)
        return features, tokens, rules, basket


def _checked(blend: dict[str, npt.NDArray[Any]]) -> list[F32]:
    missing = [name for name in LearntBlend.ARRAYS if name not in blend]
    if missing:
        raise ArtifactError(f"the model's learnt blend lacks {', '.join(missing)}; train the model again.")
    arrays = [np.ascontiguousarray(blend[name], dtype=np.float32) for name in LearntBlend.ARRAYS]
    w1, b1, w2, b2, w3 = arrays
    h, h2 = b1.size, b2.size
    if (w1.shape, w2.shape, w3.shape) != ((h, len(FEATURES)), (h2, h), (1, h2)) or b1.ndim + b2.ndim != 2:
        raise ArtifactError(
            f"the model's learnt blend is not for the {len(FEATURES)} features of this Driftline; "
            "train the model again."
        )
    if not all(np.isfinite(array).all() for array in arrays):
        raise ArtifactError("the model's learnt blend holds a number that is not finite; train the model again.")
    return arrays


class TopItems:
    """The best items of each row of a tile, equal scores by token.

    A row's items fall into 128 groups: column c belongs to group c % 128. The size-th largest of the groups' maxima
    is a bound: `size` items are at least as good, so all of the best are, and hardly any more. Where they stand is
    found in the same way, by the maxima of 512 smaller groups. Measured on 3,400 items: 2 us a row against
    torch.topk's 11.
    """

    GROUPS = 128

    def __init__(self, n: int, width: int, size: int) -> None:
        """`width` is a multiple of LANES and above n; lists of `size` items, or n if there are fewer."""
        self._n = n
        self._width = width
        self.size = min(size, n)
        self._members = np.arange(0, width, LANES, dtype=np.int64)[:, None]  # N/512 1: columns of group 0
        self._row_start = np.arange(BLOCK, dtype=np.int64)[:, None] * width  # 64 1
        self._row_code = np.arange(BLOCK + 1, dtype=np.int64) << _ROW_SHIFT  # 65
        self._places = np.arange(self.size)

    def pick(self, scores: F32) -> tuple[I64, F32]:
        """Tokens i64[T, size] and scores f32[T, size], best first; token n and -inf where a row has no more.

        scores: f32[T, N], T at most 64, -inf on items to leave out, and in column n.
        """
        rows, flat = len(scores), scores.reshape(-1)
        place = self._reaching_the_bound(scores)  # F
        if not len(place):  # all is left out of all rows
            return np.full((rows, self.size), self._n, np.int64), np.full((rows, self.size), -np.inf, np.float32)
        row = place // self._width
        # Sorted by row, then falling score, then token, as one integer sort: 7 bits row, 32 score, 24 token.
        bits = (flat.take(place) + np.float32(0.0)).view(np.uint32)  # + 0: -0.0 and 0.0 are one score
        falling = np.where(bits >> 31, bits, ~bits & np.uint32(0x7FFF_FFFF)).astype(np.int64)
        code = (row << _ROW_SHIFT) | (falling << _SCORE_SHIFT) | (place - row * self._width)
        code.sort()
        ends = np.searchsorted(code, self._row_code[: rows + 1])  # T+1: where each row begins
        index = ends[:-1, None] + self._places  # T size
        there = index < ends[1:, None]
        tokens = np.where(there, code.take(index, mode="clip") & _TOKEN_BITS, self._n)
        return tokens, flat.take(tokens + self._row_start[:rows])

    def _reaching_the_bound(self, scores: F32) -> I64:
        """Places i64[F] in the flat scores, among them those of the best of each row."""
        flat, size = scores.reshape(-1), self.size
        if size > self.GROUPS // 2:  # too many for the groups: the size-th largest itself is the bound
            bound = np.partition(scores, self._width - size, axis=1)[:, self._width - size]  # T
            return np.flatnonzero(scores >= np.maximum(bound, _LOWEST)[:, None])
        # torch finds the maxima in half of numpy's time; they are the same.
        small = torch.from_numpy(scores).view(len(scores), -1, LANES).amax(1)  # T 512
        large = small.view(len(scores), -1, self.GROUPS).amax(1).numpy()  # T 128
        bound = np.maximum(np.sort(large, axis=1)[:, self.GROUPS - size], _LOWEST)  # T
        group = np.flatnonzero(small.numpy() >= bound[:, None])  # P, as row * 512 + group
        row = group // LANES  # P
        places = (row * self._width + group % LANES) + self._members  # N/512 P
        best: I64 = places[flat.take(places) >= bound.take(row)]
        return best
