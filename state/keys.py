"""Stable keys: of items, events and sessions as 63-bit numbers, of an event's content in 16 bits, of users as bytes."""

from functools import lru_cache
from hashlib import blake2b
from struct import Struct
from zlib import crc32

NO_ITEM = 0
"""The key that no text has: "no item here"."""

SEPARATOR = "\x1f"
"""Between tenant and user in a user's key: ASCII's unit separator, which neither may hold."""

_64_BITS = 0xFFFF_FFFF_FFFF_FFFF
_ODD = 0x9E37_79B9_7F4A_7C15
"""2**64 divided by the golden ratio: the multiplier of Fibonacci hashing (Knuth, volume 3, 6.4)."""
_TOLD = Struct("<ddq")


@lru_cache(maxsize=262_144)
def key_of(text: str) -> int:
    """The key of an id: the same in every process and release, in 1 .. 2**63 - 1.

    8 bytes of BLAKE2b, little-endian, without the top bit (so that it fits a signed 64-bit
    integer everywhere); 0 becomes 1, since 0 means "no item". Among a million ids the chance
    that any two share a key is 5e-8.
    """
    # surrogatepass: half a surrogate pair in an id must not stop a worker, wherever the id was read.
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest, "little") & 0x7FFF_FFFF_FFFF_FFFF) or 1


def event_key(event_id: str) -> int:
    """The key of an event id: as `key_of`, but not remembered, for an event's id does not come again."""
    return key_of.__wrapped__(event_id)


@lru_cache(maxsize=65_536)
def session_key(session_id: str) -> int:
    """The key of a session: as `key_of`. Remembered apart, for sessions come and go and items stay."""
    return key_of.__wrapped__(session_id)


def payload_key(
    kind: int,
    time_ms: int,
    items: tuple[int, ...],
    quantity: float | None = None,
    value: float | None = None,
    dwell_ms: int | None = None,
) -> int:
    """16 bits of what an event says, in 1 .. 65535: the same in every process and release, for states hold it.

    kind: code of the type; time_ms: occurred_at as it was sent; items: their keys. Two events of one id that differ
    in any of it have different keys but for one case in 65,535.
    """
    mixed = time_ms * 256 + kind
    for item in items:
        mixed = (mixed * _ODD ^ item) & _64_BITS
    if quantity is not None or value is not None or dwell_ms is not None:
        told = _TOLD.pack(
            -1.0 if quantity is None else quantity,
            float("-inf") if value is None else value,
            -1 if dwell_ms is None else dwell_ms,
        )
        mixed = mixed * _ODD ^ crc32(told)
    return (mixed * _ODD & _64_BITS) >> 48 or 1


def user_key(user: str, tenant: str = "") -> bytes:
    """The key of a user: of their records on every topic, and of their state.

    Without a tenant it is the user's id alone. No id and no tenant holds SEPARATOR, so no user of one tenant has the
    key of a user of another, or of none.
    """
    return f"{tenant}{SEPARATOR}{user}".encode() if tenant else user.encode()


def split_user_key(key: bytes) -> tuple[str, str]:
    """(user, tenant) of a key that `user_key` made; tenant '' for none. Bytes that are no UTF-8 are replaced."""
    tenant, separator, user = key.decode(errors="replace").partition(SEPARATOR)
    return (user, tenant) if separator else (tenant, "")
