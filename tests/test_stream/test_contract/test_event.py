"""Events under our own names, and every way to be no event."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.weights import EVENT_TYPES
from stream.contract.aliases import FIELD_ALIASES
from stream.contract.event import (
    Event,
    EventDecoder,
    EventItem,
    Experiment,
    Headers,
    decode_event,
    encode_event,
)
from stream.contract.times import END_MS, FIRST_MS
from stream.errors import EventError

NOW_MS = 1_767_323_045_123
OWN: dict[str, Any] = {
    "event_id": "e1",
    "event_type": "view",
    "occurred_at": NOW_MS,
    "user_id": "u1",
    "item_id": "i1",
}
REASONS = {
    "null_value",
    "too_large",
    "not_json",
    "wrong_type",
    "bad_value",
    "bad_header",
    "bad_cloudevent",
    "unknown_event_type",
    "bad_time",
    "future_time",
    "no_user",
    "no_item",
}
decoder = EventDecoder()


def decode(value: Any, headers: Headers | None = None) -> Event:
    raw = value if isinstance(value, bytes) else msgspec.json.encode(value)
    return decoder.decode(raw, None, headers, now_ms=NOW_MS)


def own(**changes: Any) -> dict[str, Any]:
    """OWN with changes; a member set to None here is left out."""
    return {name: value for name, value in {**OWN, **changes}.items() if value is not None}


def test_bare_event() -> None:
    event = decode(OWN)
    assert event == Event(event_id="e1", event_type="view", occurred_at=NOW_MS, user_id="u1", item_id="i1")
    assert (event.subject, event.key, event.occurred_at_ms, event.sent_at_ms) == ("u1", b"u1", NOW_MS, None)
    assert event.lines() == (EventItem("i1"),)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"occurred_at": "2026-01-02T03:04:05Z"},
        {"event_type": "Product Viewed"},
        {"user_id": None, "anonymous_id": "a"},
        {"item_id": None, "items": ["a", {"item_id": "b"}]},
        {"item_id": None, "event_type": "session_start"},
    ],
)
def test_our_own_names_are_read_in_one_pass(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def translate(*_: object) -> Event:
        raise AssertionError("went by way of the aliases")

    monkeypatch.setattr("stream.contract.event._translate", translate)
    assert decode({**OWN, **changes}).event_id == "e1"


def test_all_fields() -> None:
    event = decode(
        own(
            anonymous_id="a1",
            category="Shoes",
            brand="B",
            quantity=2,
            price=9.5,
            value=19,
            currency="EUR",
            position=0,
            session_id="s1",
            dwell_ms=1500,
            recommendation_id="3-1-ab",
            experiment={"name": "x", "variant": "b"},
            sent_at="2026-01-02T03:04:06Z",
            tenant="t1",
            domain="books",
            properties={"colour": ["red"]},
        )
    )
    assert event.lines() == (EventItem("i1", 2, 9.5, "Shoes", 0, "B", {"colour": ["red"]}),)
    assert (event.subject, event.sent_at, event.sent_at_ms) == ("u1", 1_767_323_046_000, 1_767_323_046_000)
    assert event.experiment == Experiment("x", "b")
    assert event.properties == {"colour": ["red"]}
    assert (event.session_id, event.tenant, event.domain) == ("s1", "t1", "books")


def test_iso_time_becomes_ms() -> None:
    event = decode(own(occurred_at="2026-01-02T04:04:05.123+01:00"))
    assert event.occurred_at == event.occurred_at_ms == NOW_MS


@pytest.mark.parametrize("user", [{"user_id": None}, {"user_id": ""}])
def test_an_anonymous_user_has_their_anonymous_id_as_key(user: dict[str, Any]) -> None:
    event = decode({**OWN, **user, "anonymous_id": "ä1"})
    assert (event.subject, event.key) == ("ä1", "ä1".encode())


def test_several_items_as_objects_or_names_replace_item_id() -> None:
    line = {"item_id": "a", "quantity": 3, "price": 1, "category": "C", "brand": "B", "properties": {"colour": "red"}}
    event = decode(own(items=[line, "b"], brand="other", properties={"colour": "blue"}))
    assert event.lines() == (EventItem("a", 3, 1, "C", None, "B", {"colour": "red"}), EventItem("b"))


def test_a_session_start_needs_no_item_and_may_have_none() -> None:
    assert decode(own(event_type="session_start", item_id=None)).lines() == ()


def test_integers_as_ids_become_text() -> None:
    event = decode(own(event_id=1, user_id=2**70, item_id=3, items=[4, {"item_id": 5}]))
    assert (event.event_id, event.user_id, event.item_id) == ("1", str(2**70), "3")
    assert event.lines() == (EventItem("4"), EventItem("5"))


def test_decimal_text_as_number() -> None:
    event = decode(own(quantity="2", price="9.50", position="1"))
    assert (event.quantity, event.price, event.position) == (2, 9.5, 1)


def test_null_counts_as_absent() -> None:
    absent = {name: None for name in FIELD_ALIASES if name not in OWN}
    assert decode({**OWN, **absent}) == decode(OWN)


class TestWithoutAnId:
    def test_the_content_stands_for_it(self) -> None:
        # For ever: states hold the ids of events, and a new release must know again what an older one has seen.
        assert decode(own(event_id=None)).event_id == "content-795e9bad991b9acf95429c643979c1a5"
        order = own(
            event_id=None,
            event_type="purchase",
            items=[{"item_id": "ä", "quantity": 2.5}, "b"],
            session_id="s",
            tenant="t",
        )
        assert decode(order).event_id == "content-f8ee737ed0408b0ae1d532b3b67d032b"

    def test_a_given_one_wins(self) -> None:
        assert decode(OWN).event_id == "e1"
        for name in ("eventId", "messageId", "message_id"):
            assert decode({**own(event_id=None), name: "other"}).event_id == "other"

    @pytest.mark.parametrize("event_id", ["", None])
    def test_an_empty_one_is_none(self, event_id: str | None) -> None:
        assert decode({**OWN, "event_id": event_id}) == decode(own(event_id=None))

    @pytest.mark.parametrize(
        "again",
        [
            {},
            {"occurred_at": "2026-01-02T03:04:05.123Z"},
            {"event_type": "Product Viewed"},
            {"item_id": None, "items": ["i1"]},
            {"quantity": 1},
            {"sent_at": NOW_MS + 5},
            {"category": "Shoes"},
            {"value": 3, "dwell_ms": 9000},
            {"properties": {"try": 2}},
            {"user_id": "u2"},
        ],
    )
    def test_the_same_event_sent_again_is_known_again(self, again: dict[str, Any]) -> None:
        assert decode(own(event_id=None, **again)).event_id == decode(own(event_id=None)).event_id

    @pytest.mark.parametrize(
        "other",
        [
            {"occurred_at": NOW_MS - 1},
            {"event_type": "click"},
            {"item_id": "i2"},
            {"item_id": None, "items": ["i1", "i1"]},
            {"quantity": 2},
            {"session_id": "s"},
        ],
    )
    def test_another_event_is_another(self, other: dict[str, Any]) -> None:
        assert decode(own(event_id=None, **other)).event_id != decode(own(event_id=None)).event_id

    def test_parts_do_not_run_together(self) -> None:
        one, two = own(event_id=None, items=["a", "b1.0"]), own(event_id=None, items=["a3:1.04:b", "1.0"])
        assert decode(one).event_id != decode(two).event_id

    def test_our_own_names_are_read_in_one_pass_without_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("stream.contract.event._translate", None)
        assert decode(own(event_id=None), [("traceparent", b"x")]).event_id.startswith("content-")


class TestTenants:
    def test_the_key_is_tenant_and_user(self) -> None:
        event = decode(own(tenant="acme"))
        assert (event.subject, event.key) == ("u1", b"acme\x1fu1")
        assert decode(own(tenant="", user_id="ä")).key == "ä".encode()

    @pytest.mark.parametrize(
        "changes",
        [
            {"user_id": "acme\x1fu1"},
            {"user_id": None, "anonymous_id": "acme\x1fu1"},
            {"tenant": "ac\x1fme"},
            {"tenant": "\0acme"},
            {"user_id": "\0u1"},
        ],
    )
    def test_nobody_can_take_the_key_of_another_tenants_user(self, changes: dict[str, Any]) -> None:
        with pytest.raises(EventError, match=r"U\+001F") as caught:
            decode(own(**changes))
        assert caught.value.reason == "bad_value"

    def test_a_domain_is_no_part_of_the_key(self) -> None:
        event = decode(own(domain="books"))
        assert (event.domain, event.key) == ("books", b"u1")


def test_of_duplicate_members_the_last_counts() -> None:
    raw = msgspec.json.encode(OWN)[:-1] + b',"item_id":"i2"}'
    assert decode(raw).item_id == "i2"


def test_unknown_members_are_ignored() -> None:
    assert decode(own(colour={"deep": [1, {"er": None}]})) == decode(OWN)


def test_escapes_and_other_scripts() -> None:
    raw = json.dumps(own(user_id="Zoë 🦊", item_id="a\0b"), ensure_ascii=True).encode()
    assert (decode(raw).user_id, decode(raw).item_id) == ("Zoë 🦊", "a\0b")


def raw_with(member: bytes) -> bytes:
    return msgspec.json.encode(OWN)[:-1] + b"," + member + b"}"


def test_without_a_limit_any_time_is_taken() -> None:
    raw = msgspec.json.encode(own(occurred_at="3000-01-01T00:00:00Z"))
    assert EventDecoder(max_future_ms=None).decode(raw, now_ms=NOW_MS).occurred_at == 32_503_680_000_000


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        # not JSON
        pytest.param(b"", "not_json", id="empty"),
        pytest.param(b"\0\0\0\0", "not_json", id="NUL bytes"),
        pytest.param(b"hello", "not_json", id="text"),
        pytest.param(b'{"event_id": "e1"', "not_json", id="cut off"),
        pytest.param(msgspec.json.encode(OWN) + b"x", "not_json", id="more after it"),
        pytest.param(b"\xef\xbb\xbf" + msgspec.json.encode(OWN), "not_json", id="byte order mark"),
        pytest.param(json.dumps(OWN).encode("utf-16"), "not_json", id="UTF-16"),
        pytest.param(raw_with(b'"user_id":"\xff"'), "not_json", id="not UTF-8"),
        pytest.param(raw_with(b'"user_id":"\\ud800"'), "not_json", id="half a surrogate pair"),
        pytest.param(raw_with(b'"user_id":"\xed\xa0\x80"'), "not_json", id="encoded surrogate"),
        pytest.param(raw_with(b'"user_id":"a\0"'), "not_json", id="NUL inside text"),
        pytest.param(raw_with(b'"price":NaN'), "not_json", id="NaN"),
        pytest.param(raw_with(b'"price":-Infinity'), "not_json", id="-Infinity"),
        pytest.param(raw_with(b'"deep":' + b"[" * 100_000), "not_json", id="deep, unclosed"),
        pytest.param(raw_with(b'"deep":' + b"[" * 99_999 + b"]" * 99_999), "not_json", id="deep list"),
        pytest.param(raw_with(b'"properties":' + b'{"a":' * 9_999 + b"1" + b"}" * 9_999), "not_json", id="deep object"),
        # wrong types
        pytest.param(b"[]", "wrong_type", id="a list"),
        pytest.param(b"null", "wrong_type", id="null"),
        pytest.param(b'"view"', "wrong_type", id="a string"),
        pytest.param(own(item_id={"id": 1}), "wrong_type", id="item_id an object"),
        pytest.param(own(item_id=1.5), "wrong_type", id="item_id a fraction"),
        pytest.param(own(user_id=True), "wrong_type", id="user_id a boolean"),
        pytest.param(own(user_id=["u"]), "wrong_type", id="user_id a list"),
        pytest.param(own(event_id={}), "wrong_type", id="event_id an object"),
        pytest.param(own(event_type=5), "wrong_type", id="event_type a number"),
        pytest.param(own(occurred_at=[]), "wrong_type", id="occurred_at a list"),
        pytest.param(own(quantity="abc"), "wrong_type", id="quantity text"),
        pytest.param(own(quantity="nan"), "wrong_type", id="quantity 'nan'"),
        pytest.param(own(quantity="1e3"), "wrong_type", id="quantity '1e3'"),
        pytest.param(own(price={}), "wrong_type", id="price an object"),
        pytest.param(own(position=1.5), "wrong_type", id="position a fraction"),
        pytest.param(own(items="i1"), "wrong_type", id="items text"),
        pytest.param(own(items=[[]]), "wrong_type", id="items of lists"),
        pytest.param(own(items=[{"item_id": "a", "price": "x"}]), "wrong_type", id="price in items text"),
        pytest.param(own(properties=[]), "wrong_type", id="properties a list"),
        pytest.param(own(experiment=5), "wrong_type", id="experiment a number"),
        # out of bounds
        pytest.param(own(quantity=-1), "bad_value", id="negative quantity"),
        pytest.param(own(quantity=1e300), "bad_value", id="huge quantity"),
        pytest.param(own(quantity="9999999"), "bad_value", id="huge quantity as text"),
        pytest.param(raw_with(b'"quantity":1e400'), "bad_value", id="quantity beyond a double"),
        pytest.param(raw_with(b'"position":' + b"9" * 30), "bad_value", id="huge int"),
        pytest.param(raw_with(b'"user_id":' + b"9" * 5000), "bad_value", id="int of 5,000 digits"),
        pytest.param(own(dwell_ms=-1), "bad_value", id="negative dwell"),
        pytest.param(own(user_id="u" * 513), "bad_value", id="long user_id"),
        pytest.param(own(item_id="i" * 100_000), "bad_value", id="long item_id"),
        pytest.param(own(items=["a"] * 1001), "bad_value", id="too many items"),
        pytest.param(own(user_id="\0u"), "bad_value", id="user_id with a leading NUL"),
        # what is asked for is missing
        pytest.param({}, "bad_time", id="nothing"),
        pytest.param(own(event_type=None), "unknown_event_type", id="no event_type"),
        pytest.param(own(event_type=""), "unknown_event_type", id="empty event_type"),
        pytest.param(own(event_type="search"), "unknown_event_type", id="unknown event_type"),
        pytest.param(own(user_id=None), "no_user", id="no user"),
        pytest.param(own(user_id="", anonymous_id=""), "no_user", id="empty user"),
        pytest.param(own(item_id=None), "no_item", id="no item"),
        pytest.param(own(item_id=""), "no_item", id="empty item_id"),
        pytest.param(own(item_id=None, items=[]), "no_item", id="no items"),
        pytest.param(own(items=["a", ""]), "no_item", id="an empty item among items"),
        pytest.param(own(items=[{"quantity": 1}]), "no_item", id="an item without item_id"),
        # times
        pytest.param(own(occurred_at=None), "bad_time", id="no occurred_at"),
        pytest.param(own(occurred_at=""), "bad_time", id="empty occurred_at"),
        pytest.param(own(occurred_at="soon"), "bad_time", id="occurred_at words"),
        pytest.param(own(occurred_at=0), "bad_time", id="1970"),
        pytest.param(own(occurred_at=-NOW_MS), "bad_time", id="negative time"),
        pytest.param(raw_with(b'"occurred_at":' + b"9" * 30), "bad_time", id="huge time"),
        pytest.param(own(sent_at="soon"), "bad_time", id="sent_at words"),
        pytest.param(own(occurred_at=NOW_MS + 300_001), "future_time", id="just too far ahead"),
        pytest.param(own(occurred_at="3000-01-01T00:00:00Z"), "future_time", id="the year 3000"),
        pytest.param(own(occurred_at=NOW_MS * 10), "future_time", id="the year 2530 in ms"),
        # size
        pytest.param(b"x" * 2_000_000, "too_large", id="2 MB of junk"),
        pytest.param(own(properties={"x": "y" * 1_000_000}), "too_large", id="a large event"),
    ],
)
def test_refused(value: Any, reason: str) -> None:
    with pytest.raises(EventError) as caught:
        decode(value)
    assert caught.value.reason == reason
    assert str(caught.value)


def test_null_value() -> None:
    with pytest.raises(EventError) as caught:
        decoder.decode(None, b"u1", [], now_ms=NOW_MS)
    assert caught.value.reason == "null_value"


def test_limits_are_the_callers() -> None:
    raw = msgspec.json.encode(OWN)
    assert decode_event(raw, now_ms=NOW_MS - 5, max_future_ms=5, max_bytes=len(raw)).occurred_at == NOW_MS
    with pytest.raises(EventError, match=r"events\.max_future_s"):
        decode_event(raw, now_ms=NOW_MS - 6, max_future_ms=5)
    with pytest.raises(EventError, match=r"events\.max_bytes"):
        decode_event(raw, now_ms=NOW_MS, max_bytes=len(raw) - 1)


def test_the_key_names_no_user_and_the_message_says_so() -> None:
    with pytest.raises(EventError, match="key is not taken") as caught:
        decoder.decode(msgspec.json.encode(own(user_id=None)), b"u1", None, now_ms=NOW_MS)
    assert caught.value.reason == "no_user"


SECRET = "Jane Roe"


@pytest.mark.parametrize(
    "value",
    [
        own(user_id=[SECRET]),
        own(user_id={SECRET: SECRET}),
        own(user_id=SECRET, quantity=SECRET),
        own(user_id=SECRET, occurred_at=SECRET),
        own(user_id=SECRET, event_type=SECRET),
        own(user_id=SECRET * 100),
        own(user_id=None, userId=[SECRET]),
        own(user_id=SECRET, properties=SECRET),
        own(user_id=SECRET, items=[{SECRET: 1}]),
        f'{{"user_id":"{SECRET}'.encode(),
        f'{{"user_id":"{SECRET}'.encode() + b'\xff"}',
        SECRET.encode(),
    ],
)
def test_messages_do_not_quote_the_event(value: Any) -> None:
    with pytest.raises(EventError) as caught:
        decode(value)
    assert "Jane" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_refused_event_leaves_no_trace_in_the_next() -> None:
    for bad in (b"{", own(item_id={}), own(occurred_at=0)):
        with pytest.raises(EventError):
            decode(bad)
        assert decode(OWN).item_id == "i1"


headers = st.none() | st.lists(
    st.tuples(
        st.sampled_from(["ce_specversion", "ce_id", "ce_type", "ce_time", "content-type", "x"]) | st.text(),
        st.none() | st.sampled_from([b"1.0", b"application/cloudevents+json", b"view"]) | st.binary(),
    )
)


@given(st.binary(), headers)
def test_random_bytes_are_refused_with_a_known_reason(value: bytes, headers: Headers | None) -> None:
    with pytest.raises(EventError) as caught:
        decode(value, headers)
    assert caught.value.reason in REASONS


names = sorted({place.partition(".")[0] for places in FIELD_ALIASES.values() for place in places})
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from(["view", "Product Viewed", "1.0", "2026-01-02", NOW_MS, "7"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["product_id", "item_id", "id", "product", "key", "value", "type"]) | st.text(),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
objects = st.dictionaries(st.sampled_from([*names, "specversion", "data", "id"]) | st.text(), values)


@given(objects, st.dictionaries(st.sampled_from(sorted(OWN)), st.none()), headers)
def test_any_object_is_an_event_or_refused_with_a_known_reason(
    payload: dict[str, Any], removed: dict[str, None], headers: Headers | None
) -> None:
    for base in ({}, OWN):
        refused = ""
        try:
            event = decode({**base, **payload, **removed}, headers)
        except EventError as error:
            refused = error.reason
        if refused:
            assert refused in REASONS
        else:
            assert event.event_type in EVENT_TYPES
            assert event.key
            assert FIRST_MS <= event.occurred_at_ms < END_MS
            assert event.lines() or event.event_type == "session_start"


ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
keys = ids.filter(lambda text: text[0] != "\0" and "\x1f" not in text)
amounts = st.none() | st.floats(-1e12, 1e12)
quantities = st.none() | st.floats(0, 1e6)
positions = st.none() | st.integers(0, 2**31 - 1)
properties = st.none() | st.dictionaries(st.text(), st.integers(-(2**53), 2**53))
lines = st.builds(EventItem, ids, quantities, amounts, st.none() | ids, positions, st.none() | ids, properties)
events = st.builds(
    Event,
    event_id=ids,
    tenant=st.none() | keys,
    domain=st.none() | ids,
    session_id=st.none() | ids,
    event_type=st.sampled_from(EVENT_TYPES),
    occurred_at=st.integers(FIRST_MS, NOW_MS),
    user_id=keys,
    anonymous_id=st.none() | keys,
    item_id=ids,
    items=st.lists(lines | ids, max_size=3).map(tuple),
    category=st.none() | ids,
    quantity=quantities,
    price=amounts,
    value=amounts,
    position=positions,
    experiment=st.none() | st.builds(Experiment, ids, ids),
    sent_at=st.none() | st.integers(FIRST_MS, NOW_MS),
    brand=st.none() | ids,
    properties=properties,
)


@given(events)
def test_what_is_encoded_is_decoded(event: Event) -> None:
    assert decode(encode_event(event)) == event


def test_absent_fields_are_not_written() -> None:
    assert msgspec.json.decode(encode_event(decode(OWN))) == OWN
