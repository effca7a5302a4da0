"""An item of the catalogue, as shops send it.

One record an item on the items topic (compacted); its key is the item_id, and the last one counts. A record
without a value takes the item out of the catalogue: readers see that before they decode.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from stream.contract.event import Amount, Id, Time
from stream.contract.times import time_ms
from stream.errors import ContractError


class Item(msgspec.Struct, gc=False, kw_only=True, omit_defaults=True):
    """Something that can be recommended."""

    item_id: Annotated[Id, Meta(min_length=1, description="The item: the key of the record.")]
    name: Annotated[Id, Meta(description="What people call it.")] = ""
    category: Annotated[
        Id | Annotated[tuple[Id, ...], Meta(max_length=32)],
        Meta(description="Its category: one name, or the path to it, broadest first."),
    ] = ()
    brand: Annotated[Id | None, Meta(description="Its brand.")] = None
    domain: Annotated[
        Id | None, Meta(description="The part of the offer it belongs to (books, films), as domain of an event.")
    ] = None
    price: Annotated[Amount | None, Meta(description="Price of one.")] = None
    currency: Annotated[Id | None, Meta(description="ISO 4217 code of the price.")] = None
    text: Annotated[Annotated[str, Meta(max_length=100_000)] | None, Meta(description="Its description.")] = None
    available: Annotated[bool, Meta(description="Whether it may be recommended now.")] = True
    expires_at: Annotated[
        Time | None, Meta(description="From when on it may not be recommended: as occurred_at of an event.")
    ] = None
    properties: Annotated[
        dict[str, Any] | None, Meta(description="Anything else; read where state.interests names one of them.")
    ] = None

    @property
    def category_path(self) -> tuple[str, ...]:
        """The category as a path, broadest first; empty when unknown."""
        if isinstance(self.category, str):
            return (self.category,) if self.category else ()
        return self.category

    @property
    def expires_at_ms(self) -> int | None:
        """When it expires, ms since 1970 in UTC, if ever. Raises ValueError when expires_at is no time."""
        return None if self.expires_at is None else time_ms(self.expires_at)


_encoder = msgspec.json.Encoder()


def encode_item(item: Item) -> bytes:
    """The value of the item's record: JSON, absent fields left out."""
    return _encoder.encode(item)


def decode_item(value: bytes) -> Item:
    """The item of a record; an item_id given as a JSON integer becomes text, expires_at becomes ms.

    Raises ContractError, its text without values, when the value is no item.
    """
    try:
        payload = msgspec.json.decode(value)
        if isinstance(payload, dict) and type(payload.get("item_id")) is int:
            payload["item_id"] = str(payload["item_id"])
        item = msgspec.convert(payload, Item)
        item.expires_at = item.expires_at_ms
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        what = "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise ContractError(f"the value is no item ({what}): send it as stream/contract/schemas/item.json") from None
    return item
