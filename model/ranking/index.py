"""From item keys to tokens, for thousands of keys at once."""

import numpy as np
import numpy.typing as npt

from model.errors import ArtifactError
from state.keys import key_of

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]


class ItemIndex:
    """Maps item keys to tokens (0 .. n-1); a key that is no item of the model, or no item at all, gives n.

    A sorted array of the keys, with a table from their leading bits to the first key that has them. Keys are
    hashes, so at most a few share their leading bits, and a look-up is a few vectorised comparisons; a binary
    search of thousands of keys would cost several times as much.
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
        self._probes = int(np.max(np.diff(np.append(start, n)), initial=0))
        # Probes may run past the end: padding that no key equals (a key never has its top bit set).
        padding = np.full(self._probes + 1, np.iinfo(np.uint64).max, np.uint64)
        self._keys: U64 = np.concatenate([keys[order], padding])
        self._tokens: I64 = np.concatenate([order, np.full(self._probes + 1, n)]).astype(np.int64)

    def tokens(self, keys: U64) -> I64:
        """Tokens of keys u64[...], as i64 of the same shape."""
        # A corrupt or foreign key may have its top bit set; the mask keeps the table's index in range.
        place = self._start[(keys & np.uint64(0x7FFF_FFFF_FFFF_FFFF)) >> self._shift]
        found = np.full(keys.shape, self.n, np.int64)
        for _ in range(self._probes):
            hit = self._keys[place] == keys
            np.copyto(found, self._tokens[place], where=hit)
            place += 1
        return found
