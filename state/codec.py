"""States as bytes: one version byte, then the fields as a MessagePack array."""

import msgspec

from state.errors import StateCorruptError
from state.interest import COUNT, KEY_BYTES, RECENT, InterestState

VERSION = 1
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
    if not data or data[0] != VERSION:
        found = f"version {data[0]}" if data else "nothing"
        raise StateCorruptError(f"a user's state begins with version {VERSION}, found {found}. {_ADVICE}")
    try:
        state = _decode(data[1:])  # a copy of 2 kB costs less than a view of it
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
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
        or len(state.vector) % 4
        or len(state.category_amounts) != 4 * (names.count(b"\n") - 1)
        or names[0] != 10
        or names[-1] != 10
    ):
        raise StateCorruptError(f"a user's state contradicts itself. {_ADVICE}")
    return state
