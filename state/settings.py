"""How much of a user is remembered, and for how long."""

import re
from functools import cached_property

import msgspec
import numpy as np
import numpy.typing as npt

from state.errors import StateError
from state.weights import EVENT_TYPES, TYPE_CODES
from state.window import ALL_WINDOWS, Windows, WindowSettings

F64 = npt.NDArray[np.float64]

CATEGORY, BRAND = "category", "brand"
_PROPERTY = re.compile(r"properties\.[A-Za-z0-9_-]{1,32}")
MAX_INTERESTS = 8

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
    count_half_lives_s: dict[str, int] = {}
    """By event type, where it is another: see `state.weights`."""
    windows: WindowSettings = WindowSettings()
    """Sliding windows of event time over the user's interests."""
    last_window: dict[str, str] = {}
    """By event type, the name of the largest window that it counts in; a type not named counts in all."""
    interests: tuple[str, ...] = (CATEGORY,)
    """What of an item makes an interest: "category", "brand", "properties.NAME", each item one of each."""

    def __post_init__(self) -> None:
        for name in ("recent_items", "max_counted_items", "event_id_ring", "session_gap_s", "count_half_life_s"):
            value = getattr(self, name)
            if value < 1:
                raise StateError(f"state.{name} is {value}; set it to 1 or more")
        bounds = {"recent_items": 1000, "max_counted_items": 10_000, "event_id_ring": 10_000}
        for name, most in bounds.items():
            if getattr(self, name) > most:
                raise StateError(f"state.{name} is {getattr(self, name)}; set it to {most} or less, states are small")
        for kind, seconds in self.count_half_lives_s.items():
            _require_type("count_half_lives_s", kind)
            if seconds < 1:
                raise StateError(f"state.count_half_lives_s.{kind} is {seconds}; set it to 1 or more")
        names = [window.name for window in self.windows.windows]
        # A cell has two bits for it: the first three windows, or all.
        allowed = dict.fromkeys([*names[:ALL_WINDOWS], names[-1]])
        for kind, name in self.last_window.items():
            _require_type("last_window", kind)
            if name not in allowed:
                raise StateError(f"state.last_window.{kind} is {name!r}; set it to {' or '.join(allowed)}")
        kinds = [kind_of_field(field) for field in self.interests]
        if not 1 <= len(kinds) <= MAX_INTERESTS or len(set(kinds)) != len(kinds):
            raise StateError(
                f"state.interests is {','.join(self.interests)!r}; name 1 to {MAX_INTERESTS} fields, each once"
            )

    @property
    def interest_properties(self) -> tuple[str, ...]:
        """Names of the properties of items among `interests`."""
        return tuple([kind_of_field(field) for field in self.interests if field not in (CATEGORY, BRAND)])

    @cached_property
    def reaches(self) -> bytes:
        """Of any code of a type the `reach` of `Windows.add`: how far into the windows it counts."""
        names = [window.name for window in self.windows.windows]
        reaches = bytearray([ALL_WINDOWS]) * 256
        for kind, name in self.last_window.items():
            if name != names[-1]:
                reaches[TYPE_CODES[kind]] = names.index(name)
        return bytes(reaches)

    @cached_property
    def half_lives_s(self) -> tuple[float, ...]:
        """The half-life of any code of a type; empty where all have `count_half_life_s`."""
        half_lives = [float(self.count_half_life_s)] * 256
        for kind, seconds in self.count_half_lives_s.items():
            half_lives[TYPE_CODES[kind]] = float(seconds)
        return tuple(half_lives) if len(set(half_lives)) > 1 else ()

    @cached_property
    def shortest_half_life_s(self) -> int:
        """Of all types."""
        return int(min(self.half_lives_s, default=self.count_half_life_s))

    @cached_property
    def _half_life_table(self) -> F64:
        return np.array(self.half_lives_s)

    def half_life_of(self, types: npt.NDArray[np.uint8]) -> F64 | int:
        """Half-lives in s of counts whose strongest types are `types` u8[...]; one number where all types have it."""
        return self._half_life_table.take(types) if self.half_lives_s else self.count_half_life_s

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


def kind_of_field(field: str) -> str:
    """The kind of interest that a field of `StateSettings.interests` makes, as it is shown: a category has ''.

    Raises StateError for what is no such field.
    """
    if field in (CATEGORY, BRAND):
        return "" if field == CATEGORY else BRAND
    if _PROPERTY.fullmatch(field):
        return field.partition(".")[2]
    raise StateError(
        f"state.interests names {field!r}; name {CATEGORY}, {BRAND} or properties.NAME, a NAME of at most 32 letters, "
        "digits, _ and -"
    )


def _require_type(setting: str, kind: str) -> None:
    if kind not in TYPE_CODES:
        raise StateError(f"state.{setting} names {kind!r}, which is no event type; there are: {', '.join(EVENT_TYPES)}")
