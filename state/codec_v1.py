"""States of version 1, and what version 2 makes of them."""

import msgspec
import numpy as np

from state.decay import growth
from state.interest import ID_BYTES, RECENT_DTYPE, VECTOR_DTYPE, InterestState
from state.window import Windows, WindowSettings, interest_key, units_of

_RECENT = np.dtype([("key", "<u8"), ("type", "u1"), ("time_s", "<u4")])
_CATEGORY_HALF_LIFE_S = 14 * 86_400


class _StateV1(msgspec.Struct, array_like=True, gc=False):
    """The fields of version 1, in their order on disk."""

    events_applied: int = 0
    last_offset: int = -1
    last_time_ms: int = 0
    session_start_ms: int = 0
    session_length: int = 0
    ids: bytes = b""
    """u64[any]."""
    recent: bytes = b""
    """_RECENT[any]."""
    count_ref_s: int = 0
    count_keys: bytes = b""
    count_values: bytes = b""
    category_ref_s: int = 0
    category_names: bytes = b"\n"
    """UTF-8 names, each followed by a newline, after one leading newline."""
    category_amounts: bytes = b""
    """f32[number of names]: forward-decayed interest."""
    vector: bytes = b""
    """f32[S]."""
    vector_model: int = 0


_decode = msgspec.msgpack.Decoder(_StateV1).decode
_encode = msgspec.msgpack.Encoder().encode
_checked = msgspec.msgpack.Decoder(InterestState).decode


def upgrade_from_1(data: bytes) -> InterestState:
    """The state of version 2 from bytes of version 1, without their version byte.

    Decayed interest of a category becomes an event of that weight at the user's newest event: when it grew, version
    1 did not keep.

    Raises:
        msgspec.DecodeError, ValueError: the bytes are no state of version 1.
    """
    old = _decode(data)
    recent_v1 = np.frombuffer(old.recent, _RECENT)
    recent = np.empty(len(recent_v1), RECENT_DTYPE)
    recent["key"], recent["type"] = recent_v1["key"], recent_v1["type"]
    # The upper two bytes of an entry are the content's now: 0, not known.
    ids = np.frombuffer(old.ids, "<u8") & np.uint64((1 << 8 * ID_BYTES) - 1)
    largest = np.finfo(VECTOR_DTYPE).max
    vector = np.clip(np.frombuffer(old.vector, "<f4"), -largest, largest).astype(VECTOR_DTYPE)
    new = InterestState(
        events_applied=old.events_applied,
        last_offset=old.last_offset,
        last_time_ms=old.last_time_ms,
        session_start_ms=old.session_start_ms,
        session_length=old.session_length,
        ids=ids.tobytes(),
        recent=recent.tobytes(),
        count_ref_s=old.count_ref_s,
        count_keys=old.count_keys,
        count_values=old.count_values,
        windows=_windows(old),
        vector=vector.tobytes(),
        vector_model=old.vector_model,
    )
    return _checked(_encode(new))  # the ranges of the numbers


def _windows(old: _StateV1) -> bytes:
    names = old.category_names[1:-1].decode("utf-8", "replace").split("\n") if old.category_amounts else []
    amounts = np.frombuffer(old.category_amounts, "<f4").tolist()
    if len(names) != len(amounts):
        raise ValueError("it has not as many amounts as categories")
    shrink = growth(old.category_ref_s, old.last_time_ms / 1000, _CATEGORY_HALF_LIFE_S)
    windows, packed = Windows(WindowSettings()), b""
    for name, amount in zip(names, amounts, strict=True):
        packed = windows.add(packed, old.last_time_ms // 1000, interest_key(name), units_of(amount * shrink))
    return packed
