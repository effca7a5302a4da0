"""CloudEvents 1.0 on Kafka: binary and structured mode, and what is wrong with one."""

import base64
from typing import Any

import msgspec
import pytest

from stream.contract.event import Event, EventDecoder, Headers
from stream.errors import EventError

AT_MS = 1_767_323_045_123
DATA = {"user_id": "u1", "item_id": "i1"}
EVENT = Event(event_id="ce1", event_type="view", occurred_at=AT_MS, user_id="u1", item_id="i1")
HEADERS: list[tuple[str, bytes | None]] = [
    ("ce_specversion", b"1.0"),
    ("ce_id", b"ce1"),
    ("ce_source", b"/shop"),
    ("ce_type", b"com.example.product_viewed.v1"),
    ("ce_time", b"2026-01-02T03:04:05.123Z"),
    ("content-type", b"application/json"),
]
ENVELOPE = {
    "specversion": "1.0",
    "id": "ce1",
    "source": "/shop",
    "type": "com.example.view",
    "time": "2026-01-02T03:04:05.123Z",
    "datacontenttype": "application/json",
    "data": DATA,
}
STRUCTURED: Headers = [("content-type", b"application/cloudevents+json; charset=UTF-8")]


def decode(value: Any, headers: Headers | None) -> Event:
    raw = value if isinstance(value, bytes) else msgspec.json.encode(value)
    return EventDecoder().decode(raw, b"u1", headers, now_ms=AT_MS)


def test_binary_mode_fills_in_what_the_data_lacks() -> None:
    assert decode(DATA, HEADERS) == EVENT


def test_header_names_in_any_case() -> None:
    assert decode(DATA, [(name.upper(), value) for name, value in HEADERS]) == EVENT


def test_the_data_counts_where_both_say_something() -> None:
    data = {**DATA, "event_id": "own", "event_type": "purchase", "occurred_at": AT_MS - 1}
    event = decode(data, HEADERS)
    assert (event.event_id, event.event_type, event.occurred_at_ms) == ("own", "purchase", AT_MS - 1)


def test_the_type_of_the_envelope_replaces_one_that_is_unknown() -> None:
    assert decode({**DATA, "type": "track"}, HEADERS).event_type == "view"


def test_binary_mode_with_a_foreign_payload() -> None:
    data = {"visitorId": "u1", "productDetails": [{"product": {"id": "i1"}}]}
    event = decode(data, HEADERS)
    assert (event.event_id, event.subject, [line.item_id for line in event.lines()]) == ("ce1", "u1", ["i1"])


@pytest.mark.parametrize("headers", [STRUCTURED, None, [], [("content-type", b"application/json")]])
def test_structured_mode_by_its_header_or_by_itself(headers: Headers | None) -> None:
    assert decode(ENVELOPE, headers) == EVENT


def test_structured_mode_in_base64() -> None:
    envelope = {k: v for k, v in ENVELOPE.items() if k != "data"}
    envelope["data_base64"] = base64.b64encode(msgspec.json.encode(DATA)).decode()
    assert decode(envelope, STRUCTURED) == EVENT


@pytest.mark.parametrize(
    "headers",
    [
        [("traceparent", b"\xff\xfe")],
        [("ce_id", b"alone, without a specversion")],
        [("ce_specversion", None)],
        [("content-type", b"text/plain")],
        [("", b"")],
    ],
)
def test_other_headers_do_not_matter(headers: Headers) -> None:
    own = {**DATA, "event_id": "ce1", "event_type": "view", "occurred_at": AT_MS}
    assert decode(own, headers) == EVENT


def with_header(name: str, value: bytes | None) -> Headers:
    return [(n, value if n == name else v) for n, v in HEADERS]


@pytest.mark.parametrize(
    ("value", "headers"),
    [
        (DATA, with_header("ce_id", None)),
        (DATA, with_header("ce_id", b"")),
        (ENVELOPE | {"id": None}, None),
    ],
)
def test_without_an_id_the_content_stands_for_it(value: Any, headers: Headers | None) -> None:
    assert decode(value, headers).event_id.startswith("content-")


def test_the_id_in_the_header_wins_over_the_content_of_data_that_is_complete() -> None:
    assert decode({**DATA, "event_type": "view", "occurred_at": AT_MS}, HEADERS).event_id == "ce1"


@pytest.mark.parametrize(
    ("value", "headers", "reason"),
    [
        (DATA, with_header("ce_id", b"\xff\xfe"), "bad_header"),
        (DATA, with_header("content-type", b"\xff"), "bad_header"),
        (DATA, [*HEADERS, ("ce_extension", b"\xc3\x28")], "bad_header"),
        (DATA, with_header("ce_specversion", b"0.3"), "bad_cloudevent"),
        (DATA, with_header("content-type", b"application/cloudevents-batch+json"), "bad_cloudevent"),
        (DATA, with_header("ce_type", b"com.example.search"), "unknown_event_type"),
        (DATA, with_header("ce_time", b"soon"), "bad_time"),
        (DATA, with_header("ce_time", None), "bad_time"),
        (b"[]", HEADERS, "wrong_type"),
        (b"", HEADERS, "not_json"),
        (ENVELOPE | {"specversion": "2.0"}, None, "bad_cloudevent"),
        (ENVELOPE | {"specversion": 1}, None, "bad_cloudevent"),
        (ENVELOPE | {"id": 7}, None, "bad_cloudevent"),
        (ENVELOPE | {"data": None}, None, "bad_cloudevent"),
        (ENVELOPE | {"data": "text"}, None, "bad_cloudevent"),
        (ENVELOPE | {"data": None, "data_base64": "!"}, None, "bad_cloudevent"),
        (ENVELOPE | {"data": None, "data_base64": "é"}, None, "bad_cloudevent"),
        (ENVELOPE | {"data": None, "data_base64": "AAAA"}, None, "bad_cloudevent"),
        (DATA, STRUCTURED, "bad_cloudevent"),
    ],
)
def test_refused(value: Any, headers: Headers | None, reason: str) -> None:
    with pytest.raises(EventError) as caught:
        decode(value, headers)
    assert caught.value.reason == reason
