"""The packed lists of up to 64 users as arrays of fixed shape, read once for all of ranking."""

from collections.abc import Sequence
from functools import cached_property

import msgspec
import numpy as np
import numpy.typing as npt

from model.ranking.index import ItemIndex
from model.serving import BLOCK
from state.interaction import Interaction
from state.interest import COUNT, COUNT_DTYPE, KEY_BYTES, RECENT, RECENT_DTYPE, InterestState
from state.settings import StateSettings
from state.weights import NEGATIVE_TYPES

I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

_POSITIVE = np.array([code not in NEGATIVE_TYPES for code in range(256)])


class Request(msgspec.Struct, gc=False):
    """A list to make: for a user, as the state was after an event. Nothing writes to `state` any more."""

    user: bytes
    event: Interaction
    state: InterestState


class Block:
    """Arrays over the rows of a block: row i is request i, rows beyond the requests are empty.

    Letters in shapes: B = 64 rows, H recent items kept, C counted items kept, J last items asked for, n items.
    A token of n means "none, or an item that the model does not know".
    """

    def __init__(self, requests: Sequence[Request], index: ItemIndex, settings: StateSettings) -> None:
        states = [request.state for request in requests]
        self.requests = requests
        self.rows = len(states)
        self._settings = settings
        self.n = index.n
        empty_rows = BLOCK - self.rows

        size = RECENT.size * settings.recent_items
        packed = [state.recent[-size:].rjust(size, b"\0") for state in states]
        packed.append(bytes(size * empty_rows))
        recent = np.frombuffer(b"".join(packed), RECENT_DTYPE).reshape(BLOCK, settings.recent_items)
        self.recent_tokens: I64 = index.tokens(recent["key"])
        """i64[B, H], the newest last."""
        self.recent_types: U8 = recent["type"]
        """u8[B, H]."""
        self.session_length: I64 = self._column([state.session_length for state in states])
        """i64[B, 1]: so many of the newest recent items belong to the running session."""
        self.in_session: Bools = np.arange(settings.recent_items, 0, -1) <= self.session_length
        """bool[B, H]."""

        c = settings.max_counted_items
        size = KEY_BYTES * c
        packed = [state.count_keys[:size].ljust(size, b"\0") for state in states]
        packed.append(bytes(size * empty_rows))
        keys = np.frombuffer(b"".join(packed), "<u8").reshape(BLOCK, c)
        self.count_tokens: I64 = index.tokens(keys)
        """i64[B, C]."""
        known = self.recent_tokens < self.n
        self._speaks = known & _POSITIVE[self.recent_types]
        self.known: Bools = np.logical_or(known.any(axis=1), (self.count_tokens < self.n).any(axis=1))
        """bool[B]: at least one item of the user's is one of the model's."""

    # What not every way of ranking reads is computed when it is first asked for.

    @cached_property
    def _count_values(self) -> npt.NDArray[np.void]:
        """COUNT_DTYPE[B, C]."""
        c = self._settings.max_counted_items
        size = COUNT.size * c
        packed = [request.state.count_values[:size].ljust(size, b"\0") for request in self.requests]
        packed.append(bytes(size * (BLOCK - self.rows)))
        return np.frombuffer(b"".join(packed), COUNT_DTYPE).reshape(BLOCK, c)

    @cached_property
    def _now_s(self) -> I64:
        return self._column([request.state.last_time_ms // 1000 for request in self.requests])

    @cached_property
    def counts(self) -> F32:
        """f32[B, C]: decayed counts at the time of the user's newest event."""
        ref_s = self._column([request.state.count_ref_s for request in self.requests])
        shrink = np.exp2((ref_s - self._now_s) / self._settings.count_half_life_s)  # B 1
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
        column = np.zeros((BLOCK, 1), np.int64)
        column[: self.rows, 0] = numbers
        return column

    def last_items(self, j: int, *, of_session: bool) -> tuple[I64, U8]:
        """Tokens i64[B, J] and event types u8[B, J] of the last known items that speak for themselves.

        The newest first, n where there are fewer. `of_session`: only those of the running session.
        """
        speaks = self._speaks & self.in_session if of_session else self._speaks  # B H
        age = speaks[:, ::-1].cumsum(axis=1)[:, ::-1] - 1  # B H: such items that came after it
        row, column = np.nonzero(speaks & (age < j))
        place = age[row, column]
        tokens = np.full((BLOCK, j), self.n, np.int64)
        types = np.zeros((BLOCK, j), np.uint8)
        tokens[row, place] = self.recent_tokens[row, column]
        types[row, place] = self.recent_types[row, column]
        return tokens, types
