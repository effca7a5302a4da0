"""How lists are made."""

from typing import Literal

import msgspec

from model.errors import ModelError

Exclude = Literal["seen", "session", "none"]
Limit = Literal["all", "event"]


class RankingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Shape and weights of the lists. Raises ModelError on a value that cannot work.

    The weights are those of the log-linear blend; an artifact that brings a learnt blend does not use them,
    but for choosing the candidates of a large catalogue.
    """

    list_size: int = 20
    exclude: Exclude = "seen"
    """Items that a list leaves out: all the state remembers (films), those of the running session (a shop), or
    none. An item with a decayed count below zero (hidden, disliked) is left out always."""
    domains: Limit = "all"
    """"event": a list after an event that names a domain holds items of that domain alone, by interests of all."""
    listed_only: bool = False
    """Leave out items that the catalogue does not hold, too."""
    parts: bool = True
    """Say of each item how much of its score came from the network, the rules, the user's counts, popularity."""

    network_weight: float = 1.0
    rules_weight: float = 1.0
    """Of log(1 + rules / 1e-5), rules normalised per user; 0.8 to 1.2 were best on MovieLens-1M."""
    basket_weight: float = 0.0
    """The same for the rules among items of one session. 0 saves their time; a shop wants about 0.5."""
    personal_weight: float = 1.0
    """Of log(1 + decayed count); without effect when `exclude` is "seen"."""
    popularity_weight: float = 0.15
    """Of log(decayed popularity)."""

    rules_items: int = 10
    """So many of the last known items fire their rules."""
    basket_items: int = 30
    """So many of the last items of the running session fire their basket rules."""
    rules_age_decay: float = 0.7
    """Each older item's rules weigh this much less."""
    rules_per_item: int = 50
    """Rules used of each item, the best first; more costs time and brings little."""

    popularity_half_life_s: float = 7 * 86_400.0
    """Weekly: the popularity list that is hard to beat on temporal splits is that of seven days."""
    trend_refresh_events: int = 1024
    """Offsets between two snapshots of a partition's popularity."""
    popularity_prior: float = 4_000.0
    """The model's popularity counts like so much event weight (500 purchases) beside what the partition has
    seen: a young partition then does not have a noisy list."""

    def __post_init__(self) -> None:
        for name in ("list_size", "rules_items", "basket_items", "rules_per_item", "trend_refresh_events"):
            if getattr(self, name) < 1:
                raise ModelError(f"ranking.{name} is {getattr(self, name)}; set it to 1 or more")
        if self.list_size > 1000:
            raise ModelError(f"ranking.list_size is {self.list_size}; set it to 1000 or less")
        if self.popularity_half_life_s <= 0 or self.popularity_prior <= 0:
            raise ModelError("ranking.popularity_half_life_s and popularity_prior must be above 0")
        if not 0.0 < self.rules_age_decay <= 1.0:
            raise ModelError(f"ranking.rules_age_decay is {self.rules_age_decay}; set it above 0, at most 1")
        if self.exclude not in ("seen", "session", "none"):
            raise ModelError(f"ranking.exclude is {self.exclude!r}; set it to seen, session or none")
        if self.domains not in ("all", "event"):
            raise ModelError(f"ranking.domains is {self.domains!r}; set it to all or event")
