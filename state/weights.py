"""Event types, and how much one event says about a user's interest.

    weight = (weight of its type) x (one factor of what the event tells beside its type)

    type                                         factor where the event tells nothing: 1
    purchase, add_to_cart, remove_from_cart      size: log2(1 + s) ** size_strength
                                                     s = quantity ** (1 - v) * (value / value_usual) ** v, at most 31
    impression, view, click                      attention: log2(1 + dwell / dwell_usual) ** dwell_strength
    rating                                       stars: 1 at rating_max, 0 at rating_neutral, -2 at rating_min
    like, dislike, hide, session_start           none

Why so. **Logarithms**, because the tenth piece of an order says less than the second: taste is told by ratios, and
a wholesaler is not a thousand households. log2(1 + s) is 0 for nothing, 1 for one, 2 for three, 5 at the cap.
**A cap**, because one broken number must not outweigh a lifetime. **Quantity and value are one size**, because the
value of an order holds its quantity already: n pieces at the usual price have s = n whether the event tells its
quantity, its value or both; the share v = value_strength says which to believe where they differ. **By type**,
because others send these fields everywhere (GA4: engagement time with a purchase, the price as value of a view),
where they do not mean more interest. Each factor rises or stays with each of its arguments.

**Windows of a type** (`StateSettings.last_window`). An event counts in every window of interests that covers it, up to
the one named for its type: of impressions up to "session", what was shown leaves with the visit.

**Half-lives of a type** (`StateSettings.count_half_lives_s`). A state has one amount an item, and forward decay adds up
in one amount only what decays alike: w1 * 2**(-t / h1) + w2 * 2**(-t / h2) is no w * 2**(-t / h) for all t. So an item
has one half-life at a time, that of the strongest type (`STRENGTH`) so far: what was bought is remembered as a
purchase, with the views before it and after it.

    count at a time t = amount * 2**(-(t - reference) / h[strongest type])

An event of a stronger type, at a time t, leaves the count at t as it is and lets it go on with the new half-life: the
amount is multiplied by 2**((t - reference) * (1 / h[new] - 1 / h[old])). Of an event that comes out of order, t is that
of the item's newest: a count is never carried back to when it was larger. What speaks against an item is the weakest: a
dislike after a view decays with the view. Where all half-lives are of one length, nothing is converted.

A low rating is kept as a dislike (`kind_of`): its window and half-life are those of dislikes, not of ratings.
"""

from math import log2

import msgspec

from state.errors import StateError

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
RATING: int = TYPE_CODES["rating"]
DISLIKE: int = TYPE_CODES["dislike"]

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
    "rating": 3.0,  # all stars are a like, one star is a dislike
    "session_start": 0.0,
}
"""Interest that one event adds. Negative: takes interest away."""

NEGATIVE_TYPES: frozenset[int] = frozenset(TYPE_CODES[t] for t in ("remove_from_cart", "dislike", "hide"))
"""Codes of types that speak against an item: nothing is recommended because of them."""

STRENGTH: bytes = bytes(
    sorted(DEFAULT_WEIGHTS.values()).index(DEFAULT_WEIGHTS[EVENT_TYPES[code]]) if code < len(EVENT_TYPES) else 0
    for code in range(256)
)
"""Rank of each type by its default weight: which of two events on an item says more. For any byte, so that a
state written by a newer Driftline, with types unknown here, can still be updated."""

_SIZED = frozenset(TYPE_CODES[t] for t in ("purchase", "add_to_cart", "remove_from_cart"))
_LOOKED_AT = frozenset(TYPE_CODES[t] for t in ("impression", "view", "click"))

MAX_SIZE = 31.0
"""A larger size counts as this: a factor of 5, so that the largest order stays below two or three usual ones."""
VALUE_BOUND = 16.0
"""A value counts as at least a 16th of the usual one and at most 16 times: what was free was wanted all the same,
and a refund is no negative interest."""
MIN_ATTENTION, MAX_ATTENTION = 0.25, 4.0
"""A glance is not nothing (0 ms is often "not measured"); beyond 15 times the usual the page was left open."""
LOW_RATING = 2.0
"""The lowest rating weighs so many times the highest, against the item: as dislike (-6) does to like (3)."""


class WeightSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Weights of the types, and how what an event tells scales them. Raises StateError on values that cannot work."""

    base: tuple[float, ...] = tuple(DEFAULT_WEIGHTS[name] for name in EVENT_TYPES)
    """Weight by code of the type."""
    size_strength: float = 1.0
    """0: quantity and value scale nothing; 1: fully."""
    value_usual: float = 0.0
    """Usual value of one piece; 0: value scales nothing, for without it 500 may be yen or euros."""
    value_strength: float = 0.5
    """How much of the size is told by the value (1) and how much by the quantity (0)."""
    dwell_usual_ms: int = 30_000
    """Time that an interested user stays; 30 s is the usual threshold of a satisfied click (Fox et al., 2005)."""
    dwell_strength: float = 1.0
    """0: dwell time scales nothing; 1: fully."""
    rating_min: float = 1.0
    rating_neutral: float = 2.5
    """Between two whole numbers of stars, so that each says something: a weight of 0 would leave no trace of an
    item that was, after all, watched."""
    rating_max: float = 5.0

    def __post_init__(self) -> None:
        if len(self.base) != len(EVENT_TYPES):
            raise StateError(f"weights has {len(self.base)} types; give each of the {len(EVENT_TYPES)} its weight")
        for name in ("size_strength", "value_strength", "dwell_strength"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise StateError(f"weights.{name} is {getattr(self, name)}; set it from 0 to 1")
        if not self.value_usual >= 0.0:
            raise StateError(f"weights.value_usual is {self.value_usual}; set it to 0 or more")
        if self.dwell_usual_ms < 1:
            raise StateError(f"weights.dwell_usual_ms is {self.dwell_usual_ms}; set it to 1 or more")
        if not self.rating_min < self.rating_neutral < self.rating_max:
            raise StateError(
                f"weights.rating_min, rating_neutral and rating_max are {self.rating_min}, {self.rating_neutral} and "
                f"{self.rating_max}; set each above the one before"
            )


def weigh(
    code: int, quantity: float | None, value: float | None, dwell_ms: float | None, settings: WeightSettings
) -> float:
    """The weight of one event on one item, by the formula above; 0.0 leaves no trace.

    code: of the type. quantity: pieces, 0 or more. value: of the order, or the stars of a rating. dwell_ms: how long
    the user stayed. Each is None where the event does not tell it, and then changes nothing.
    At most 5 times the weight of the type, whatever is told.
    """
    weight = settings.base[code]
    if quantity is None and value is None and dwell_ms is None:
        return weight
    if code in _SIZED:
        size = 1.0 if quantity is None else max(quantity, 0.0)
        if value is not None and settings.value_usual > 0.0:
            share = settings.value_strength
            ratio = min(max(value / settings.value_usual, 1.0 / VALUE_BOUND), VALUE_BOUND)
            size = size ** (1.0 - share) * ratio**share
        return weight * _power(log2(1.0 + min(size, MAX_SIZE)), settings.size_strength)
    if code in _LOOKED_AT:
        if dwell_ms is None:
            return weight
        attention = log2(1.0 + max(dwell_ms, 0.0) / settings.dwell_usual_ms)
        return weight * _power(min(max(attention, MIN_ATTENTION), MAX_ATTENTION), settings.dwell_strength)
    if code == RATING and value is not None:
        neutral = settings.rating_neutral
        if value >= neutral:
            return weight * min((value - neutral) / (settings.rating_max - neutral), 1.0)
        return weight * LOW_RATING * max((value - neutral) / (neutral - settings.rating_min), -1.0)
    return weight


def kind_of(code: int, weight: float) -> int:
    """The type under which a state keeps an event: its own, but `dislike` for a low rating.

    What a state remembers of an item is its type, and nothing may be recommended because of a low rating.
    """
    return DISLIKE if code == RATING and weight < 0.0 else code


def _power(factor: float, strength: float) -> float:
    return factor if strength == 1.0 else float(factor**strength)
