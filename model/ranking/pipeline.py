"""From users' states to their lists, on one screen: signals -> scores -> filter -> best items -> reasons."""

from collections.abc import Sequence
from itertools import cycle

import numpy as np
import numpy.typing as npt

from model.artifact import Artifact
from model.ranking.block import Block, Request
from model.ranking.candidates import Candidates, Scores
from model.ranking.explain import Explainer, Hits, Interests
from model.ranking.fallback import Fallback, Popular, PopularityCache
from model.ranking.filters import Availability, Bools, Domains, excluded
from model.ranking.index import ItemIndex
from model.ranking.lists import PARTS, POPULAR_PARTS, RankedItem, Reason, UserList
from model.ranking.parts import shown_parts
from model.ranking.rerank import LearntBlend, LogLinear, TopItems, scorer_of, with_weights_of
from model.ranking.settings import RankingSettings
from model.serving import BLOCK, Serving
from state.catalog import Catalog
from state.settings import StateSettings

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
F32 = npt.NDArray[np.float32]


class Pipeline:
    """Makes lists block by block, each row from its own user's state only.

    Letters in shapes: B rows of a block, L items a list.
    """

    def __init__(
        self,
        artifact: Artifact,
        index: ItemIndex,
        serving: Serving,
        state: StateSettings,
        ranking: RankingSettings,
    ) -> None:
        ranking = with_weights_of(artifact, ranking)
        self._index = index
        self._state = state
        self._settings = ranking
        self._item_ids = np.array([*artifact.item_ids, ""], np.object_)
        """n + 1: Python strings in an array, which hands out thousands of them in one call."""
        self.candidates = Candidates(artifact, serving, ranking)
        self.popularity = PopularityCache(index, artifact.popularity, ranking.popularity_prior)
        self._scorer = scorer_of(self.candidates, artifact, ranking)
        self._top = TopItems(index.n, serving.width, ranking.list_size)
        self._explainer = Explainer(artifact, state, serving.width)
        self._fallback = Fallback(index.n, ranking.list_size)
        self.availability = Availability(index, serving.width, listed_only=ranking.listed_only)
        """What may be recommended, and of which domain it is, with what the catalogue says: see `catalog_changed`."""
        self.domains = Domains(index, artifact.item_domains) if ranking.domains == "event" else None
        self._row_start = (np.arange(BLOCK, dtype=np.int64) * serving.width)[:, None]

    def catalog_changed(self, catalog: Catalog, keys: U64) -> None:
        """To be called by whoever reads the catalogue: it has changed, or removed, items of these keys u64[any]."""
        self.availability.update(catalog, keys)
        if self.domains is not None:
            self.domains.update(catalog, keys)

    def rank(self, requests: Sequence[Request]) -> list[UserList]:
        """The lists of all requests, in their order."""
        lists: list[UserList] = []
        rows = self._scorer.ROWS
        for start in range(0, len(requests), rows):
            lists.extend(self._rank_block(self.read(requests[start : start + rows])))
        return lists

    def read(self, requests: Sequence[Request]) -> Block:
        """Requests as arrays."""
        return Block(requests, self._index, self._state)

    def scores(
        self, requests: Sequence[Request], hidden: Sequence[I64], scorer: LogLinear | LearntBlend | None = None
    ) -> F32:
        """f32[requests, n]: the scores by which lists are made, of all items; for evaluation.

        hidden: for each request the tokens i64[any] that a list may not hold. They get -inf, before the candidates of
        a large catalogue are chosen; nothing else is left out, whatever `ranking.exclude` says. scorer: another than
        the artifact's own, over the same candidates.
        """
        scorer = scorer or self._scorer
        found = np.empty((len(requests), self._index.n), np.float32)
        rows = scorer.ROWS
        for start in range(0, len(requests), rows):
            block = self.read(requests[start : start + rows])
            own = hidden[start : start + rows]
            into = found[start : start + block.rows]
            for part, values in zip(block.tiles, scorer.score(block, own).tiles, strict=True):
                into[part] = values[:, : block.n]
            if not block.known.all():
                points = self._explainer.interests(block).points
                for row in np.flatnonzero(~block.known).tolist():
                    boost = self._explainer.category_boost(points, row)
                    into[row] = self._fallback.scores(block.requests[row].popular, boost)
            for row, tokens in enumerate(own):
                into[row, tokens] = -np.inf
        return found

    def _rank_block(self, block: Block) -> list[UserList]:
        scores = self._scorer.score(block)
        left_out = excluded(block, self._settings.exclude)
        outside = self.domains.outside(block) if self.domains is not None else {}
        best, best_scores, found = self._best(block, scores, left_out, outside)
        interests = self._explainer.interests(block)
        reasons = self._explainer.reasons(block, best, scores, found, interests)
        # Rounded, because 9.3183 says what 9.318347930908203 says in a third of the bytes.
        shown_scores = best_scores.astype(np.float64).round(4).reshape(-1).tolist()
        parts: list[list[float]] | None = None
        if self._settings.parts:
            made_of = self._scorer.parts(block, best, best_scores, scores, found)
            parts = shown_parts(made_of.reshape(-1, len(PARTS)))
        items = self._items(best.reshape(-1), shown_scores, reasons, parts)
        lists = self._lists(block, items, interests)
        for row in np.flatnonzero(best[:, -1] == block.n).tolist():  # short lists
            lists[row].items = [item for item in lists[row].items if item.score > -np.inf]
        # Nothing that the model knows is known of the user, or all that there is was left out.
        unranked = ~block.known | (best[:, 0] == block.n)
        for row in np.flatnonzero(unranked).tolist():
            lists[row].strategy = "popular"
            hidden = [tokens[row] for tokens in left_out]
            request = block.requests[row]
            barred = self.availability.with_barred(outside.get(row), request.event.time_ms)
            lists[row].items = self._popular_items(request.popular, interests, row, hidden, barred)
            lists[row].parts = POPULAR_PARTS if self._settings.parts else ()
        return lists

    def _best(
        self, block: Block, scores: Scores, left_out: list[I64], outside: dict[int, Bools]
    ) -> tuple[I64, F32, list[Hits]]:
        """Tokens i64[B, L] and scores f32[B, L] of the lists, best first, and what points to their items, by kind."""
        personal = self._settings.exclude != "seen"
        best = np.empty((block.rows, self._top.size), np.int64)  # B L
        best_scores = np.empty(best.shape, np.float32)  # B L
        found = []
        for tile, (rows, values) in enumerate(zip(block.tiles, scores.tiles, strict=True)):
            self.availability.leave_out(values, block.event_time_ms[rows])
            for tokens in left_out:
                values.reshape(-1)[self._row_start[: len(values)] + tokens[rows]] = -np.inf
            for row, others in outside.items():
                if rows.start <= row < rows.stop:
                    values[row - rows.start, : block.n][others] = -np.inf
            best[rows], best_scores[rows] = own, own_scores = self._top.pick(values)
            found.append(self._explainer.find(block, tile, values, own, own_scores[:, -1], scores, personal=personal))
        return best, best_scores, Hits.of_block(found)

    def _lists(self, block: Block, items: list[RankedItem], interests: Interests) -> list[UserList]:
        size, parts = self._top.size, PARTS if self._settings.parts else ()
        return [
            UserList(
                request.user,
                request.event.offset,
                request.event,
                request.state.events_applied,
                "hybrid",
                items[start : start + size],
                shown,
                parts,
            )
            for request, start, shown in zip(block.requests, range(0, len(items), size), interests.shown, strict=True)
        ]

    def _popular_items(
        self, popular: Popular, interests: Interests, row: int, hidden: list[I64], outside: Bools | None
    ) -> list[RankedItem]:
        boost = self._explainer.category_boost(interests.points, row)
        tokens, shares = self._fallback.list_of(popular, boost, hidden, outside)
        reasons = self._explainer.reasons_of_popular(tokens, interests.explains[row])
        parts = None
        if self._settings.parts:  # the scores are shares of all events: as many digits as they have
            parts = shown_parts(self._fallback.parts(popular, boost, tokens), digits=6)
        return self._items(np.array(tokens, np.int64), shares, reasons, parts)

    def _items(
        self, tokens: I64, scores: list[float], reasons: list[list[Reason]], parts: list[list[float]] | None
    ) -> list[RankedItem]:
        """Items of one or more whole lists, one after the other. Token n gives an item of no name."""
        ranks = cycle(range(1, self._top.size + 1))
        columns = [self._item_ids.take(tokens).tolist(), ranks, scores, reasons]
        return list(map(RankedItem, *columns, *([] if parts is None else [parts])))
