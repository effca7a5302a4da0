"""States as bytes: one version byte, then the fields as a MessagePack array.

    version   since   what changed
    1                 as first released
    2                 vector f16 (was f32); recent without times; ids of 6 bytes and 2 of the content (were 8 and none)

A state of an older version is read, and written as the newest after its user's next event. The files in
tests/golden hold states of every version: they must load for ever.
"""

from collections.abc import Callable

import msgspec
import numpy as np

from state.errors import StateCorruptError
from state.interest import (
    COUNT,
    ID_BYTES,
    KEY_BYTES,
    RECENT,
    RECENT_DTYPE,
    VECTOR_DTYPE,
    InterestState,
)

VERSION = 2
"""First byte of an encoded state. Raised when old bytes can no longer be read as they are."""

_PREFIX = bytes([VERSION])
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(InterestState).decode

_ADVICE = (
    "The store or the changelog was damaged or written by a newer Driftline: stop the worker, delete its data "
    "folder (it is rebuilt from the changelog) and start it again; if the error returns, erase this user's state."
)


def encode_state(state: InterestState) -> bytes:
    """The state as bytes; `decode_state` gives an equal state back."""
    return _PREFIX + _encode(state)


def decode_state(data: bytes) -> InterestState:
    """The state that `encode_state` made the bytes from.

    Raises StateCorruptError when the bytes are no state, of another version, or contradict themselves, so that
    whatever this returns can be applied to and ranked.
    """
    version = data[0] if data else 0
    if version not in _UPGRADES:
        found = f"version {version}" if data else "nothing"
        raise StateCorruptError(f"a user's state begins with a version from 1 to {VERSION}, found {found}. {_ADVICE}")
    try:
        state = _decode(data[1:])  # a copy of 2 kB costs less than a view of it
        if version != VERSION:
            _UPGRADES[version](state)
    except (msgspec.DecodeError, ValueError) as error:
        raise StateCorruptError(f"a user's state cannot be read: {error}. {_ADVICE}") from error
    counted = len(state.count_keys)
    recent = len(state.recent)
    names = state.category_names
    if (
        counted % KEY_BYTES
        or len(state.count_values) * KEY_BYTES != counted * COUNT.size
        or recent % RECENT.size
        or state.session_length * RECENT.size > recent
        or len(state.ids) % KEY_BYTES
        or len(state.vector) % VECTOR_DTYPE.itemsize
        or len(state.category_amounts) != 4 * (names.count(b"\n") - 1)
        or names[0] != 10
        or names[-1] != 10
    ):
        raise StateCorruptError(f"a user's state contradicts itself. {_ADVICE}")
    return state


_V1_RECENT = np.dtype([("key", "<u8"), ("type", "u1"), ("time_s", "<u4")])


def _from_1(state: InterestState) -> None:
    """Raises ValueError when a field has not the length of its entries."""
    old = np.frombuffer(state.recent, _V1_RECENT)
    recent = np.empty(len(old), RECENT_DTYPE)
    recent["key"], recent["type"] = old["key"], old["type"]
    state.recent = recent.tobytes()
    # The upper two bytes of an entry are now the content's: 0, not known.
    state.ids = (np.frombuffer(state.ids, "<u8") & np.uint64((1 << 8 * ID_BYTES) - 1)).tobytes()
    vector = np.frombuffer(state.vector, "<f4")
    largest = np.finfo(VECTOR_DTYPE).max
    state.vector = np.clip(vector, -largest, largest).astype(VECTOR_DTYPE).tobytes()


def _as_it_is(state: InterestState) -> None:
    """The newest version."""


_UPGRADES: dict[int, Callable[[InterestState], None]] = {1: _from_1, VERSION: _as_it_is}
