"""Items of the catalogue."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.contract.item import Item, decode_item, encode_item
from stream.errors import ContractError


def test_all_fields() -> None:
    item = decode_item(
        b'{"item_id":"i1","name":"Mug","category":["Kitchen","Cups"],"brand":"B","domain":"home","price":9.5,'
        b'"currency":"EUR","text":"A mug.","available":false,"expires_at":"2026-01-02T03:04:05Z",'
        b'"properties":{"colour":"red"},"unknown":1}'
    )
    assert item == Item(
        item_id="i1",
        name="Mug",
        category=("Kitchen", "Cups"),
        brand="B",
        domain="home",
        price=9.5,
        currency="EUR",
        text="A mug.",
        available=False,
        expires_at=1_767_323_045_000,
        properties={"colour": "red"},
    )
    assert item.expires_at_ms == 1_767_323_045_000
    assert decode_item(encode_item(item)) == item


@pytest.mark.parametrize(("category", "path"), [("Cups", ("Cups",)), ("", ()), (["A", "B"], ("A", "B")), ([], ())])
def test_category_path(category: Any, path: tuple[str, ...]) -> None:
    assert decode_item(msgspec.json.encode({"item_id": "i", "category": category})).category_path == path


def test_the_least_and_an_integer_as_id() -> None:
    assert decode_item(b'{"item_id":7}') == Item(item_id="7")
    assert decode_item(b'{"item_id":7}').expires_at_ms is None
    assert encode_item(Item(item_id="7")) == b'{"item_id":"7"}'


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"[]",
        b"{}",
        b'{"item_id":""}',
        b'{"item_id":null}',
        b'{"item_id":true}',
        b'{"item_id":"i","price":"x"}',
        b'{"item_id":"i","price":1e400}',
        b'{"item_id":"i","available":"yes"}',
        b'{"item_id":"i","expires_at":"soon"}',
        b'{"item_id":"\xff"}',
        b"[" * 100_000,
    ],
)
def test_no_item(value: bytes) -> None:
    with pytest.raises(ContractError, match=r"item\.json"):
        decode_item(value)


@given(st.binary())
def test_random_bytes_are_no_item(value: bytes) -> None:
    with pytest.raises(ContractError):
        decode_item(value)
