"""From item keys to tokens, for thousands of keys at once."""

import numpy as np
import numpy.typing as npt

from model.errors import ArtifactError
from state.keys import key_of

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

_KEY_BITS = np.uint64(0x7FFF_FFFF_FFFF_FFFF)
_SLOTS_PER_ITEM = 8


class ItemIndex:
    """Maps item keys to tokens (0 .. n-1); a key that is no item of the model, or no item at all, gives n.

    A hash table with linear probing: keys are hashes already, and their leading bits are the slot where a key
    stands, or from where it is found a few slots on. A look-up is one vectorised comparison, and a few steps for
    the one key in twenty that does not stand in its own slot.
    """

    def __init__(self, item_ids: list[str]) -> None:
        n = len(item_ids)
        keys = np.array([key_of(item_id) for item_id in item_ids], np.uint64)
        order = np.argsort(keys, kind="stable")
        if n > 1 and not np.all(keys[order][1:] > keys[order][:-1]):
            raise ArtifactError("two items of the model have the same id or the same key; rename one and train again.")
        self.n = n
        self.tokens_by_key: dict[int, int] = dict(zip(keys.tolist(), range(n), strict=True))
        """The same mapping for one key at a time."""
        bits = max(8, (_SLOTS_PER_ITEM * n - 1).bit_length())
        self._shift = np.uint64(63 - bits)  # keys have 63 bits
        # In the order of the keys each takes its own slot, or the one behind its forerunner. Slot 0 stays empty: it
        # is that of key 0, "no item", which many states are padded with.
        own = np.maximum((keys[order] >> self._shift).astype(np.int64), 1)  # n
        slot = np.maximum.accumulate(own - np.arange(n)) + np.arange(n)  # n
        slots = max(1 << bits, int(slot[-1]) + 1) + 1  # an empty one at the end: no search runs past it
        self._keys: U64 = np.zeros(slots, np.uint64)
        self._keys[slot] = keys[order]
        self._tokens: I64 = np.full(slots, n, np.int64)
        self._tokens[slot] = order

    def tokens(self, keys: U64) -> I64:
        """Tokens of keys u64[...], as i64 of the same shape."""
        flat = keys.reshape(-1)
        # A corrupt or foreign key may have its top bit set; the mask keeps it within the table.
        slot = ((flat & _KEY_BITS) >> self._shift).view(np.int64)
        searching = np.flatnonzero(self._keys.take(slot) != flat)
        while len(searching):
            slot[searching] += 1
            there = self._keys[slot[searching]]
            # A search ends at its key, or at an empty slot, whose token is n.
            searching = searching[(there != flat[searching]) & (there != 0)]
        return self._tokens.take(slot).reshape(keys.shape)
