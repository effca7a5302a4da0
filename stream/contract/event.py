"""An event, as producers send it and as the worker reads it.

Bare JSON under our own names is decoded in one pass into `Event`. Anything else (CloudEvents, the names
of other systems, ids given as integers) takes a second, slower way through `aliases` to the same struct.

The fields of `Event` hold what the wire holds. Readers use what is derived from them: `subject` and `key`
(who), `occurred_at_ms` (when), `lines` (which items).

The user of an event is its `user_id`, or its `anonymous_id` when there is no user_id, without any prefix:
a producer sets the record's key to that text and is done. Anonymous ids must therefore not be equal to
other users' ids (random ids never are). With a `tenant` the key is `state.keys.user_key` of both: users of
different tenants are apart, whatever their ids.

What tells one event from another is its `event_id`; one without gets `content_id` of it when it is decoded, so that
the same event sent twice is found in either case.
"""

import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from state.keys import SEPARATOR
from state.weights import EVENT_TYPES
from stream.contract.aliases import USER_ERASED, canonical_event_type, to_own_names
from stream.contract.cloudevents import Envelope, open_structured, read_headers
from stream.contract.times import END_MS, FIRST_MS, time_ms
from stream.errors import EventError

Headers = Sequence[tuple[str, bytes | None]]

# 512 characters hold any id in use (a UUID has 36, a URL as item id some 200) and keep a user's state small.
Id = Annotated[str, Meta(max_length=512)]
# A bound keeps one broken event from outweighing a lifetime of good ones.
Quantity = Annotated[float, Meta(ge=0, le=1e6)]
Amount = Annotated[float, Meta(ge=-1e12, le=1e12)]
Position = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Time = int | float | str


class Experiment(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The experiment a user takes part in."""

    name: Annotated[Id, Meta(description="Name of the experiment.")]
    variant: Annotated[Id, Meta(description="The variant this user sees.")] = ""


class EventItem(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One item of an event with several, such as a line of an order."""

    item_id: Annotated[Id, Meta(description="The item.")]
    quantity: Annotated[Quantity | None, Meta(description="How many; 1 when absent.")] = None
    price: Annotated[Amount | None, Meta(description="Price of one.")] = None
    category: Annotated[Id | None, Meta(description="Category of the item.")] = None
    position: Annotated[Position | None, Meta(description="Its place in the list shown.")] = None
    brand: Annotated[Id | None, Meta(description="Brand of the item.")] = None
    properties: Annotated[
        dict[str, Any] | None, Meta(description="Anything else; read where state.interests names one of them.")
    ] = None


class Event(msgspec.Struct, gc=False, kw_only=True, omit_defaults=True):
    """Something a user did, with the items it was done to."""

    event_id: Annotated[
        Id,
        Meta(
            description="Unique id of the event; a second event of the user with the same id is dropped. Absent or "
            "empty: a fingerprint of type, time, items, quantities and session stands for it, and a second event of "
            "the user with all of these equal is dropped."
        ),
    ] = ""
    event_type: Annotated[
        str,
        Meta(
            description="What happened. Names of GA4, Segment, Snowplow and Google Retail are accepted too. "
            f"'{USER_ERASED}' asks to forget the user: all that is known from earlier events.",
            extra_json_schema={"enum": [*EVENT_TYPES, USER_ERASED]},
        ),
    ]
    occurred_at: Annotated[
        Time,
        Meta(
            description="When it happened: ISO-8601 (UTC when it names no zone) or time since 1970 "
            "(milliseconds; seconds, micro- and nanoseconds are told by their size)."
        ),
    ]
    user_id: Annotated[Id | None, Meta(description="The user: the key of the record.")] = None
    anonymous_id: Annotated[
        Id | None, Meta(description="Who it is when there is no user_id: then the key of the record.")
    ] = None
    item_id: Annotated[Id | None, Meta(description="The item, when it is one.")] = None
    items: Annotated[
        tuple[EventItem | Id, ...],
        Meta(max_length=1000, description="The items, when they are several; they replace item_id."),
    ] = ()
    category: Annotated[Id | None, Meta(description="Category of item_id.")] = None
    brand: Annotated[Id | None, Meta(description="Brand of item_id.")] = None
    quantity: Annotated[Quantity | None, Meta(description="How many of item_id; 1 when absent.")] = None
    price: Annotated[Amount | None, Meta(description="Price of one item_id.")] = None
    value: Annotated[
        Amount | None, Meta(description="Value of the event: the total of an order, the stars of a rating.")
    ] = None
    currency: Annotated[Id | None, Meta(description="ISO 4217 code of price and value.")] = None
    position: Annotated[Position | None, Meta(description="Place of item_id in the list shown.")] = None
    session_id: Annotated[Id | None, Meta(description="The producer's own session.")] = None
    dwell_ms: Annotated[
        Annotated[int, Meta(ge=0, le=10**10)] | None, Meta(description="How long the user stayed, in ms.")
    ] = None
    recommendation_id: Annotated[Id | None, Meta(description="The list that led here, as it names itself.")] = None
    experiment: Annotated[Experiment | None, Meta(description="The experiment the user takes part in.")] = None
    sent_at: Annotated[Time | None, Meta(description="When the producer sent it, as occurred_at.")] = None
    tenant: Annotated[
        Id | None,
        Meta(
            description="Whose shop, when several share the topics. Users of different tenants are apart: the key of "
            "the record is then tenant, U+001F, user."
        ),
    ] = None
    domain: Annotated[
        Id | None,
        Meta(description="The part of the offer that the items belong to: books, films. A user's interest spans all."),
    ] = None
    properties: Annotated[
        dict[str, Any] | None,
        Meta(description="Anything else; of item_id where state.interests names one of them, else not interpreted."),
    ] = None

    @property
    def subject(self) -> str:
        """Whose event it is: user_id, or anonymous_id without one; '' when neither is given."""
        return self.user_id or self.anonymous_id or ""

    @property
    def key(self) -> bytes:
        """The key of the event's record and of its user's state and list: `state.keys.user_key`."""
        if self.tenant:
            return f"{self.tenant}{SEPARATOR}{self.subject}".encode()
        return (self.user_id or self.anonymous_id or "").encode()

    @property
    def occurred_at_ms(self) -> int:
        """When it happened, ms since 1970 in UTC. Raises ValueError when occurred_at is no time."""
        return time_ms(self.occurred_at)

    @property
    def sent_at_ms(self) -> int | None:
        """When it was sent, ms since 1970 in UTC, if given. Raises ValueError when sent_at is no time."""
        return None if self.sent_at is None else time_ms(self.sent_at)

    def lines(self) -> tuple[EventItem, ...]:
        """The items, one line each: those of `items`, else item_id with its own fields, else none."""
        if self.items:
            return tuple([EventItem(line) if isinstance(line, str) else line for line in self.items])
        if self.item_id:
            own = self.quantity, self.price, self.category, self.position, self.brand, self.properties
            return (EventItem(self.item_id, *own),)
        return ()


#: Types that need no item.
WITHOUT_ITEM = frozenset(("session_start", USER_ERASED))


class EventDecoder:
    """Reads events from records, within limits. Without state between events.

    max_bytes: largest value of a record, in bytes.
    max_future_ms: how far ahead of now an event may be, in ms: clocks differ, but an event of next year would
    outweigh all that come before it. None: any time is taken, for who judges times by more (stream.late).
    """

    def __init__(self, max_bytes: int = 1_000_000, max_future_ms: int | None = 300_000) -> None:
        self.max_bytes = max_bytes
        self.max_future_ms = max_future_ms
        self._fast = msgspec.json.Decoder(Event)

    def decode(
        self, value: bytes | None, key: bytes | None = None, headers: Headers | None = None, *, now_ms: int
    ) -> Event:
        """The event of one record: event_type is one of EVENT_TYPES or USER_ERASED, occurred_at is in ms, event_id
        is given or that of the content.

        The key is not checked against the user here and never names one: that is for who routes the event.
        Of two members of one name in a JSON object the last counts.

        Raises EventError; its message names fields, never their values. Reasons: null_value, too_large,
        not_json, wrong_type, bad_value (a number or length out of bounds), bad_header, bad_cloudevent,
        unknown_event_type, bad_time, future_time, no_user, no_item.
        """
        if value is None:
            raise EventError("null_value", "the record has no value: a tombstone is no event")
        if len(value) > self.max_bytes:
            raise EventError(
                "too_large", f"the value has {len(value)} bytes, more than events.max_bytes ({self.max_bytes})"
            )
        event = self._read(value, read_headers(headers) if headers else None)
        event_type = canonical_event_type(event.event_type)
        if event_type is None:
            raise EventError("unknown_event_type", f"event_type is none of {', '.join(EVENT_TYPES)}, nor a known alias")
        event.event_type = event_type

        at_ms = event.occurred_at
        if type(at_ms) is not int or not FIRST_MS <= at_ms < END_MS:
            event.occurred_at = at_ms = _time("occurred_at", at_ms)
        if self.max_future_ms is not None and at_ms > now_ms + self.max_future_ms:
            raise future_time(at_ms, now_ms, self.max_future_ms)
        if event.sent_at is not None:
            event.sent_at = _time("sent_at", event.sent_at)

        subject = event.user_id or event.anonymous_id
        if not subject:
            hint = " (the record's key is not taken for it)" if key else ""
            raise EventError("no_user", f"neither user_id nor anonymous_id is given{hint}")
        if subject[0] == "\0" or SEPARATOR in subject or (event.tenant and _unusable(event.tenant)):
            # Keys that start with NUL belong to the state's own records; the separator divides tenant and user.
            raise EventError(
                "bad_value", "user_id, anonymous_id and tenant must not start with NUL (U+0000) nor hold U+001F"
            )

        if event.items:
            for line in event.items:
                if not (line if isinstance(line, str) else line.item_id):
                    raise EventError("no_item", "an item of items has an empty item_id")
        elif not event.item_id and event_type not in WITHOUT_ITEM:
            raise EventError("no_item", f"neither item_id nor items is given, and {event_type} needs one")
        if not event.event_id:
            event.event_id = content_id(event)
        return event

    def _read(self, value: bytes, envelope: Envelope | None) -> Event:
        """Under our own names in one pass, else by way of the aliases."""
        if envelope is None or not envelope.structured:
            try:
                event = self._fast.decode(value)
            except msgspec.ValidationError:
                # A member is missing or of another type: perhaps under another name.
                return _translate(value, envelope)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise _not_json(error) from None
            if (
                (event.user_id or event.anonymous_id)
                and (event.item_id or event.items or event.event_type in WITHOUT_ITEM)
                and (event.event_id or not ((envelope and envelope.attributes) or _ANOTHER_ID(value)))
            ):
                return event
        return _translate(value, envelope)


def decode_event(
    value: bytes | None,
    key: bytes | None = None,
    headers: Headers | None = None,
    *,
    now_ms: int,
    max_bytes: int = 1_000_000,
    max_future_ms: int = 300_000,
) -> Event:
    """The event of one record, for those who read few; see `EventDecoder.decode`."""
    return EventDecoder(max_bytes, max_future_ms).decode(value, key, headers, now_ms=now_ms)


def future_time(at_ms: int, now_ms: int, max_future_ms: int) -> EventError:
    """The refusal of an event that claims to be of a time too far ahead of `now_ms`."""
    return EventError(
        "future_time",
        f"occurred_at is {(at_ms - now_ms) // 1000} s ahead of now, more than "
        f"events.max_future_s ({max_future_ms // 1000}): check the producer's clock",
    )


# Where an event without an event_id may still have an id: under an alias, or in a CloudEvent.
_ANOTHER_ID = re.compile(rb'"(?:eventId|messageId|message_id|specversion)"').search


def content_id(event: Event) -> str:
    """The id of an event that was given none: "content-" and 32 hex digits, equal for equal content.

    The content is what happened, when, to which items, how many, and in which session: what a sender that repeats an
    event repeats. Not in it is what is added or changed on the way (sent_at, properties, category), or known later
    (value, dwell_ms). Nor is the user: ids are told apart within a user only, and a hash of a user's id would undo
    pseudonyms. Two real events of a user that agree in all of it count as one: of the same millisecond, or, where a
    producer only tells seconds, of the same second.

    BLAKE2b of the parts, each as "<characters>:<text>"; the same for ever, for it stands in states.
    """
    parts = [event.event_type, str(event.occurred_at_ms), event.session_id or ""]
    for line in event.lines():
        parts += (line.item_id, repr(float(1 if line.quantity is None else line.quantity)))
    text = "".join([f"{len(part)}:{part}" for part in parts])
    return "content-" + blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _unusable(tenant: str) -> bool:
    return tenant[0] == "\0" or SEPARATOR in tenant


_encoder = msgspec.json.Encoder()


def encode_event(event: Event) -> bytes:
    """The value of the event's record: JSON under our own names, absent fields left out."""
    return _encoder.encode(event)


def _translate(value: bytes, envelope: Envelope | None) -> Event:
    """An event under other names, in a CloudEvent, or one that is to be refused with its precise reason."""
    try:
        payload = msgspec.json.decode(value)
    except msgspec.ValidationError as error:  # a number beyond what JSON readers can hold
        raise EventError("bad_value", str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _not_json(error) from None
    if not isinstance(payload, dict):
        raise EventError("wrong_type", "the value must be a JSON object")

    attributes = envelope.attributes if envelope else None
    if attributes is None and ((envelope and envelope.structured) or "specversion" in payload):
        payload, attributes = open_structured(payload)

    own = to_own_names(payload)
    if attributes:
        _fill_in(own, attributes)
    # Each absent required member has a reason of its own, below or in EventDecoder.decode.
    own.setdefault("event_type", "")
    if "occurred_at" not in own:
        raise EventError("bad_time", "occurred_at is missing")
    try:
        return msgspec.convert(own, Event)
    except msgspec.ValidationError as error:
        raise _refusal(error) from None


def _fill_in(own: dict[str, Any], attributes: dict[str, str]) -> None:
    if "id" in attributes:
        own.setdefault("event_id", attributes["id"])
    if "time" in attributes:
        own.setdefault("occurred_at", attributes["time"])
    if "type" in attributes:
        given = own.get("event_type")
        if given is None or (isinstance(given, str) and canonical_event_type(given) is None):
            own["event_type"] = attributes["type"]


_BOUND = re.compile(r"Expected `[^`]*` (>=|<=|of length|with)|out of range")


def _refusal(error: msgspec.ValidationError) -> EventError:
    """The reason for what msgspec found. Its text holds types and paths, no values."""
    text = str(error)
    if "missing required field `item_id`" in text:
        return EventError("no_item", f"an item has no item_id: {text}")
    return EventError("bad_value" if _BOUND.search(text) else "wrong_type", text)


def _not_json(error: Exception) -> EventError:
    if isinstance(error, RecursionError):
        return EventError("not_json", "the JSON is nested too deeply")
    if isinstance(error, UnicodeDecodeError):
        return EventError("not_json", "the value is not UTF-8")
    return EventError("not_json", str(error))


def _time(field: str, value: Time) -> int:
    try:
        return time_ms(value)
    except ValueError as error:
        raise EventError("bad_time", f"{field}: {error}") from None
