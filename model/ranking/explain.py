"""Items of a list with the reason each is on it."""

from functools import lru_cache
from itertools import repeat
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from model.artifact import Artifact
from model.ranking.block import Block
from model.ranking.candidates import Fired
from model.ranking.fallback import Popular
from model.ranking.lists import Interest, Reason
from model.serving import BLOCK
from state.interest import category_name
from state.settings import StateSettings
from state.weights import EVENT_TYPES, PURCHASE

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]


INTERESTS = 5
"""Categories shown with a list."""

_INTEREST_SHARE = 0.1
"""A category with at least this share of a user's interest explains an item."""

# A reason as one number: its kind in the high bits, what it is about below. Equal numbers, one shared object.
_FOR_YOU, _POPULAR, _BOUGHT, _INTEREST, _TOGETHER, _BECAUSE = range(6)
_KIND_SHIFT = 40
_TYPES = 256


class Interests(NamedTuple):
    """The categories of a block's users."""

    shown: list[list[Interest]]
    """For each request its strongest, at most INTERESTS."""
    explains: npt.NDArray[np.bool_]
    """bool[B, number of categories]: strong enough to explain an item."""


class Explainer:
    """Finds the reasons of the items on a block's lists.

    Letters in shapes: B = 64 rows, L items a list, N the padded width of a row.
    """

    def __init__(self, artifact: Artifact, state: StateSettings, width: int) -> None:
        self._artifact = artifact
        self._settings = state
        self._width = width
        n = len(artifact.item_ids)
        self._n = n
        # Categories as states keep them: cut, so that a long name still finds itself.
        names = [category_name(category) for category in artifact.item_categories]
        distinct = sorted(set(names) - {""})
        self._category_code = {name: code for code, name in enumerate(distinct)}
        self._categories = {
            self._category_code[name]: category
            for name, category in zip(names, artifact.item_categories, strict=True)
            if name
        }
        self._no_category = none = len(distinct)
        self._item_category = np.array([*(self._category_code.get(name, none) for name in names), none], np.int64)
        """i64[n + 1]: category of each item, the last code where it has none."""
        self._reasons = _ReasonLists(artifact, self._categories)
        self._slot = np.zeros(BLOCK * width, np.uint16)  # all zero between calls
        self._row_start = (np.arange(BLOCK, dtype=np.int64) * width)[:, None]

    # --- interests

    def interests(self, block: Block) -> Interests:
        """The strongest categories of each user, decayed to the user's newest event."""
        s = self._settings
        explains = np.zeros((BLOCK, self._no_category + 1), np.bool_)
        size = 4 * s.max_categories
        packed = [request.state.category_amounts[:size].ljust(size, b"\0") for request in block.requests]
        amounts = np.frombuffer(b"".join(packed), "<f4").reshape(block.rows, s.max_categories)
        positive = np.maximum(amounts, np.float32(0.0)) + np.float32(0.0)  # no negative zero
        # The largest first, equal ones by column, as one integer sort: bits of floats from 0 up are in order.
        columns = s.max_categories
        sortable = (positive.view(np.int32).astype(np.int64) << 16) + np.arange(columns, 0, -1)
        sortable.sort(axis=1)
        order = columns - (sortable[:, : -INTERESTS - 1 : -1] & 0xFFFF)
        whole = positive.astype(np.float64).sum(axis=1, keepdims=True)
        best = np.take_along_axis(positive, order, axis=1).astype(np.float64)
        shares = best / np.where(whole > 0.0, whole, 1.0)
        age_s = [request.state.category_ref_s - request.state.last_time_ms / 1000 for request in block.requests]
        shrink = np.exp2(np.array(age_s) / s.category_half_life_s)[:, None]
        weights = best * shrink
        kept = best > 0.0  # rows INTERESTS
        lengths = kept.sum(axis=1).tolist()
        names = [
            names_of_row[column]
            for request, columns, length in zip(block.requests, order.tolist(), lengths, strict=True)
            for names_of_row in (_names(request.state.category_names),)
            for column in columns[:length]
        ]
        # All at once: a Python loop over five categories of each user would cost as much as the ranking.
        codes = np.array(list(map(self._category_code.get, names, repeat(self._no_category))), np.int64)
        row, _ = np.nonzero(kept)
        strong = (shares[kept] >= _INTEREST_SHARE) & (codes != self._no_category)
        explains[row[strong], codes[strong]] = True
        interests = list(map(Interest, names, weights[kept].tolist(), shares[kept].tolist()))
        shown = []
        start = 0
        for length in lengths:
            shown.append(interests[start : start + length])
            start += length
        return Interests(shown, explains)

    def category_boost(self, interests: list[Interest]) -> F32:
        """f32[n]: the share of a user's interest that is in the item's category."""
        share = np.zeros(self._no_category + 1, np.float32)
        for interest in interests:
            code = self._category_code.get(interest.name)
            if code is not None:
                share[code] = interest.share
        boost: F32 = share[self._item_category[: self._n]]
        return boost

    # --- reasons

    def reasons(
        self,
        block: Block,
        tokens: I64,
        rules: Fired | None,
        basket: Fired | None,
        interests: Interests,
        popular: Popular,
        *,
        personal: bool,
    ) -> list[list[Reason]]:
        """The reasons of each of tokens i64[B, L] (n: no item), row after row.

        The first that holds: bought before; the stronger of a sequence rule and a basket rule; an interest in its
        category; popularity; else the network alone. `personal`: items the user knows may be on the lists.
        """
        n = self._n
        # From the weakest reason to the strongest, each writing over the weaker ones.
        codes = np.where(popular.is_popular[tokens], _POPULAR << _KIND_SHIFT, _FOR_YOU << _KIND_SHIFT)
        category = self._item_category[tokens]  # B L
        held = np.take_along_axis(interests.explains, category, axis=1)
        codes = np.where(held, (_INTEREST << _KIND_SHIFT) + category, codes)

        # Which place of all lists an item has, plus one: written for the lists' items, zero elsewhere. 64 lists of
        # at most 1000 items: it fits 16 bits.
        places = self._row_start + tokens
        self._slot[places] = np.arange(1, BLOCK * tokens.shape[1] + 1).reshape(tokens.shape)
        self._slot[self._row_start + n] = 0
        flat = codes.reshape(-1)
        strongest = np.zeros(flat.shape, np.float32)
        if rules is not None:
            self._because(flat, strongest, rules, _BECAUSE)
        if basket is not None:
            self._because(flat, strongest, basket, _TOGETHER)
        if personal:
            slots = self._slot[self._row_start + block.count_tokens]  # B C
            row, column = np.nonzero((slots > 0) & (block.counts > 0.0))
            kind = block.count_types[row, column].astype(np.int64)
            about_itself = (_BECAUSE << _KIND_SHIFT) + block.count_tokens[row, column] * _TYPES + kind
            flat[slots[row, column].astype(np.int64) - 1] = np.where(
                kind == PURCHASE, _BOUGHT << _KIND_SHIFT, about_itself
            )
        self._slot[places] = 0
        return list(map(self._reasons.__getitem__, codes[: block.rows].reshape(-1).tolist()))

    def reasons_of_popular(self, tokens: list[int], explains: npt.NDArray[np.bool_]) -> list[list[Reason]]:
        """Reasons on a popular list: the interest that raised an item, or its popularity.

        explains: bool[number of categories], of the user.
        """
        categories = self._item_category[tokens].tolist()
        return [
            self._reasons[(_INTEREST << _KIND_SHIFT) + code if explains[code] else _POPULAR << _KIND_SHIFT]
            for code in categories
        ]

    def _because(self, codes: I64, strongest: F32, fired: Fired, kind: int) -> None:
        """Write the source of the strongest rule that points to each item, if it beats `strongest`."""
        slots = self._slot.take(fired.places.reshape(-1))  # B*J*R
        hit = np.flatnonzero(slots != 0)
        slot = slots[hit].astype(np.int64) - 1
        share = fired.shares.reshape(-1)[hit]
        best = np.zeros_like(strongest)
        np.maximum.at(best, slot, share)
        wins = (share == best[slot]) & (share > strongest[slot])
        # Of equal shares the newest source: backwards, so that it is written last and stays.
        slot, source = slot[wins][::-1], (hit[wins] // fired.places.shape[2])[::-1]  # source: row * J + age
        about = fired.sources.reshape(-1)[source] * _TYPES
        if kind == _BECAUSE:
            about += fired.types.reshape(-1)[source]
        np.maximum(strongest, best, out=strongest)
        codes[slot] = (kind << _KIND_SHIFT) + about


class _ReasonLists(dict[int, list[Reason]]):
    """The reasons for a code, made at first use: there are few, and lists are many."""

    def __init__(self, artifact: Artifact, categories: dict[int, str]) -> None:
        super().__init__()
        self._artifact = artifact
        self._categories = categories

    def __missing__(self, code: int) -> list[Reason]:
        reasons = self[code] = [self._make(code)]
        return reasons

    def _make(self, code: int) -> Reason:
        kind, about = code >> _KIND_SHIFT, code & ((1 << _KIND_SHIFT) - 1)
        if kind == _FOR_YOU:
            return Reason("for_you")
        if kind == _POPULAR:
            return Reason("popular")
        if kind == _BOUGHT:
            return Reason("bought_before")
        if kind == _INTEREST:
            return Reason("interest_in", category=self._categories[about])
        token, type_code = divmod(about, _TYPES)
        item_id, item_name = self._artifact.item_ids[token], self._artifact.item_names[token]
        if kind == _TOGETHER:
            return Reason("often_together", item_id=item_id, item_name=item_name)
        event_type = EVENT_TYPES[type_code] if type_code < len(EVENT_TYPES) else None
        return Reason("because_of", item_id=item_id, item_name=item_name, event_type=event_type)


@lru_cache(maxsize=65_536)
def _names(packed: bytes) -> list[str]:
    return packed[1:-1].decode("utf-8", "replace").split("\n")
