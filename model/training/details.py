"""What is told of an item beside its id: by the events of a log, or by a catalogue."""

from __future__ import annotations

from math import isfinite

import msgspec

TEXT_CHARACTERS = 2000
"""Of an item's description that are kept: what matters is said first, and a million items must fit in memory."""


class ItemDetails(msgspec.Struct, frozen=True, gc=False):
    """What one source tells of an item; '' and None are not told."""

    name: str = ""
    category: str = ""
    """As events name it: an interest of users."""
    path: str = ""
    """The category with those above it, broadest first: 'shoes > running'."""
    brand: str = ""
    price: float | None = None
    """In the one currency of its source; above 0."""
    text: str = ""
    """Its description."""

    def over(self, other: ItemDetails) -> ItemDetails:
        """This, and where it tells nothing what another source tells. A category comes with its path."""
        return ItemDetails(
            self.name or other.name,
            self.category or other.category,
            self.path if self.category else other.path,
            self.brand or other.brand,
            other.price if self.price is None else self.price,
            self.text or other.text,
        )


NOTHING = ItemDetails()


def price_of(value: float | str | None) -> float | None:
    """A price as a number; None where it tells nothing: not given, no finite number, not above 0.

    Raises ValueError when it is a text that is no number.
    """
    price = 0.0 if value is None or value == "" else float(value)
    return price if isfinite(price) and price > 0 else None
