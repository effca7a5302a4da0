"""How much of a user is remembered, and for how long."""

import msgspec

from state.errors import StateError

_DAY_S = 86_400

CATEGORY_NAME_BYTES = 40
"""A longer category name is cut: 16 of them must stay small beside a 1 KiB vector."""


class StateSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds and half-lives of a user's state. Raises StateError on a value that cannot work."""

    recent_items: int = 50
    """Interactions kept in arrival order; 50 is what the network is rebuilt from."""
    max_counted_items: int = 32
    """Items with a decayed count of their own, 17 bytes each; a shop that re-sells wants more (256)."""
    max_categories: int = 16
    """Categories with a decayed interest."""
    event_id_ring: int = 32
    """Event ids remembered to drop an event that was sent twice."""
    session_gap_s: int = 1800
    """A pause longer than this begins a new session (the half hour of web analytics)."""
    category_half_life_s: int = 14 * _DAY_S
    """Interest in a category halves in this time."""
    count_half_life_s: int = 60 * _DAY_S
    """A count of an item halves in this time; households re-buy over weeks."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value < 1:
                raise StateError(f"state.{name} is {value}; set it to 1 or more")
        bounds = {"recent_items": 1000, "max_counted_items": 10_000, "max_categories": 1000, "event_id_ring": 10_000}
        for name, most in bounds.items():
            if getattr(self, name) > most:
                raise StateError(f"state.{name} is {getattr(self, name)}; set it to {most} or less, states are small")

    def max_state_bytes(self, vector_bytes: int) -> int:
        """The largest an encoded state can be, for a network state of `vector_bytes` bytes."""
        return (
            vector_bytes
            + self.recent_items * 9  # key u64, type u8
            + self.max_counted_items * 17  # key u64, amount f32, time u32, type u8
            + self.max_categories * (CATEGORY_NAME_BYTES + 1 + 4)
            + self.event_id_ring * 8
            + 128  # integers, headers of the fields, version
        )
