"""From what is known of the candidates to one score each, and from scores to a list."""

from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from model.artifact import Artifact
from model.errors import ArtifactError
from model.ranking.block import Block
from model.ranking.candidates import EPSILON, Candidates, Fired
from model.ranking.fallback import Popular
from model.ranking.features import FEATURES, FeatureTable
from model.ranking.settings import RankingSettings
from model.serving import BLOCK

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

_LOWEST = np.float32(np.finfo(np.float32).min)


ALL_ITEMS_UP_TO = 2_000
"""The learnt blend scores every item of a catalogue up to this size; of a larger one the best CANDIDATES by the
log-linear blend (the network on top, the rules' targets, the user's own items, the popular ones)."""

CANDIDATES = 512


class Scores(NamedTuple):
    """Scores of a block, and the rules behind them for explanations."""

    values: F32
    """f32[B, N], -inf from column n on; overwritten by the next block."""
    rules: Fired | None
    basket: Fired | None


class LogLinear:
    """A weighted sum of logarithms: of the network's probability, of rules, counts and popularity.

    What is the same for all items of a user changes no order and is left out: the log-softmax's constant, and
    log(EPSILON) of all items that no rule touched. What remains of the rules is a bonus on the few items that they
    touched.
    """

    def __init__(self, candidates: Candidates, settings: RankingSettings) -> None:
        self._candidates = candidates
        self._settings = settings
        self._scores: F32 = np.zeros((BLOCK, candidates.width), np.float32)
        self._row_start = (np.arange(BLOCK, dtype=np.int64) * candidates.width)[:, None]
        self._popular: Popular | None = None
        self._bias: F32 = candidates.item_bias

    def score(self, block: Block, popular: Popular) -> Scores:
        """Scores of all items."""
        s, scores = self._settings, self._scores
        if popular is not self._popular:
            self._popular = popular
            n = self._candidates.n
            share = popular.share * np.float32(n) + np.float32(0.01)
            self._bias = self._candidates.item_bias.copy()
            self._bias[:n] *= np.float32(s.network_weight)
            self._bias[:n] += np.float32(s.popularity_weight) * np.log(share)
        self._candidates.network(block, self._bias, scores, s.network_weight)
        flat = scores.reshape(-1)
        rules = self._candidates.rules(block) if s.rules_weight else None
        basket = self._candidates.basket(block) if s.basket_weight else None
        for fired, weight in ((rules, s.rules_weight), (basket, s.basket_weight)):
            if fired is not None:
                bonus = np.log1p(fired.totals / np.float32(EPSILON)).reshape(-1)
                bonus *= np.float32(weight)
                places = fired.places.reshape(-1)
                # Places repeat within a row, always with the same total: the last write equals the first.
                bonus += flat.take(places)
                flat[places] = bonus
        if s.exclude != "seen" and s.personal_weight:
            counted = self._row_start + block.count_tokens
            bonus = np.log1p(np.maximum(block.counts, 0.0)) * np.float32(s.personal_weight)
            # A user's counted items are distinct; those unknown share column n, which stays at -inf.
            flat[counted] = flat[counted] + bonus
        return Scores(scores, rules, basket)


class LearntBlend:
    """A small network over the features of one candidate, F -> H -> H2 -> 1, the same for every candidate.

    One call a user, always of the same shape: a score cannot depend on who else is in the block.
    """

    ARRAYS = ("w1", "b1", "w2", "b2", "w3")
    """f32[H, F], f32[H], f32[H2, H], f32[H2], f32[1, H2]: what an artifact's `blend` holds."""

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

    def score(self, block: Block, popular: Popular) -> Scores:
        """Scores of all items, -inf for those that are no candidates."""
        features, tokens, rules, basket = self.inputs.of(block, popular)
        inputs = torch.from_numpy(features)  # B F K
        with torch.inference_mode():
            for row in range(block.rows):
                torch.addmm(self._b1, self._w1, inputs[row], out=self._hidden).relu_()  # H K
                torch.addmm(self._b2, self._w2, self._hidden, out=self._hidden2).relu_()  # H2 K
                torch.mm(self._w3, self._hidden2, out=self._out[row : row + 1])  # 1 K
        scored = self._out.numpy()
        if tokens is None:
            scored[:, self._n :] = -np.inf
            return Scores(scored, rules, basket)
        self._scores.fill(-np.inf)
        np.put_along_axis(self._scores, tokens, scored, axis=1)
        self._scores[:, self._n] = -np.inf
        return Scores(self._scores, rules, basket)


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
        self._network: F32 = np.zeros((BLOCK, width), np.float32)

    def of(self, block: Block, popular: Popular) -> tuple[F32, I64 | None, Fired | None, Fired | None]:
        """Features f32[B, F, K], their tokens i64[B, K] (None: column = token), sequence and basket rules."""
        tokens: I64 | None = None
        if self._first is None:
            rules, basket = self._candidates.rules(block), self._candidates.basket(block)
        else:
            values, rules, basket = self._first.score(block, popular)
            tokens, _ = self._best.pick(values)
        self._candidates.network(block, self._candidates.item_bias, self._network)
        features = self._table.fill(block, self._network, rules, basket, popular, tokens)
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
    """The best items of each row, equal scores by token."""

    GROUPS = 128

    def __init__(self, n: int, width: int, size: int) -> None:
        """`width` is a multiple of 128 and above n; lists of `size` items, or n if there are fewer."""
        self._n = n
        self._width = width
        self.size = min(size, n)

    def pick(self, scores: F32) -> tuple[I64, F32]:
        """Tokens i64[B, size] and scores f32[B, size], best first; token n and -inf where a row has no more.

        scores: f32[B, N], -inf on items to leave out.
        """
        size = self.size
        # The row's items fall into 128 groups. The size-th largest of the groups' maxima is a bound: size items
        # are at least as good, so that all of the best are, and hardly any more. (Measured on 3,416 items:
        # 3 us a row against torch.topk's 11.)
        if size <= self.GROUPS // 2:
            maxima = scores.reshape(BLOCK, -1, self.GROUPS).max(axis=1)  # B 128
            maxima.sort(axis=1)
            bound = np.maximum(maxima[:, self.GROUPS - size], _LOWEST)  # B
        else:
            bound = np.full(BLOCK, _LOWEST)
        found = np.flatnonzero(scores >= bound[:, None])
        row = found // self._width
        token = found - row * self._width
        score = scores.reshape(-1)[found]
        # Sorted by row, then falling score, then token, as one integer sort: 7 bits row, 32 score, 24 token.
        bits = (score + np.float32(0.0)).view(np.uint32)  # + 0: -0.0 and 0.0 are one score
        falling = np.where(bits >> 31, bits, ~bits & np.uint32(0x7FFF_FFFF)).astype(np.int64)
        code = np.sort((row << 56) | (falling << 24) | token)
        row = code >> 56
        first = np.searchsorted(row, np.arange(BLOCK))
        place = np.arange(len(code)) - first[row]
        kept = place < size
        row, place, token = row[kept], place[kept], code[kept] & 0xFF_FFFF
        tokens = np.full((BLOCK, size), self._n, np.int64)
        tokens[row, place] = token
        best = np.full((BLOCK, size), -np.inf, np.float32)
        best[row, place] = scores[row, token]
        return tokens, best
