"""States as bytes: one version byte, then the fields as a MessagePack array.

    version   what changed
    1         as first written (see state.codec_v1)
    2         half the size: vector f16 (was f32), recent without times, ids of 6 bytes and 2 of the content (were 8
              and none); windows and a session id in place of decayed categories with their names

A state of an older version is read, and written as the newest after its user's next event. The files in
tests/golden hold states of every version: they must load for ever.
"""

import msgspec

from state.codec_v1 import upgrade_from_1
from state.errors import StateCorruptError
from state.interest import COUNT, KEY_BYTES, RECENT, VECTOR_DTYPE, InterestState
from state.window import is_sound

VERSION = 2
"""First byte of an encoded state. Raised when old bytes can no longer be read as they are."""

_PREFIX = bytes([VERSION])
_COUNT_BYTES, _RECENT_BYTES, _NUMBER_BYTES = COUNT.size, RECENT.size, VECTOR_DTYPE.itemsize
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(InterestState).decode

_ADVICE = (
    "The store or the changelog was damaged or written by a newer Driftline: stop the worker, delete its data "
    "folder (it is rebuilt from the changelog) and start it again; if the error returns, set worker.corrupt_state = "
    "rebuild: this user's state is then made anew from the log."
)


def encode_state(state: InterestState) -> bytes:
    """The state as bytes; `decode_state` gives an equal state back."""
    return _PREFIX + _encode(state)


def decode_state(data: bytes) -> InterestState:
    """The state that `encode_state` made the bytes from, in this version or an older one.

    Raises StateCorruptError when the bytes are no state, of an unknown version, or contradict themselves, so that
    whatever this returns can be applied to and ranked.
    """
    try:
        if data[:1] == _PREFIX:
            state = _decode(data[1:])  # a copy of 2 kB costs less than a view of it
        elif data[:1] == b"\1":
            state = upgrade_from_1(data[1:])
        else:
            found = f"version {data[0]}" if data else "nothing"
            raise StateCorruptError(
                f"a user's state begins with a version from 1 to {VERSION}, found {found}. {_ADVICE}"
            )
    except (msgspec.DecodeError, ValueError) as error:
        raise StateCorruptError(f"a user's state cannot be read: {error}. {_ADVICE}") from error
    counted, recent = len(state.count_keys), len(state.recent)
    if (
        (counted | len(state.ids)) % KEY_BYTES  # both are multiples of a power of two, if together they are
        or len(state.count_values) * KEY_BYTES != counted * _COUNT_BYTES
        or recent % _RECENT_BYTES
        or state.session_length * _RECENT_BYTES > recent
        or len(state.vector) % _NUMBER_BYTES
        or not is_sound(state.windows)
    ):
        raise StateCorruptError(f"a user's state contradicts itself. {_ADVICE}")
    return state
