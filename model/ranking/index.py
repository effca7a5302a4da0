"""From item keys to tokens, for thousands of keys at once."""

import numpy as np
import numpy.typing as npt

from model.errors import ArtifactError
from state.keys import key_of

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

_KEY_BITS = np.uint64(0x7FFF_FFFF_FFFF_FFFF)


class ItemIndex:
    """Maps item keys to tokens (0 .. n-1); a key that is no item of the model, or no item at all, gives n.

    A sorted array of the keys, with a table from their leading bits to the first key that has them. Keys are
    hashes, so few share their leading bits, and a look-up is one vectorised comparison and a few steps for those;
    a binary search of thousands of keys would cost several times as much.
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
        bits = max(8, (16 * n - 1).bit_length())
        self._shift = np.uint64(63 - bits)  # keys have 63 bits
        start = np.searchsorted(keys[order], np.arange(1 << bits, dtype=np.uint64) << self._shift)
        self._start: I64 = start.astype(np.int64)
        # One more at the end, larger than any key: a search never runs past it.
        self._keys: U64 = np.append(keys[order], np.uint64(np.iinfo(np.uint64).max))
        self._tokens: I64 = np.append(order, n).astype(np.int64)

    def tokens(self, keys: U64) -> I64:
        """Tokens of keys u64[...], as i64 of the same shape."""
        flat = keys.reshape(-1)
        # A corrupt or foreign key may have its top bit set; the mask keeps the table's index in range.
        place = self._start[(flat & _KEY_BITS) >> self._shift]
        there = self._keys[place]
        # The few that stand behind others with the same leading bits: one step at a time.
        behind = np.flatnonzero(there < (flat & _KEY_BITS))
        while len(behind):
            place[behind] += 1
            there[behind] = self._keys[place[behind]]
            behind = behind[there[behind] < (flat[behind] & _KEY_BITS)]
        return np.where(there == flat, self._tokens[place], self.n).reshape(keys.shape)
