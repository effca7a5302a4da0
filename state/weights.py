"""Event types and how much each says about a user's interest."""

EVENT_TYPES: tuple[str, ...] = (
    "impression",
    "view",
    "click",
    "add_to_cart",
    "remove_from_cart",
    "purchase",
    "like",
    "dislike",
    "hide",
    "rating",
    "session_start",
)
"""The index of a type is its code in states and artifacts: append only, never reorder."""

TYPE_CODES: dict[str, int] = {name: code for code, name in enumerate(EVENT_TYPES)}

PURCHASE: int = TYPE_CODES["purchase"]
SESSION_START: int = TYPE_CODES["session_start"]

DEFAULT_WEIGHTS: dict[str, float] = {
    # 0: having been shown says nothing of interest. An event of weight 0 is counted and keeps a
    # session alive, but leaves no trace among the items of a state.
    "impression": 0.0,
    "view": 1.0,
    "click": 2.0,
    "add_to_cart": 4.0,
    "remove_from_cart": -4.0,  # takes back the add_to_cart
    "purchase": 8.0,
    "like": 3.0,
    "dislike": -6.0,
    "hide": -20.0,  # outweighs a purchase: the item leaves the user's lists
    "rating": 2.0,
    "session_start": 0.0,
}
"""Interest that one event adds; a quantity multiplies it. Negative: takes interest away."""

NEGATIVE_TYPES: frozenset[int] = frozenset(TYPE_CODES[t] for t in ("remove_from_cart", "dislike", "hide"))
"""Codes of types that speak against an item: nothing is recommended because of them."""

STRENGTH: bytes = bytes(
    sorted(DEFAULT_WEIGHTS.values()).index(DEFAULT_WEIGHTS[EVENT_TYPES[code]]) if code < len(EVENT_TYPES) else 0
    for code in range(256)
)
"""Rank of each type by its default weight: which of two events on an item says more. For any byte, so that a
state written by a newer Driftline, with types unknown here, can still be updated."""
