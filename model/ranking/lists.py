"""What a list is: items with their rank, score and reasons. Without torch: whoever only reads lists imports this."""

import msgspec

from state.interaction import Interaction

PARTS = ("network", "rules", "personal", "popularity")
"""What a hybrid score is made of: the network, sequence and basket rules, the user's own counts, popularity."""

POPULAR_PARTS = ("popularity", "interest")
"""What a score of a popular list is made of: popularity, and what the user's interests raise it by."""


class Reason(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Why an item is on a list. `type` says which of the other fields are set.

    - `bought_before`: the user bought this item; no further field.
    - `because_of`: the user did `event_type` on `item_id` (`item_name`, where it has another name), and this item
      follows it.
      The item itself may stand there: it was viewed, or put into the cart, but not bought.
    - `often_together`: it is often in one session or basket with `item_id` of the user's session.
    - `interest_in`: the user's interest in `category`.
    - `popular`: many want it now.
    - `for_you`: the network expects it; no single event explains it.
    """

    type: str
    item_id: str | None = None
    item_name: str | None = None
    category: str | None = None
    event_type: str | None = None


class RankedItem(msgspec.Struct, gc=False, omit_defaults=True):
    """One place of a list. `rank` counts from 1; `score` orders one list and compares with no other."""

    item_id: str
    rank: int
    score: float
    reasons: list[Reason]
    """The items of many lists share one such list: read only."""
    parts: list[float] = []
    """What each of the list's `parts` gave to the score; absent unless `ranking.parts` is set."""


class Interest(msgspec.Struct, gc=False, omit_defaults=True):
    """One of a user's interest points as of the user's newest event: a category, or what `kind` says.

    weight: over the windows, recent ones counting more (see state.points); share: of all interests, 0 to 1; trend:
    "rising", "steady" or "fading"; first and last seen: seconds since 1970, to the pane of the window; kind: "brand" or
    the name of a property of items, absent for a category.
    """

    name: str
    weight: float
    share: float
    trend: str
    first_seen_s: int
    last_seen_s: int
    kind: str = ""


class UserList(msgspec.Struct, gc=False):
    """A fresh list of one user, after one event."""

    user: bytes
    offset: int
    """Source offset of the event."""
    event: Interaction
    events_applied: int
    """How many of the user's events the state behind this list holds."""
    strategy: str
    """"hybrid": the user's own; "popular": nothing that the model knows is known of the user."""
    items: list[RankedItem]
    interests: list[Interest]
    """The user's strongest interests, the strongest first."""
    parts: tuple[str, ...] = ()
    """Names of what made the scores, PARTS or POPULAR_PARTS, in the order of the items' parts; empty unless asked."""
