"""Which items a list leaves out: those of the user's own past, and those that may not be recommended now."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from model.errors import ArtifactError
from model.ranking.block import Block
from model.ranking.index import ItemIndex
from model.ranking.settings import Exclude
from state.catalog import NEVER_MS, Catalog
from state.keys import key_of

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
F32 = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


class Domains:
    """Which items are of which domain, for lists that are limited to one.

    What the catalogue says of an item counts; where it says nothing, what the model learnt from the log.

    Args:
        index: the model's n items.
        item_domains: of each item as the model knows it, '' for none; or empty.
    """

    def __init__(self, index: ItemIndex, item_domains: Sequence[str]) -> None:
        self._index = index
        names = item_domains or [""] * index.n
        self._learnt: U64 = np.array([key_of(name) if name else 0 for name in names], np.uint64)  # n
        self._keys = self._learnt.copy()
        """u64[n]: `key_of` each item's domain; 0: not known."""

    def check(self) -> None:
        """Raises ArtifactError when the domain of no item is known: every list of a domain would be empty."""
        if not self._keys.any():
            raise ArtifactError(
                "ranking.domains is 'event', but neither the model nor the catalogue knows the domain of an item: send "
                "items with their domain (driftline produce --items), train the model on events that name it, or set "
                "ranking.domains to 'all'."
            )

    def update(self, catalog: Catalog, keys: U64) -> None:
        """The catalogue has changed, or removed, items of these keys u64[any]."""
        tokens = self._index.tokens(keys)
        known = tokens < self._index.n
        tokens = tokens[known]
        told = catalog.domains(catalog.rows(keys[known]))
        self._keys[tokens] = np.where(told != 0, told, self._learnt[tokens])

    def outside(self, block: Block) -> dict[int, Bools]:
        """For each row of the block whose event names a domain: bool[n], the items that are not of it.

        All items are outside a domain that no item is known to be of.
        """
        named = {row: request.event.domain for row, request in enumerate(block.requests) if request.event.domain}
        # An array for each domain and not for each row: a block has a thousand rows.
        outside = {domain: self._keys != domain for domain in set(named.values())}
        return {row: outside[domain] for row, domain in named.items()}


def excluded(block: Block, exclude: Exclude) -> list[I64]:
    """Arrays of tokens i64[B, any], whose items are left out of the row's list; a token of n leaves nothing out.

    "seen" leaves out all that the state remembers, "session" the running session's items. An item whose decayed
    count is below zero (hidden, disliked) is left out in any case.
    """
    n = block.n
    if exclude == "seen":
        return [block.seen_tokens]
    left_out = block.counts < 0.0
    if exclude == "session":
        left_out |= block.counted_in_session
        return [
            np.where(block.in_session, block.recent_tokens, n),
            np.where(left_out, block.count_tokens, n),
        ]
    return [np.where(left_out, block.count_tokens, n)]


class Availability:
    """Which of the model's items may be recommended, and until when, as the catalogue says.

    An item of which the catalogue never said anything may be; one that it held and lost (a tombstone) may not. An
    expiry is held against the time of the user's event, not against a clock: a replay judges as the live run did.

    Letters in shapes: n items, T rows of a tile, N the padded width of a row.

    Args:
        index: the model's items.
        width: N.
        listed_only: whether items that the catalogue does not hold are left out, too.
    """

    def __init__(self, index: ItemIndex, width: int, *, listed_only: bool = False) -> None:
        self._index = index
        self._available = np.full(index.n, not listed_only, np.bool_)  # n
        self._expires_at_ms = np.full(index.n, NEVER_MS, np.int64)  # n
        # What follows from these two is made by _refresh.
        self._limited = False
        self._gone: I64 = np.empty(0, np.int64)
        """i64[any]: tokens that may not be recommended at any time."""
        self._expiring: I64 = self._gone
        self._expiry_ms: I64 = self._gone
        """i64[any]: tokens of the others that expire, the soonest first; and when, epoch ms."""
        self._penalty: F32 = np.zeros(width, np.float32)
        """f32[N]: -inf for items that no row of the tile may have, 0 for the others."""
        self._penalized = 0
        """So many of the expiring items have the penalty, too."""
        self._refresh()

    def update(self, catalog: Catalog, keys: U64) -> None:
        """The catalogue has changed, or removed, items of these keys u64[any].

        To be called for many at once: it sorts all items that expire.
        """
        tokens = self._index.tokens(keys)
        known = tokens < self._index.n
        if not known.any():
            return
        tokens, rows = tokens[known], catalog.rows(keys[known])
        self._available[tokens] = catalog.available(rows) & (rows > 0)
        self._expires_at_ms[tokens] = catalog.expires_at_ms(rows)
        self._refresh()

    def leave_out(self, scores: F32, at_ms: I64) -> None:
        """Set the scores f32[T, N] of items that may not be recommended to -inf. at_ms: i64[T], times of the events."""
        if not self._limited:
            return
        times = self._expiry_ms
        # Expired for all rows, and for some: the times of a chunk are close to each other.
        for_all, for_some = np.searchsorted(times, (at_ms.min(), at_ms.max()), side="right").tolist()
        if for_all != self._penalized:
            self._penalty[self._expiring[self._penalized : for_all]] = -np.inf
            self._penalty[self._expiring[for_all : self._penalized]] = 0.0
            self._penalized = for_all
        if len(self._gone) or for_all:
            scores += self._penalty
        if for_some > for_all:
            tokens = self._expiring[for_all:for_some]  # E
            part = scores[:, tokens]  # T E
            part[times[for_all:for_some] <= at_ms[:, None]] = -np.inf
            scores[:, tokens] = part

    def with_barred(self, outside: Bools | None, at_ms: int) -> Bools | None:
        """bool[n]: those of `outside`, and the items that may not be recommended at a time; None: there are none."""
        if not self._limited:
            return outside
        barred: Bools = ~self._available | (self._expires_at_ms <= at_ms)
        return barred if outside is None else barred | outside

    def _refresh(self) -> None:
        self._gone = np.flatnonzero(~self._available)
        expiring = np.flatnonzero(self._available & (self._expires_at_ms != NEVER_MS))
        self._expiring = expiring[np.argsort(self._expires_at_ms[expiring], kind="stable")]
        self._expiry_ms = self._expires_at_ms[self._expiring]
        self._penalty[:] = 0.0
        self._penalty[self._gone] = -np.inf
        self._penalized = 0
        self._limited = bool(len(self._gone) or len(self._expiring))
