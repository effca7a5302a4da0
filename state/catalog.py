"""The catalogue: what shops say of their items, a million of them in some 300 MB.

Texts stand one after the other in blocks of bytes, category paths, brands and domains once each, numbers in one packed
row an item, and a hash table over the keys finds the row. Python objects for all that would take five times as much.

What becomes of an item's records:

    upsert    -> the table has the row of its key: what it says replaces all that was known
    tombstone -> row and text are free again, for the next item
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from struct import Struct
from typing import Generic, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from state.keys import key_of
from state.window import interest_key

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
F64 = npt.NDArray[np.float64]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]

NEVER_MS = 2**63 - 1
"""Expiry of an item that has none."""
MAX_ID_BYTES = 2048
"""An id of 512 characters, the contract's most, has no more."""
MAX_NAME_BYTES = 512
MAX_TEXT_BYTES = 32_768

_KEY_BITS = np.uint64(0x7FFF_FFFF_FFFF_FFFF)
_FIRST_SLOTS_BITS = 8
_FIRST_ROWS = 128
# Rows grow by a quarter: growing copies them, but what is not used takes no memory for long.
_GROW_ROWS = 1.25

# place, price, expires_at_ms, category, brand, currency, domain, available
_ROW = Struct("<qdqiiiiB3x")
_ROW_DTYPE = np.dtype(
    {
        "names": ["place", "price", "expires_at_ms", "category", "brand", "currency", "domain", "available"],
        "formats": ["<i8", "<f8", "<i8", "<i4", "<i4", "<i4", "<i4", "u1"],
        "offsets": [0, 8, 16, 24, 28, 32, 36, 40],
        "itemsize": _ROW.size,
    }
)

# row, bytes of id, name and text, which follow
_TEXTS = Struct("<iHHH")
_BLOCK_BITS = 18
_BLOCK_BYTES = 1 << _BLOCK_BITS  # the largest entry takes a seventh: no block is left much emptier
# A block is emptied when so large a share of all is dead: 1.33 bytes for one, and three moved for one freed at worst.
_DEAD_SHARE = 0.25
_SPARE_BLOCKS = 4

T = TypeVar("T", bound=Hashable)
T_Int = TypeVar("T_Int", np.int64, np.uint32)


class CatalogItem(msgspec.Struct, frozen=True, kw_only=True):
    """An item as the catalogue knows it."""

    item_id: str
    name: str = ""
    category: tuple[str, ...] = ()
    """The path to it, broadest first; empty: not known."""
    brand: str = ""
    price: float | None = None
    currency: str = ""
    domain: str = ""
    """The part of the offer it belongs to; empty: not known."""
    text: str = ""
    properties: tuple[str, ...] = ()
    """Values of the properties that are kept, as many and in the order that whoever fills the catalogue says; '' for
    one that the item has not."""
    available: bool = True
    expires_at_ms: int | None = None
    """From when on it may not be recommended, epoch ms; None: never."""


class Catalog:
    """Items by key (`key_of(item_id)`). No locks: who shares one between threads brings one.

    Rows are numbers from 1; row 0 is "not held": available, without category, brand, domain, price and expiry, so that
    arrays of rows need no mask. A row is that of its item until the next upsert or removal.

    Args:
        category_level: which name of the path `category` gives: 1 the broadest, 2 the next, 0 the last. A shorter
            path gives its last.
        text_bytes: so many bytes of an item's text are kept, at most MAX_TEXT_BYTES.
    """

    def __init__(self, category_level: int = 0, text_bytes: int = 128) -> None:
        self._level = category_level
        self._text_bytes = min(text_bytes, MAX_TEXT_BYTES)
        self._count = 0
        self._paths: _Interned[tuple[str, ...]] = _Interned(())
        self._brands: _Interned[str] = _Interned("")
        self._currencies: _Interned[tuple[str, ...]] = _Interned(())
        """A currency and the properties kept, which many items share too: a number more would be 4 MB a million."""
        self._domains: _Interned[str] = _Interned("")
        self._blocks = _Blocks()
        self._end = 1
        """Rows from here on were never used; free ones before it are chained by their place."""
        self._free = 0
        self._set_rows(np.zeros(_FIRST_ROWS, np.uint64), np.zeros(_FIRST_ROWS, _ROW_DTYPE))
        _ROW.pack_into(self._row_bytes, 0, -1, math.nan, NEVER_MS, 0, 0, 0, 0, 1)
        self._set_slots(np.zeros(1 << _FIRST_SLOTS_BITS, np.int32))

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: int) -> bool:
        return self._row_of(key) != 0

    @property
    def size_bytes(self) -> int:
        """Bytes of all that grows with the items, but for the interned texts (some 100 bytes a category or brand)."""
        return self._keys.nbytes + self._rows.nbytes + self._slots.nbytes + self._blocks.size_bytes

    # --- writing

    def upsert(self, item: CatalogItem) -> int:
        """Put an item in, in place of what was known of its id. Returns its key. 5 to 10 us.

        A name is cut at MAX_NAME_BYTES, the text at `text_bytes`. Raises ValueError for an id of more than
        MAX_ID_BYTES.
        """
        item_id = item.item_id.encode("utf-8", "surrogatepass")
        if not 0 < len(item_id) <= MAX_ID_BYTES:
            raise ValueError(f"an item id has 1 to {MAX_ID_BYTES} bytes, not {len(item_id)}")
        name, text = _cut(item.name, MAX_NAME_BYTES), _cut(item.text, self._text_bytes)
        key = key_of.__wrapped__(item.item_id)  # not remembered: a million ids would push out those in use
        row = self._row_of(key)
        if row:
            place, _, _, *old_codes, _ = _ROW.unpack_from(self._row_bytes, row * _ROW.size)
        else:
            row, place, old_codes = self._new_row(key), -1, [0, 0, 0, 0]
        payload = _TEXTS.pack(row, len(item_id), len(name), len(text)) + item_id + name + text
        if place < 0 or not self._blocks.holds(place, payload):
            if place >= 0:
                self._blocks.free(place)
            place = self._blocks.add(payload)
        _ROW.pack_into(
            self._row_bytes,
            row * _ROW.size,
            place,
            math.nan if item.price is None else item.price,
            NEVER_MS if item.expires_at_ms is None else min(max(item.expires_at_ms, -NEVER_MS), NEVER_MS),
            self._paths.take(item.category),
            self._brands.take(item.brand),
            self._currencies.take((item.currency, *item.properties) if item.currency or item.properties else ()),
            self._domains.take(item.domain),
            item.available,
        )
        self._give_back(*old_codes)
        self._tidy()
        return key

    def remove(self, item_id: str) -> int:
        """Take an item out, if it is there. Returns its key."""
        key = key_of.__wrapped__(item_id)
        row = self._row_of(key)
        if row:
            place, _, _, *codes, _ = _ROW.unpack_from(self._row_bytes, row * _ROW.size)
            self._blocks.free(place)
            self._give_back(*codes)
            self._unlink(key)
            # As row 0, for who still holds its number; and the chain of free rows in place of a place.
            _ROW.pack_into(self._row_bytes, row * _ROW.size, -1 - self._free, math.nan, NEVER_MS, 0, 0, 0, 0, 1)
            self._key_view[row] = 0
            self._free = row
            self._count -= 1
            self._tidy()
        return key

    # --- one item

    def get(self, key: int) -> CatalogItem | None:
        """The item of a key; None when the catalogue does not hold it."""
        row = self._row_of(key)
        if not row:
            return None
        place, price, expires_at_ms, path, brand, code, domain, available = _ROW.unpack_from(
            self._row_bytes, row * _ROW.size
        )
        item_id, name, text = self._blocks.texts(place)
        currency, *properties = self._currencies.values[code] or ("",)
        return CatalogItem(
            item_id=item_id.decode("utf-8", "surrogatepass"),
            name=name.decode(),
            category=self._paths.values[path],
            brand=self._brands.values[brand],
            price=None if math.isnan(price) else price,
            currency=currency,
            properties=tuple(properties),
            domain=self._domains.values[domain],
            text=text.decode(),
            available=bool(available),
            expires_at_ms=None if expires_at_ms == NEVER_MS else expires_at_ms,
        )

    def category(self, key: int) -> str:
        """The item's category, of the level asked for; '' where it or the item is not known. 0.2 to 0.8 us."""
        row = self._row_of(key)
        if not row:
            return ""
        path: tuple[str, ...] = self._paths.values[_ROW.unpack_from(self._row_bytes, row * _ROW.size)[3]]
        return path[min(self._level, len(path)) - 1] if path else ""

    def brand(self, key: int) -> str:
        """The item's brand; '' where it or the item is not known."""
        row = self._row_of(key)
        return self._brands.values[_ROW.unpack_from(self._row_bytes, row * _ROW.size)[4]] if row else ""

    def properties(self, key: int) -> tuple[str, ...]:
        """`CatalogItem.properties`; empty where the item is not known."""
        row = self._row_of(key)
        if not row:
            return ()
        values: tuple[str, ...] = self._currencies.values[_ROW.unpack_from(self._row_bytes, row * _ROW.size)[5]]
        return values[1:]

    # --- many items: by `[rows]`, as `take` would copy a column of all items first

    def rows(self, keys: U64) -> I64:
        """Rows of keys u64[...], as i64 of the same shape; 0 where the catalogue does not hold the key."""
        flat = keys.reshape(-1)
        slot = ((flat & _KEY_BITS) >> np.uint64(63 - self._bits)).astype(np.int64)
        row = self._slots.take(slot)
        # Key 0, "no item", is that of row 0.
        searching = np.flatnonzero((self._keys.take(row) != flat) & (row != 0))
        mask = self._mask
        while len(searching):
            slot[searching] = (slot[searching] + 1) & mask
            row[searching] = there = self._slots.take(slot[searching])
            searching = searching[(self._keys.take(there) != flat[searching]) & (there != 0)]
        return row.astype(np.int64).reshape(keys.shape)

    def available(self, rows: I64) -> Bools:
        """bool[...]: whether the items may be recommended now, but for their expiry."""
        return self._rows["available"][rows].astype(np.bool_)

    def expires_at_ms(self, rows: I64) -> I64:
        """i64[...]: when they expire, epoch ms; NEVER_MS."""
        expires: I64 = self._rows["expires_at_ms"][rows]
        return expires

    def prices(self, rows: I64) -> F64:
        """f64[...]: price of one, in the item's currency; NaN where it is not known."""
        prices: F64 = self._rows["price"][rows]
        return prices

    def brands(self, rows: I64) -> I32:
        """i32[...]: the same number for items of one brand, 0 for none; it may change hands with the next upsert."""
        codes: I32 = self._rows["brand"][rows]
        return codes

    def domains(self, rows: I64) -> U64:
        """u64[...]: `key_of` the domain, as an event's; 0 where it is not known."""
        codes, places = np.unique(self._rows["domain"][rows], return_inverse=True)
        names = [self._domains.values[code] for code in codes.tolist()]
        keys = np.array([key_of(name) if name else 0 for name in names], np.uint64)
        return keys.take(places).reshape(rows.shape)

    def depths(self, rows: I64) -> I64:
        """i64[...]: how many names the category path has, 0 where it is not known."""
        return self._of_paths(rows, len, np.dtype(np.int64))

    def interests(self, rows: I64) -> U32:
        """u32[...]: `state.window.interest_key` of the category, of the level asked for; 0 where it is not known."""
        return self._of_paths(rows, self._interest, np.dtype(np.uint32))

    def _interest(self, path: tuple[str, ...]) -> int:
        name = path[min(self._level, len(path)) - 1] if path else ""
        return interest_key(name) if name else 0

    def _of_paths(self, rows: I64, of: Callable[[tuple[str, ...]], int], dtype: np.dtype[T_Int]) -> npt.NDArray[T_Int]:
        """A number of each row's path, computed once for each path."""
        codes, places = np.unique(self._rows["category"][rows], return_inverse=True)
        numbers = np.array([of(self._paths.values[code]) for code in codes.tolist()], dtype)
        return numbers.take(places).reshape(rows.shape)

    # --- rows

    def _set_rows(self, keys: U64, rows: npt.NDArray[np.void]) -> None:
        self._keys = keys
        self._rows = rows
        self._key_view = keys.data
        self._row_bytes = rows.view(np.uint8).data

    def _new_row(self, key: int) -> int:
        row = self._free
        if row:
            self._free = -1 - int(_ROW.unpack_from(self._row_bytes, row * _ROW.size)[0])
        else:
            row = self._end
            self._end += 1
            if row == len(self._keys):
                more = int(row * _GROW_ROWS)
                keys, rows = np.zeros(more, np.uint64), np.zeros(more, _ROW_DTYPE)
                keys[:row], rows[:row] = self._keys, self._rows
                self._set_rows(keys, rows)
        self._key_view[row] = key
        self._count += 1
        if self._count * 2 > len(self._slots):
            self._double_slots()
        else:
            self._link(key, row)
        return row

    def _give_back(self, path: int, brand: int, currency: int, domain: int) -> None:
        self._paths.give_back(path)
        self._brands.give_back(brand)
        self._currencies.give_back(currency)
        self._domains.give_back(domain)

    def _tidy(self) -> None:
        """Empty a block when too much is dead: what lives in it moves to the newest."""
        for row, payload in self._blocks.emptied(self._lives):
            place = self._blocks.add(payload)
            self._rows["place"][row] = place

    def _lives(self, row: int, place: int) -> bool:
        """Whether the texts at `place` are those of the row."""
        return bool(self._rows["place"][row] == place)

    # --- the hash table: linear probing, at most half full, so that a search takes 1.5 looks

    def _set_slots(self, slots: npt.NDArray[np.int32]) -> None:
        self._slots = slots
        self._slot_view = slots.data
        self._bits = len(slots).bit_length() - 1
        self._mask = len(slots) - 1

    def _row_of(self, key: int) -> int:
        slots, keys, mask = self._slot_view, self._key_view, self._mask
        slot = (key & 0x7FFF_FFFF_FFFF_FFFF) >> (63 - self._bits)
        while (row := slots[slot]) and keys[row] != key:
            slot = (slot + 1) & mask
        return row

    def _link(self, key: int, row: int) -> None:
        slots, mask = self._slot_view, self._mask
        slot = key >> (63 - self._bits)
        while slots[slot]:
            slot = (slot + 1) & mask
        slots[slot] = row

    def _unlink(self, key: int) -> None:
        """Take a key out; those behind it that it had pushed on move back, so that no search ends early."""
        slots, keys, mask, shift = self._slot_view, self._key_view, self._mask, 63 - self._bits
        slot = key >> shift
        while keys[slots[slot]] != key:
            slot = (slot + 1) & mask
        hole = slot
        while row := slots[slot := (slot + 1) & mask]:
            own = keys[row] >> shift
            if (slot - own) & mask >= (slot - hole) & mask:
                slots[hole] = row
                hole = slot
        slots[hole] = 0

    def _double_slots(self) -> None:
        """All rows into a table of twice the size. 0.1 s for a million, and it happens as seldom."""
        slots = np.zeros(2 * len(self._slots), np.int32)
        self._set_slots(slots)
        waiting = np.flatnonzero(self._keys).astype(np.int32)
        slot = (self._keys.take(waiting) >> np.uint64(63 - self._bits)).astype(np.int64)
        while len(waiting):
            # Of several that come to an empty slot one stays; the others, and who finds it taken, go one further.
            empty = slots.take(slot) == 0
            slots[slot[empty]] = waiting[empty]
            moves = slots.take(slot) != waiting
            waiting, slot = waiting[moves], (slot[moves] + 1) & self._mask


class _Interned(Generic[T]):
    """Values that many items share, each once, as long as an item has it. Code 0: none."""

    def __init__(self, none: T) -> None:
        self.values: list[T] = [none]
        self._none = none
        self._codes: dict[T, int] = {}
        self._uses = [0]
        self._free: list[int] = []

    def take(self, value: T) -> int:
        if not value:
            return 0
        code = self._codes.get(value)
        if code is None:
            if self._free:
                code = self._free.pop()
                self.values[code] = value
            else:
                code = len(self.values)
                self.values.append(value)
                self._uses.append(0)
            self._codes[value] = code
        self._uses[code] += 1
        return code

    def give_back(self, code: int) -> None:
        if code:
            self._uses[code] -= 1
            if not self._uses[code]:
                del self._codes[self.values[code]]
                self.values[code] = self._none
                self._free.append(code)


class _Blocks:
    """Texts in blocks of 256 KiB, each entry behind the other; a place is block and offset in one number."""

    def __init__(self) -> None:
        self._blocks: list[bytearray] = []
        self._filled: list[int] = []
        self._live: list[int] = []
        """Bytes of each block that hold entries, and those of entries in use."""
        self._unused: list[int] = []
        """Blocks without any entry."""
        self._current = -1
        self._all_filled = 0
        self._all_live = 0

    @property
    def size_bytes(self) -> int:
        return len(self._blocks) * _BLOCK_BYTES

    def add(self, payload: bytes) -> int:
        """Place of a new entry."""
        size = len(payload)
        if self._current < 0 or self._filled[self._current] + size > _BLOCK_BYTES:
            self._current = self._new_block()
        block = self._current
        offset = self._filled[block]
        self._blocks[block][offset : offset + size] = payload
        self._filled[block] = offset + size
        self._live[block] += size
        self._all_filled += size
        self._all_live += size
        return block << _BLOCK_BITS | offset

    def free(self, place: int) -> None:
        """The entry at `place` is no longer in use."""
        size = self._size(place)
        self._live[place >> _BLOCK_BITS] -= size
        self._all_live -= size

    def holds(self, place: int, payload: bytes) -> bool:
        """Whether the entry at `place` is this."""
        block, offset = place >> _BLOCK_BITS, place & (_BLOCK_BYTES - 1)
        return self._blocks[block][offset : offset + len(payload)] == payload

    def texts(self, place: int) -> tuple[bytes, bytes, bytes]:
        """Id, name and text."""
        block, offset = self._blocks[place >> _BLOCK_BITS], place & (_BLOCK_BYTES - 1)
        _, of_id, of_name, of_text = _TEXTS.unpack_from(block, offset)
        first = offset + _TEXTS.size
        second = first + of_id
        third = second + of_name
        return bytes(block[first:second]), bytes(block[second:third]), bytes(block[third : third + of_text])

    def emptied(self, lives: Callable[[int, int], bool]) -> list[tuple[int, bytes]]:
        """Row and payload of what lives in a block that is now unused; nothing while little is dead.

        lives: whether the entry of a row at a place is in use.
        """
        dead = self._all_filled - self._all_live
        if dead <= _SPARE_BLOCKS * _BLOCK_BYTES or dead < _DEAD_SHARE * self._all_filled:
            return []
        deadest = max(
            (block for block in range(len(self._blocks)) if block != self._current),
            key=lambda block: self._filled[block] - self._live[block],
        )
        content = self._blocks[deadest]
        moving, offset = [], 0
        while offset < self._filled[deadest]:
            place = deadest << _BLOCK_BITS | offset
            size = self._size(place)
            row = _TEXTS.unpack_from(content, offset)[0]
            if lives(row, place):
                moving.append((row, bytes(content[offset : offset + size])))
            offset += size
        self._all_filled -= self._filled[deadest]
        self._all_live -= self._live[deadest]
        self._filled[deadest] = self._live[deadest] = 0
        self._unused.append(deadest)
        return moving

    def _new_block(self) -> int:
        if self._unused:
            return self._unused.pop()
        self._blocks.append(bytearray(_BLOCK_BYTES))
        self._filled.append(0)
        self._live.append(0)
        return len(self._blocks) - 1

    def _size(self, place: int) -> int:
        _, of_id, of_name, of_text = _TEXTS.unpack_from(self._blocks[place >> _BLOCK_BITS], place & (_BLOCK_BYTES - 1))
        return int(_TEXTS.size + of_id + of_name + of_text)


def _cut(text: str, size_bytes: int) -> bytes:
    """UTF-8, at most so many bytes, cut between characters. Half a surrogate pair is no text."""
    data = text.encode("utf-8", "replace")
    return data if len(data) <= size_bytes else data[:size_bytes].decode("utf-8", "ignore").encode()
