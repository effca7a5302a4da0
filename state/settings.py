"""How much of a user is remembered, and for how long."""

from functools import cached_property

import msgspec

from state.errors import StateError
from state.window import Windows, WindowSettings

_DAY_S = 86_400


class StateSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """Bounds, windows and half-lives of a user's state. Raises StateError on a value that cannot work.

    By default a state with a vector of 256 numbers has 2 KiB at most.
    """

    recent_items: int = 50
    """Interactions kept in arrival order; 50 is what the network is rebuilt from."""
    max_counted_items: int = 24
    """Items with a decayed count of their own, 17 bytes each; a shop that re-sells wants more (256)."""
    event_id_ring: int = 20
    """Event ids remembered to drop an event that was sent twice."""
    session_gap_s: int = 1800
    """A pause longer than this begins a new session (the half hour of web analytics)."""
    count_half_life_s: int = 60 * _DAY_S
    """A count of an item halves in this time; households re-buy over weeks."""
    windows: WindowSettings = WindowSettings()
    """Sliding windows of event time over the user's interests."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if name == "windows":
                continue
            if value < 1:
                raise StateError(f"state.{name} is {value}; set it to 1 or more")
        bounds = {"recent_items": 1000, "max_counted_items": 10_000, "event_id_ring": 10_000}
        for name, most in bounds.items():
            if getattr(self, name) > most:
                raise StateError(f"state.{name} is {getattr(self, name)}; set it to {most} or less, states are small")

    @cached_property
    def windowing(self) -> Windows:
        """What adds to and reads the windows of a state of these settings."""
        return Windows(self.windows)

    def max_state_bytes(self, vector_bytes: int) -> int:
        """The largest an encoded state can be, for a network state of `vector_bytes` bytes."""
        return (
            vector_bytes
            + self.recent_items * 9  # key u64, type u8
            + self.max_counted_items * 17  # key u64, amount f32, time u32, type u8
            + self.windows.max_bytes()
            + self.event_id_ring * 8  # id 6, content 2
            + 96  # eight integers, headers of the fields, version
        )
