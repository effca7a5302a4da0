"""The names other systems use for our event types and fields: two tables, and how they are read.

Known are the documented payloads of GA4 (BigQuery export and data layer), Segment (track calls),
Snowplow (enriched events with the e-commerce plug-in) and Google Retail (user events). Names of event
types are matched without regard to case, and with space, '-' and '_' as equals.

An event that is complete under our own names never comes here: it is read by them alone.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from state.weights import EVENT_TYPES

#: Alias of an event type (lower case, '_' between words) -> our event type.
EVENT_TYPE_ALIASES: dict[str, str] = {
    # GA4; add_to_cart, remove_from_cart, purchase and session_start are ours too
    "view_item_list": "impression",
    "select_item": "click",
    "view_item": "view",
    # Segment
    "product_list_viewed": "impression",
    "product_clicked": "click",
    "product_viewed": "view",
    "product_added": "add_to_cart",
    "product_removed": "remove_from_cart",
    "order_completed": "purchase",
    # Snowplow
    "list_view": "impression",
    "list_click": "click",
    "product_view": "view",
    "transaction": "purchase",
    # Google Retail; add-to-cart and remove-from-cart are ours with other separators
    "detail_page_view": "view",
    "purchase_complete": "purchase",
    # common in older tag managers and in public click logs
    "addtocart": "add_to_cart",
    "removefromcart": "remove_from_cart",
}

_SNOWPLOW = "com_snowplowanalytics_snowplow_ecommerce"
_SNOWPLOW_ACTION = f"unstruct_event_{_SNOWPLOW}_snowplow_ecommerce_action_1"
_SNOWPLOW_PRODUCTS = f"contexts_{_SNOWPLOW}_product_1"

#: Our field -> where it may be found, first match first; a dot steps into an object.
FIELD_ALIASES: dict[str, tuple[str, ...]] = {
    "event_id": ("event_id", "eventId", "messageId", "message_id"),
    "event_type": (
        "event_type",
        "eventType",
        "event_name",
        "eventName",
        "event",
        "name",
        f"{_SNOWPLOW_ACTION}.type",
        "type",
    ),
    "occurred_at": (
        "occurred_at",
        "occurred_at_ms",
        "occurredAt",
        "derived_tstamp",
        "collector_tstamp",
        "event_timestamp",
        "timestamp_micros",
        "eventTime",
        "event_time",
        "timestamp",
        "originalTimestamp",
        "time",
    ),
    "user_id": ("user_id", "userId", "userInfo.userId"),
    "anonymous_id": (
        "anonymous_id",
        "anonymousId",
        "user_pseudo_id",
        "client_id",
        "visitorId",
        "visitor_id",
        "domain_userid",
        "network_userid",
    ),
    "item_id": (
        "item_id",
        "itemId",
        "product_id",
        "productId",
        "properties.product_id",
        "properties.productId",
        "properties.item_id",
        "properties.sku",
    ),
    "items": (
        "items",
        "products",
        "properties.products",
        "properties.items",
        "ecommerce.items",
        "params.items",
        "productDetails",
        "product_details",
        _SNOWPLOW_PRODUCTS,
    ),
    "session_id": (
        "session_id",
        "sessionId",
        "properties.session_id",
        "event_params.ga_session_id",
        "params.ga_session_id",
        "domain_sessionid",
    ),
    "category": ("category", "properties.category"),
    "brand": ("brand", "properties.brand"),
    "quantity": ("quantity", "properties.quantity"),
    "price": ("price", "properties.price"),
    "value": (
        "value",
        "properties.value",
        "properties.total",
        "properties.revenue",
        "ecommerce.value",
        "params.value",
        "ecommerce.purchase_revenue",
        "event_value_in_usd",
        "purchaseTransaction.revenue",
    ),
    "currency": (
        "currency",
        "properties.currency",
        "ecommerce.currency",
        "params.currency",
        "event_params.currency",
        "purchaseTransaction.currencyCode",
    ),
    "position": ("position", "properties.position"),
    "dwell_ms": ("dwell_ms", "dwellMs", "event_params.engagement_time_msec", "params.engagement_time_msec"),
    "recommendation_id": (
        "recommendation_id",
        "recommendationId",
        "properties.recommendation_id",
        "attributionToken",
        "attribution_token",
    ),
    "experiment": ("experiment",),
    "sent_at": ("sent_at", "sentAt", "dvce_sent_tstamp"),
    "tenant": ("tenant",),
    "domain": ("domain",),
    "properties": ("properties",),
}

#: Field of one item of `items` -> where it may be found in that item.
ITEM_ALIASES: dict[str, tuple[str, ...]] = {
    "item_id": ("item_id", "itemId", "product_id", "productId", "product.id", "id", "sku"),
    "quantity": ("quantity",),
    "price": ("price", "product.priceInfo.price"),
    "category": ("category", "item_category", "product.categories"),
    "position": ("position", "index", "item_list_index"),
    "brand": ("brand", "item_brand", "product.brands"),
    "properties": ("properties",),
}

# Fields whose JSON integers are taken as text, and those whose decimal text is taken as a number.
_TEXT_FIELDS = frozenset(
    {"event_id", "user_id", "anonymous_id", "item_id", "brand", "session_id", "recommendation_id", "tenant", "domain"}
)
_NUMBER_FIELDS = frozenset({"quantity", "price", "value", "position", "dwell_ms"})
_NUMBER = re.compile(r"-?\d{1,15}(\.\d{1,15})?", re.ASCII)

#: Event type that asks to forget its user. It says nothing of an item, so it has no weight and no code in states.
USER_ERASED = "user_erased"

_OWN_TYPES = frozenset((*EVENT_TYPES, USER_ERASED))
# Longer than any name in use; what is cached must be bounded, for names come from outside.
_MAX_TYPE_CHARS = 200
_MAX_BRAND_CHARS = 512
_SEPARATORS = re.compile(r"[\s_-]+")
_VERSION = re.compile(r"\.v\d+$")


class _Node:
    """One member name in a payload: the fields that may be read from it, and the members inside it."""

    __slots__ = ("fields", "inside")

    def __init__(self) -> None:
        self.fields: list[tuple[str, int]] = []  # (our field, rank among its places: 0 is the first)
        self.inside: dict[str, _Node] = {}


def _tree(table: dict[str, tuple[str, ...]]) -> dict[str, _Node]:
    """The table turned round, so that a payload is read in one walk over the members it has."""
    root = _Node()
    for field, paths in table.items():
        for rank, path in enumerate(paths):
            node = root
            for step in path.split("."):
                node = node.inside.setdefault(step, _Node())
            node.fields.append((field, rank))
    return root.inside


_FIELD_TREE = _tree(FIELD_ALIASES)
_ITEM_TREE = _tree(ITEM_ALIASES)
# Rank of a name that is no event type: Snowplow says event='unstruct', Segment type='track', and the event
# type stands elsewhere. The lowest of them is taken only when none is known, and the event refused by it.
_UNKNOWN_TYPE_RANK = 1000


def canonical_event_type(name: str) -> str | None:
    """Our event type of a name in any known vocabulary, or None.

    Of a dotted name ('com.shop.product_viewed.v1', as CloudEvents types are) the last part counts, a
    version at its end not.
    """
    if name in _OWN_TYPES:
        return name
    return _known_alias(name) if len(name) <= _MAX_TYPE_CHARS else None


@lru_cache(maxsize=1024)
def _known_alias(name: str) -> str | None:
    last = _VERSION.sub("", name.strip().lower()).rpartition(".")[2]
    word = _SEPARATORS.sub("_", last)
    return word if word in _OWN_TYPES else EVENT_TYPE_ALIASES.get(word)


def to_own_names(payload: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a foreign payload under our names. Values are not checked; null counts as absent.

    Ids given as JSON integers become text, and numbers given as decimal text become numbers.
    """
    own = _read(payload, _FIELD_TREE)
    if isinstance(own.get("items"), list):
        own["items"] = [_item(item) for item in own["items"]]
    if isinstance(own.get("experiment"), str):
        own["experiment"] = {"name": own["experiment"]}
    return own


def _read(source: Mapping[str, Any], tree: dict[str, _Node]) -> dict[str, Any]:
    found: dict[str, tuple[int, Any]] = {}
    _walk(source, tree, found)
    return {field: value for field, (_, value) in found.items()}


def _walk(source: Mapping[str, Any], tree: dict[str, _Node], found: dict[str, tuple[int, Any]]) -> None:
    """Put into `found` the value of each field with the rank of its place; a lower rank replaces a higher."""
    for name, value in source.items():
        node = tree.get(name)
        if node is None or value is None:
            continue
        for field, rank in node.fields:
            plain = _plain(field, value)
            if field == "event_type" and not (isinstance(value, str) and canonical_event_type(value)):
                rank += _UNKNOWN_TYPE_RANK
            if plain is not None and (field not in found or rank < found[field][0]):
                found[field] = (rank, plain)
        if node.inside:
            inside = _ga4_params(value) if name == "event_params" else value
            if isinstance(inside, dict):
                _walk(inside, node.inside, found)


def _plain(field: str, value: Any) -> Any:
    kind = type(value)
    if kind is int and field in _TEXT_FIELDS:
        return str(value)
    if kind is str and field in _NUMBER_FIELDS and _NUMBER.fullmatch(value):
        return float(value) if "." in value else int(value)
    if kind is list and field in ("category", "brand"):  # Google Retail gives several; the first is the main one
        value = value[0] if value else None
    if field == "brand" and not (isinstance(value, str) and len(value) <= _MAX_BRAND_CHARS):
        return None  # it says little: no reason to refuse an event
    return value


def _item(item: Any) -> dict[str, Any]:
    if not isinstance(item, dict):
        return {"item_id": _plain("item_id", item)}
    own = _read(item, _ITEM_TREE)
    if not isinstance(own.get("properties"), dict):
        own.pop("properties", None)
    return own


def _ga4_params(params: Any) -> Any:
    """GA4's list of {key, value: {string_value | int_value | ...}} as one object."""
    if not isinstance(params, list):
        return params
    return {
        param["key"]: next((v for v in param["value"].values() if v is not None), None)
        for param in params
        if isinstance(param, dict) and isinstance(param.get("key"), str) and isinstance(param.get("value"), dict)
    }
