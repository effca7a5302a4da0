"""Properties of events and items: what producers add beyond the contract, where a setting names one of them."""

from collections.abc import Mapping
from typing import Any

MAX_CHARS = 512
"""As an id: what is longer is a text, and no property that items share."""


def text_of(properties: Mapping[str, Any] | None, name: str) -> str:
    """A property as text; '' where there is none, or it is no text, number or truth value, or too long.

    Numbers and truth values are as JSON writes them, but 2.0 is "2": producers differ in it.
    """
    value = properties.get(name) if properties else None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value) if isinstance(value, str | int | float) else ""
    return text if len(text) <= MAX_CHARS else ""
