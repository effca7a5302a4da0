"""Stable 63-bit keys of item ids and event ids."""

from functools import lru_cache
from hashlib import blake2b

NO_ITEM = 0
"""The key that no text has: "no item here"."""


@lru_cache(maxsize=262_144)
def key_of(text: str) -> int:
    """The key of an id: the same in every process and release, in 1 .. 2**63 - 1.

    8 bytes of BLAKE2b, little-endian, without the top bit (so that it fits a signed 64-bit
    integer everywhere); 0 becomes 1, since 0 means "no item". Among a million ids the chance
    that any two share a key is 5e-8.
    """
    # surrogatepass: JSON may carry half a surrogate pair, and an id must not stop a worker.
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest, "little") & 0x7FFF_FFFF_FFFF_FFFF) or 1


def event_key(event_id: str) -> int:
    """The key of an event id: as `key_of`, but not remembered, for an event's id does not come again."""
    return key_of.__wrapped__(event_id)
