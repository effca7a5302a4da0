"""The payloads of other systems, as they document them, under our names."""

from typing import Any

import msgspec
import pytest

from state.weights import EVENT_TYPES
from stream.contract.aliases import (
    EVENT_TYPE_ALIASES,
    FIELD_ALIASES,
    ITEM_ALIASES,
    canonical_event_type,
    to_own_names,
)
from stream.contract.event import Event, EventDecoder, EventItem

AT_MS = 1_767_323_045_123
AT_ISO = "2026-01-02T03:04:05.123Z"


def decode(payload: dict[str, Any]) -> Event:
    return EventDecoder().decode(msgspec.json.encode(payload), None, None, now_ms=AT_MS)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        *[(name, name) for name in EVENT_TYPES],
        # GA4
        ("view_item_list", "impression"),
        ("select_item", "click"),
        ("view_item", "view"),
        ("add_to_cart", "add_to_cart"),
        ("remove_from_cart", "remove_from_cart"),
        ("purchase", "purchase"),
        ("session_start", "session_start"),
        # Segment
        ("Product List Viewed", "impression"),
        ("Product Clicked", "click"),
        ("Product Viewed", "view"),
        ("Product Added", "add_to_cart"),
        ("Product Removed", "remove_from_cart"),
        ("Order Completed", "purchase"),
        # Snowplow
        ("list_view", "impression"),
        ("list_click", "click"),
        ("product_view", "view"),
        ("transaction", "purchase"),
        # Google Retail
        ("detail-page-view", "view"),
        ("add-to-cart", "add_to_cart"),
        ("remove-from-cart", "remove_from_cart"),
        ("purchase-complete", "purchase"),
        # spelling
        ("PRODUCT VIEWED", "view"),
        (" product_Viewed ", "view"),
        ("Purchase", "purchase"),
        ("AddToCart", "add_to_cart"),
        # types of CloudEvents
        ("com.example.shop.view", "view"),
        ("com.example.product_viewed.v2", "view"),
        ("com.example.Order Completed", "purchase"),
    ],
)
def test_event_type(name: str, ours: str) -> None:
    assert canonical_event_type(name) == ours


@pytest.mark.parametrize(
    "name", ["", " ", ".", "track", "unstruct", "search", "view.", "viewed", "v1", "\0", "view" + " " * 200]
)
def test_no_event_type(name: str) -> None:
    assert canonical_event_type(name) is None


def test_tables_are_sound() -> None:
    assert set(EVENT_TYPE_ALIASES.values()) <= set(EVENT_TYPES)
    assert not set(EVENT_TYPE_ALIASES) & set(EVENT_TYPES)
    assert all(canonical_event_type(alias) == ours for alias, ours in EVENT_TYPE_ALIASES.items())
    assert set(FIELD_ALIASES) == set(Event.__struct_fields__)
    assert set(ITEM_ALIASES) == set(EventItem.__struct_fields__)
    assert all(field == places[0] for field, places in {**FIELD_ALIASES, **ITEM_ALIASES}.items())


GA4 = {
    "event_id": "e1",
    "event_name": "purchase",
    "event_timestamp": "1767323045123456",
    "user_pseudo_id": "1234.5678",
    "user_id": None,
    "event_params": [
        {"key": "ga_session_id", "value": {"string_value": None, "int_value": 77}},
        {"key": "currency", "value": {"string_value": "EUR"}},
        {"key": "broken"},
    ],
    "ecommerce": {"transaction_id": "t1", "purchase_revenue": 30.5},
    "items": [
        {"item_id": "sku-1", "item_name": "Mug", "item_category": "Kitchen", "price": 10.25, "quantity": "2"},
        {"item_id": "sku-2", "item_category": "Garden", "price": 10, "quantity": 1, "item_list_index": 4},
    ],
}
GA4_EVENT = Event(
    event_id="e1",
    event_type="purchase",
    occurred_at=AT_MS,
    anonymous_id="1234.5678",
    session_id="77",
    currency="EUR",
    value=30.5,
    items=(
        EventItem("sku-1", quantity=2, price=10.25, category="Kitchen"),
        EventItem("sku-2", quantity=1, price=10, category="Garden", position=4),
    ),
)
GA4_DATA_LAYER = {
    "event_id": "e1",
    "event": "add_to_cart",
    "timestamp": AT_MS,
    "client_id": "1234.5678",
    "ecommerce": {"currency": "EUR", "value": 10.25, "items": [{"item_id": "sku-1", "index": 3}]},
}
GA4_DATA_LAYER_EVENT = Event(
    event_id="e1",
    event_type="add_to_cart",
    occurred_at=AT_MS,
    anonymous_id="1234.5678",
    currency="EUR",
    value=10.25,
    items=(EventItem("sku-1", position=3),),
)
SEGMENT_PROPERTIES = {
    "product_id": "507f1f",
    "sku": "G-32",
    "category": "Games",
    "name": "Monopoly",
    "price": 18.99,
    "quantity": 1,
    "currency": "usd",
    "position": 3,
    "value": 18.99,
}
SEGMENT = {
    "type": "track",
    "event": "Product Viewed",
    "messageId": "ajs-1",
    "userId": "019mr8",
    "anonymousId": "23adfd82",
    "timestamp": AT_ISO,
    "sentAt": "2026-01-02T03:04:06Z",
    "context": {"library": {"name": "analytics.js"}},
    "properties": SEGMENT_PROPERTIES,
}
SEGMENT_EVENT = Event(
    event_id="ajs-1",
    event_type="view",
    occurred_at=AT_MS,
    sent_at=1_767_323_046_000,
    user_id="019mr8",
    anonymous_id="23adfd82",
    item_id="507f1f",
    category="Games",
    price=18.99,
    quantity=1,
    currency="usd",
    position=3,
    value=18.99,
    properties=SEGMENT_PROPERTIES,
)
SEGMENT_ORDER_PROPERTIES = {
    "order_id": "50314b8e",
    "total": 27.5,
    "currency": "USD",
    "products": [
        {"product_id": "507f1f", "category": "Games", "price": 19, "quantity": 1},
        {"product_id": "505bd7", "price": "8.5"},
    ],
}
SEGMENT_ORDER = {
    "type": "track",
    "event": "Order Completed",
    "messageId": "ajs-2",
    "userId": 19,
    "timestamp": AT_ISO,
    "properties": SEGMENT_ORDER_PROPERTIES,
}
SEGMENT_ORDER_EVENT = Event(
    event_id="ajs-2",
    event_type="purchase",
    occurred_at=AT_MS,
    user_id="19",
    value=27.5,
    currency="USD",
    items=(
        EventItem("507f1f", category="Games", price=19, quantity=1),
        EventItem("505bd7", price=8.5),
    ),
    properties=SEGMENT_ORDER_PROPERTIES,
)
SNOWPLOW = {
    "event": "unstruct",
    "event_name": "snowplow_ecommerce_action",
    "event_id": "c6ef3124",
    "derived_tstamp": "2026-01-02 03:04:05.123",
    "collector_tstamp": "2026-01-02 03:04:09.000",
    "dvce_sent_tstamp": "2026-01-02 03:04:06.000",
    "user_id": None,
    "domain_userid": "bc2e92ec",
    "network_userid": "ecdff4d0",
    "domain_sessionid": "s1",
    "unstruct_event_com_snowplowanalytics_snowplow_ecommerce_snowplow_ecommerce_action_1": {
        "type": "list_click",
        "name": "recommended",
    },
    "contexts_com_snowplowanalytics_snowplow_ecommerce_product_1": [
        {"id": "P125", "name": "Baseball T", "category": "Mens/Apparel", "price": 200, "position": 2}
    ],
}
SNOWPLOW_EVENT = Event(
    event_id="c6ef3124",
    event_type="click",
    occurred_at=AT_MS,
    sent_at=1_767_323_046_000,
    anonymous_id="bc2e92ec",
    session_id="s1",
    items=(EventItem("P125", category="Mens/Apparel", price=200, position=2),),
)
GOOGLE_RETAIL = {
    "eventId": "e9",
    "eventType": "purchase-complete",
    "visitorId": "visitor0",
    "userInfo": {"userId": "u9"},
    "eventTime": AT_ISO,
    "sessionId": "s9",
    "attributionToken": "token",
    "productDetails": [
        {"product": {"id": "p1", "categories": ["Shoes > Running", "Sale"], "brands": ["B", "C"]}, "quantity": 3},
        {"product": {"id": "p2", "priceInfo": {"price": 5.5}}},
    ],
    "purchaseTransaction": {"id": "t1", "revenue": 35.25, "currencyCode": "EUR"},
}
GOOGLE_RETAIL_EVENT = Event(
    event_id="e9",
    event_type="purchase",
    occurred_at=AT_MS,
    user_id="u9",
    anonymous_id="visitor0",
    session_id="s9",
    recommendation_id="token",
    value=35.25,
    currency="EUR",
    items=(EventItem("p1", category="Shoes > Running", quantity=3, brand="B"), EventItem("p2", price=5.5)),
)


@pytest.mark.parametrize(
    ("payload", "event"),
    [
        pytest.param(GA4, GA4_EVENT, id="GA4 export"),
        pytest.param(GA4_DATA_LAYER, GA4_DATA_LAYER_EVENT, id="GA4 data layer"),
        pytest.param(SEGMENT, SEGMENT_EVENT, id="Segment view"),
        pytest.param(SEGMENT_ORDER, SEGMENT_ORDER_EVENT, id="Segment order"),
        pytest.param(SNOWPLOW, SNOWPLOW_EVENT, id="Snowplow"),
        pytest.param(GOOGLE_RETAIL, GOOGLE_RETAIL_EVENT, id="Google Retail"),
    ],
)
def test_documented_payload(payload: dict[str, Any], event: Event) -> None:
    assert decode(payload) == event


@pytest.mark.parametrize(
    ("field", "place"), [(field, place) for field, places in FIELD_ALIASES.items() for place in places]
)
def test_every_place_is_read(field: str, place: str) -> None:
    value: Any = {"event_type": "view", "items": ["a"], "brand": "B"}.get(field, {"k": 1})
    payload: Any = value
    for step in reversed(place.split(".")):
        payload = {step: payload}
    expected = [{"item_id": "a"}] if field == "items" else value
    assert to_own_names(payload)[field] == expected


@pytest.mark.parametrize(("brand", "read"), [(7, "7"), ([], None), ({"name": "B"}, None), ("x" * 513, None)])
def test_a_brand_that_cannot_be_used_is_no_reason_to_refuse_an_event(brand: Any, read: str | None) -> None:
    event = decode({"event_type": "view", "occurred_at": AT_MS, "user_id": "u", "item_id": "i", "brand": brand})
    assert event.brand == read
    line = {"item_id": "i", "brand": brand, "properties": ["not", "a", "table"]}
    event = decode({"event_type": "view", "occurred_at": AT_MS, "user_id": "u", "items": [line]})
    assert event.lines() == (EventItem("i", brand=read),)


def test_the_first_place_counts_in_whatever_order_they_stand() -> None:
    assert to_own_names({"visitorId": "b", "anonymousId": "a"})["anonymous_id"] == "a"
    assert to_own_names({"anonymousId": "a", "visitorId": "b"})["anonymous_id"] == "a"
    assert to_own_names({"anonymousId": None, "visitorId": "b"})["anonymous_id"] == "b"


def test_a_known_event_type_is_preferred_to_an_unknown_one() -> None:
    assert to_own_names({"event_name": "unknown", "type": "view"})["event_type"] == "view"
    assert to_own_names({"event_type": "unknown", "type": "track"})["event_type"] == "unknown"


def test_an_experiment_may_be_its_name() -> None:
    assert to_own_names({"experiment": "blue"})["experiment"] == {"name": "blue"}
