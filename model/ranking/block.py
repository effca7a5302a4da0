"""The packed lists of some hundred users as arrays of fixed shape, read once for all of ranking.

A numpy call costs some microseconds however little it does, so that blocks are large. Scores of all items are the
exception: they are made for a tile of 64 users at a time, as many as stay in the processor's cache.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from model.ranking.fallback import Popular
from model.ranking.index import ItemIndex
from model.serving import BLOCK
from state.interaction import Interaction
from state.interest import COUNT, COUNT_DTYPE, KEY_BYTES, RECENT, RECENT_DTYPE, InterestState
from state.settings import StateSettings
from state.weights import NEGATIVE_TYPES

I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

_POSITIVE = np.array([code not in NEGATIVE_TYPES for code in range(256)])


class Request(msgspec.Struct, gc=False):
    """A list to make: for a user, as the state was after an event. Nothing writes to `state` any more."""

    user: bytes
    event: Interaction
    state: InterestState
    popular: Popular
    """What was popular in the user's partition at the event."""
    names: Mapping[int, str]
    """Names of interests by key, as the partition knows them."""


class LastItems(NamedTuple):
    """The last items of a block's users, P in all: row after row, the newest of a row first.

    Not an array of J a row: most users are new and have few, and what is not there costs no time.
    """

    rows: I64
    """i64[P]: row in the block."""
    ages: I64
    """i64[P]: how many of the row's come after it, 0 .. J-1."""
    tokens: I64
    """i64[P]"""
    types: U8
    """u8[P]: type of the event on it."""


class Block:
    """Arrays over the rows of a block: row i is request i.

    Letters in shapes: B rows, H recent items kept, C counted items kept, n items,
    P last items of all rows.
    A token of n means "none, or an item that the model does not know".
    """

    def __init__(self, requests: Sequence[Request], index: ItemIndex, settings: StateSettings) -> None:
        self.requests = requests
        self.rows = len(requests)
        """B, at least 1."""
        self.tiles = [slice(start, min(start + BLOCK, self.rows)) for start in range(0, self.rows, BLOCK)]
        """The rows of each tile, 64 or, in the last, what is left."""
        self._settings = settings
        self.n = index.n
        h, c = settings.recent_items, settings.max_counted_items

        recent_bytes, keys_bytes = RECENT.size * h, KEY_BYTES * c
        recent = b"".join([r.state.recent[-recent_bytes:].rjust(recent_bytes, b"\0") for r in requests])
        counted = b"".join([r.state.count_keys[:keys_bytes].ljust(keys_bytes, b"\0") for r in requests])
        self._recent = np.frombuffer(recent, RECENT_DTYPE).reshape(self.rows, h)
        keys = np.empty((self.rows, h + c), np.uint64)
        keys[:, :h] = self._recent["key"]
        keys[:, h:] = np.frombuffer(counted, "<u8").reshape(self.rows, c)
        self.seen_tokens: I64 = index.tokens(keys)
        """i64[B, H + C]: recent_tokens, then count_tokens."""
        self.recent_tokens: I64 = self.seen_tokens[:, :h]
        """i64[B, H], the newest last."""
        self.count_tokens: I64 = self.seen_tokens[:, h:]
        """i64[B, C]."""
        self._known: Bools = np.less(self.seen_tokens, self.n)  # B H+C
        self.known: Bools = np.logical_or.reduce(self._known, axis=1)
        """bool[B]: at least one item of the user's is one of the model's."""

        self.popular, self.popular_of = _distinct([request.popular for request in requests])
        """The popularities that the rows are ranked by, and i64[B]: which of them is a row's."""

    # What not every way of ranking reads is computed when it is first asked for.

    @cached_property
    def event_time_ms(self) -> I64:
        """i64[B]: when the event happened that each list is made after, epoch ms."""
        return np.array([request.event.time_ms for request in self.requests], np.int64)

    @cached_property
    def recent_types(self) -> U8:
        """u8[B, H]: event types of the recent items."""
        return np.ascontiguousarray(self._recent["type"])

    @cached_property
    def session_length(self) -> I64:
        """i64[B, 1]: so many of the newest recent items belong to the running session."""
        return self._column([request.state.session_length for request in self.requests])

    @cached_property
    def in_session(self) -> Bools:
        """bool[B, H]: the recent item belongs to the running session."""
        inside: Bools = np.arange(self._settings.recent_items, 0, -1) <= self.session_length
        return inside

    @cached_property
    def _speaks(self) -> Bools:
        """bool[B, H]: a known item, and an event that does not speak against it."""
        speaks: Bools = self._known[:, : self._settings.recent_items] & _POSITIVE.take(self.recent_types)
        return speaks

    @cached_property
    def _count_values(self) -> npt.NDArray[np.void]:
        """COUNT_DTYPE[B, C]."""
        c = self._settings.max_counted_items
        size = COUNT.size * c
        packed = b"".join([request.state.count_values[:size].ljust(size, b"\0") for request in self.requests])
        return np.frombuffer(packed, COUNT_DTYPE).reshape(self.rows, c)

    @cached_property
    def _now_s(self) -> I64:
        return self._column([request.state.last_time_ms // 1000 for request in self.requests])

    @cached_property
    def counts(self) -> F32:
        """f32[B, C]: decayed counts at the time of the user's newest event."""
        ref_s = self._column([request.state.count_ref_s for request in self.requests])
        shrink = np.exp2((ref_s - self._now_s) / self._settings.half_life_of(self.count_types))  # B 1, or B C
        counts: F32 = (self._count_values["amount"] * shrink).astype(np.float32)
        return counts

    @cached_property
    def count_age_s(self) -> I64:
        """i64[B, C]: seconds since the last event on the item, up to the user's newest event."""
        ages: I64 = np.maximum(self._now_s - self._count_values["time_s"].astype(np.int64), 0)
        return ages

    @cached_property
    def count_types(self) -> U8:
        """u8[B, C]: the strongest type of event on the item."""
        types: U8 = self._count_values["type"]
        return types

    @cached_property
    def counted_in_session(self) -> Bools:
        """bool[B, C]: belongs to the running session, though `recent` may have lost it.

        A session longer than the recent list goes on in the counts.
        """
        start_s = self._column([request.state.session_start_ms // 1000 for request in self.requests])
        overflowing = self.session_length >= self._settings.recent_items
        in_session: Bools = overflowing & (self._now_s - self.count_age_s >= start_s)
        return in_session

    def _column(self, numbers: list[int]) -> I64:
        return np.array(numbers, np.int64)[:, None]

    def last_items(self, j: int, *, of_session: bool) -> LastItems:
        """The last j known items of each row that speak for themselves. `of_session`: of the running session only."""
        speaks = self._speaks & self.in_session if of_session else self._speaks  # B H
        newest_first = np.ascontiguousarray(speaks[:, ::-1])  # B H
        ordinal = newest_first.cumsum(axis=1, dtype=np.int16)  # B H: 1 for the newest; H is at most 1000
        place = np.flatnonzero(newest_first & (ordinal <= j))  # P
        h = speaks.shape[1]
        rows = place // h
        column = h - 1 - place % h
        return LastItems(
            rows,
            ordinal.reshape(-1).take(place).astype(np.int64) - 1,
            self.recent_tokens[rows, column],
            self.recent_types[rows, column],
        )


def _distinct(populars: list[Popular]) -> tuple[list[Popular], I64]:
    """The distinct of them, and the index of each."""
    index = {popular: at for at, popular in enumerate(dict.fromkeys(populars))}
    return list(index), np.array([index[popular] for popular in populars], np.int64)
