"""Items of a list with the reason each is on it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from model.artifact import Artifact
from model.ranking.block import Block
from model.ranking.candidates import Fired, Scores
from model.ranking.lists import Interest, Reason
from model.ranking.reasons import BOUGHT, FOR_YOU, POPULAR, ReasonCodes
from model.serving import BLOCK
from state.names import name_and_kind
from state.points import TRENDS, Points, PointSettings, interest_points
from state.settings import CATEGORY, StateSettings
from state.weights import PURCHASE
from state.window import interest_key

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]


INTERESTS = 5
"""Interests shown with a list."""

_INTEREST_SHARE = 0.1
"""A category with at least this share of a user's interest explains an item."""


class Interests(NamedTuple):
    """The categories of a block's users."""

    shown: list[list[Interest]]
    """For each request its strongest, at most INTERESTS."""
    explains: npt.NDArray[np.bool_]
    """bool[B, number of categories]: strong enough to explain an item."""
    points: Points
    """All of them, by key."""


class Hits(NamedTuple):
    """Things that point to items on the lists of a block: rules, or counted items."""

    at: I64
    """Which: an index into the flat arrays of what points, [P, R] or [B, C]."""
    slot: I64
    """To which place: an index into the flat lists [B, L]."""

    @classmethod
    def of_block(cls, tiles: Sequence[Sequence["Hits"]]) -> list["Hits"]:
        """Those of a block's tiles together, kind by kind."""
        return [cls(*map(np.concatenate, zip(*kind, strict=True))) for kind in zip(*tiles, strict=True)]


_POINTS = PointSettings()
_NO_HITS = Hits(np.empty(0, np.int64), np.empty(0, np.int64))


class Explainer:
    """Finds the reasons of the items on a block's lists.

    Letters in shapes: B rows of a block, T of a tile, L items a list, N the padded width of a row, K categories of a
    state, C items counted by a state.
    """

    def __init__(self, artifact: Artifact, state: StateSettings, width: int) -> None:
        self._artifact = artifact
        self._settings = state
        self._width = width
        n = len(artifact.item_ids)
        self._n = n
        self._named_kinds = state.interests != (CATEGORY,)
        names = sorted(set(artifact.item_categories) - {""})
        self._category_code = {interest_key(name): code for code, name in enumerate(names)}
        self._no_category = none = len(names)
        codes = [self._category_code[interest_key(name)] if name else none for name in artifact.item_categories]
        self._item_category = np.array([*codes, none], np.int64)
        """i64[n + 1]: category of each item, the last code where it has none."""
        self._codes = ReasonCodes(artifact, names)
        self._slot = np.zeros(BLOCK * width, np.uint16)  # all zero between calls
        self._row_start = np.arange(BLOCK, dtype=np.int64)[:, None] * width  # 64 1
        self._no_item = self._row_start + n
        self._numbers = np.arange(1, BLOCK * 1000 + 1, dtype=np.uint16)

    # --- interests

    def interests(self, block: Block) -> Interests:
        """The interest points of each user at the user's newest event."""
        states = [request.state for request in block.requests]
        at_s = np.array([state.last_time_ms // 1000 for state in states], np.int64)
        points = interest_points(self._settings.windowing, [state.windows for state in states], at_s, _POINTS)
        top = np.flatnonzero(points.place < INTERESTS)
        found = zip(
            points.user[top].tolist(),
            points.key[top].tolist(),
            points.weight[top].tolist(),
            points.share[top].tolist(),
            points.trend[top].tolist(),
            points.first_s[top].tolist(),
            points.last_s[top].tolist(),
            strict=True,
        )
        shown: list[list[Interest]] = [[] for _ in states]
        kinds = len(self._settings.interests)
        for row, key, weight, share, trend, first_s, last_s in found:
            name, kind = block.requests[row].names.get(key), ""
            if name is not None:
                if self._named_kinds:
                    name, kind = name_and_kind(name)
                shown[row].append(Interest(name, weight, round(share, 4), TRENDS[trend + 1], first_s, last_s, kind))

        # An item makes an interest of each kind: where there are several, each has less of the whole.
        strong = np.flatnonzero(points.share >= _INTEREST_SHARE / kinds)
        none = self._no_category
        codes = np.array([self._category_code.get(key, none) for key in points.key[strong].tolist()], np.int64)
        explains = np.zeros((block.rows, none + 1), np.bool_)
        explains[points.user[strong], codes] = True
        explains[:, none] = False
        return Interests(shown, explains, points)

    def category_boost(self, points: Points, row: int) -> F32:
        """f32[n]: the share of the row's interest that is in the item's category, of its INTERESTS strongest.

        By key and not by the name shown, which may be cut, or missing in a full vocabulary (state.names).
        """
        begin, end = np.searchsorted(points.user, (row, row + 1)).tolist()
        strongest = slice(begin, min(end, begin + INTERESTS))
        share = np.zeros(self._no_category + 1, np.float32)
        for key, part in zip(points.key[strongest].tolist(), points.share[strongest].tolist(), strict=True):
            share[self._category_code.get(key, self._no_category)] = part
        share[self._no_category] = 0.0
        boost: F32 = share[self._item_category[: self._n]]
        return boost

    # --- reasons

    def find(
        self, block: Block, tile: int, values: F32, tokens: I64, lowest: F32, scores: Scores, *, personal: bool
    ) -> list[Hits]:
        """What points to the items on a tile's lists: sequence rules, basket rules, the user's own counted items.

        values: f32[T, N], the scores that chose the tokens i64[T, L] (n: no item). lowest: f32[T], each list's
        last score, -inf if it is short. `personal`: items the user knows may be on the lists.
        """
        # Which place of all the tile's lists an item has, plus one: written for the lists' items, zero elsewhere.
        # 64 lists of at most 1000 items: it fits 16 bits.
        row_start, no_item = self._row_start[: len(tokens)], self._no_item[: len(tokens)]
        places = row_start + tokens  # T L
        self._slot[places] = self._numbers[: tokens.size].reshape(tokens.shape)
        self._slot[no_item] = 0
        flat, rows = values.reshape(-1), block.tiles[tile]
        first_slot = rows.start * tokens.shape[1]
        found = []
        for fired in (scores.rules, scores.basket):
            if fired is None:
                found.append(_NO_HITS)
                continue
            part = fired.tiles[tile]
            of_row = lowest.take(fired.last.rows[part] - rows.start)  # P
            found.append(self._hits(fired.places[part], flat, of_row, part.start, first_slot))
        if personal:
            counted = row_start + block.count_tokens[rows]  # T C
            found.append(self._hits(counted, flat, lowest, rows.start, first_slot))
        else:
            found.append(_NO_HITS)
        self._slot[places] = 0
        return found

    def _hits(self, places: I64, flat: F32, lowest: F32, first_row: int, first_slot: int) -> Hits:
        """Those of places i64[Q, any] that are on the lists; lowest: f32[Q]."""
        # An item on a list scores no less than its last; of the others hardly any has to be looked up.
        at = np.flatnonzero(flat.take(places) >= lowest[:, None])
        slot = self._slot.take(places.reshape(-1).take(at))
        listed = np.flatnonzero(slot)
        return Hits(at.take(listed) + first_row * places.shape[1], slot.take(listed) + np.int64(first_slot - 1))

    def reasons(
        self,
        block: Block,
        tokens: I64,
        scores: Scores,
        found: Sequence[Hits],
        interests: Interests,
    ) -> list[list[Reason]]:
        """The reasons of each of tokens i64[B, L] (n: no item), row after row. found: by `find`, of the block.

        The first that holds: bought before; the stronger of a sequence rule and a basket rule; an interest in its
        category; popularity; else the network alone.
        """
        # From the weakest reason to the strongest, each writing over the weaker ones.
        is_popular = np.stack([popular.is_popular for popular in block.popular])  # any n+1
        codes = np.where(is_popular[block.popular_of[:, None], tokens], POPULAR, FOR_YOU)  # B L
        category = self._item_category.take(tokens)  # B L
        held = np.take_along_axis(interests.explains, category, axis=1)  # B L
        flat = np.where(held, self._codes.interest_in(category), codes).reshape(-1)
        rules, basket, counted = found
        strongest = np.zeros(flat.shape, np.float32)
        if scores.rules is not None:
            self._because(flat, strongest, scores.rules, rules, by_type=True)
        if scores.basket is not None:
            self._because(flat, strongest, scores.basket, basket, by_type=False)
        if len(counted.at):
            self._itself(flat, block, counted)
        return self._codes.lists(flat)

    def reasons_of_popular(self, tokens: list[int], explains: npt.NDArray[np.bool_]) -> list[list[Reason]]:
        """Reasons on a popular list: the interest that raised an item, or its popularity.

        explains: bool[number of categories], of the user.
        """
        categories = self._item_category[tokens]
        return self._codes.lists(np.where(explains[categories], self._codes.interest_in(categories), POPULAR))

    def _because(self, codes: I64, strongest: F32, fired: Fired, hits: Hits, *, by_type: bool) -> None:
        """Write the source of the strongest rule that points to each item, if it beats `strongest`.

        `by_type`: as "because of" the type of event on the source, else as "often together".
        """
        share = fired.shares.reshape(-1).take(hits.at)
        best = np.zeros_like(strongest)
        np.maximum.at(best, hits.slot, share)
        wins = np.flatnonzero((share == best.take(hits.slot)) & (share > strongest.take(hits.slot)))
        # Of equal shares the newest source: backwards, so that it is written last and stays.
        wins = wins[::-1]
        source = hits.at.take(wins) // fired.places.shape[1]
        about, types = fired.last.tokens.take(source), fired.last.types.take(source)
        np.maximum(strongest, best, out=strongest)
        reason = self._codes.because_of(about, types) if by_type else self._codes.often_together(about)
        codes[hits.slot.take(wins)] = reason

    def _itself(self, codes: I64, block: Block, hits: Hits) -> None:
        """Write "bought before", or what else the user did to the item, for items of a positive count."""
        liked = np.flatnonzero(block.counts.reshape(-1).take(hits.at) > 0.0)
        at, slot = hits.at.take(liked), hits.slot.take(liked)
        types = block.count_types.reshape(-1).take(at)
        about_itself = self._codes.because_of(block.count_tokens.reshape(-1).take(at), types)
        codes[slot] = np.where(types == PURCHASE, BOUGHT, about_itself)
