"""One valid event of one user, as the state and the model see it."""

import msgspec


class Interaction(msgspec.Struct, gc=False):
    """One valid event of one user.

    A purchase may hold several items, and an item makes several interests or none.
    """

    event: int
    """`key_of(event_id)`: two events of one key are the same event sent twice."""
    type: int
    """Index into `state.weights.EVENT_TYPES`."""
    time_ms: int
    """When it happened, epoch milliseconds UTC, already clamped to a sane range."""
    items: tuple[int, ...]
    """Item keys (`key_of(item_id)`); empty for session_start."""
    interests: tuple[int, ...]
    """`state.window.interest_key` of the category of each item, where it is known, and of what else
    `StateSettings.interests` names. Several items of one category make it several times."""
    weight: float
    """Its weight (`state.weights.weigh`); 0 leaves no trace among the items."""
    offset: int
    """Offset of the event in its source partition."""
    payload: int = 0
    """16 bits of the event's content, never 0; 0: not known. Tells an event sent twice from two of one id."""
    session: int = 0
    """`session_key` of the producer's session, never 0; 0: not given, sessions are cut by inactivity."""
    domain: int = 0
    """`key_of` the domain that the event's items belong to; 0: not given. Nothing of a state depends on it: interests
    span domains, and a list may be limited to one."""
    names: tuple[str, ...] = ()
    """`state.names.interest_name` of each of `interests`, or empty where nobody reads them."""
