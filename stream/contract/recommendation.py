"""A list, as the worker sends it and as others read it.

One record a list on the recommendations topic; its key is the user (`Event.key`), and the last one counts.
"""

import threading
from hashlib import blake2b
from typing import Annotated

import msgspec
from msgspec import Meta

from model.ranking.lists import Interest, RankedItem
from stream.contract.event import Experiment
from stream.errors import ContractError


class Source(msgspec.Struct, frozen=True, gc=False):
    """A record of the log."""

    topic: str
    partition: int
    offset: int


class ModelRef(msgspec.Struct, frozen=True, gc=False):
    """A model, by name and version."""

    name: str
    version: str


class Recommendation(msgspec.Struct, gc=False, kw_only=True, omit_defaults=True):
    """The list of a user after an event."""

    recommendation_id: Annotated[
        str, Meta(description="Id of the list; events that follow from the list carry it back.")
    ]
    user_id: Annotated[
        str, Meta(description="The user_id of the events, or their anonymous_id where they have no user_id.")
    ]
    # Text, because people read it; it costs nothing, as all lists of one chunk share it.
    generated_at: Annotated[
        str,
        Meta(
            description="When the worker made the list: ISO-8601, UTC, milliseconds.",
            extra_json_schema={"format": "date-time"},
        ),
    ]
    trigger_event_id: Annotated[str, Meta(description="event_id of the last event in the list.")]
    events_applied: Annotated[
        int, Meta(description="How many of the user's events the list rests on, each counted once.")
    ]
    source: Annotated[Source, Meta(description="Where the last event in the list stands in the log.")]
    model: Annotated[ModelRef, Meta(description="The model that made the list.")]
    strategy: Annotated[str, Meta(description="'hybrid', or 'popular' for a user nobody knows yet.")]
    interests: Annotated[list[Interest], Meta(description="The user's strongest interests, best first.")]
    items: Annotated[list[RankedItem], Meta(description="The items, best first.")]
    parts: Annotated[
        tuple[str, ...],
        Meta(description="What the scores are made of, in the order of the items' parts; absent unless asked for."),
    ] = ()
    experiment: Annotated[Experiment | None, Meta(description="The experiment the user takes part in.")] = None
    tenant: Annotated[str, Meta(description="Whose user, when several share the topics; absent for none.")] = ""
    domain: Annotated[str, Meta(description="The domain that the list is limited to; absent for none.")] = ""


def recommendation_id(key: bytes, partition: int, offset: int) -> str:
    """Id of the list made for a user at a record: '<partition>-<offset>-<16 hex digits>'.

    The same whenever the list is made again, so a reader can drop one that it has, and an engineer finds the
    event by it. The user is not in it in clear: the digits are a hash over all three, another one for each
    list (who has the id and a guess of the user can still check the guess).
    """
    place = f"{partition}-{offset}-"
    return place + blake2b(place.encode() + key, digest_size=8).hexdigest()


_encoder = msgspec.json.Encoder()
# Encoding into memory that is there already saves a fifth: a new buffer would be grown several times for 4 KB.
_local = threading.local()
_decoder = msgspec.json.Decoder(Recommendation)


def encode_recommendation(recommendation: Recommendation) -> bytes:
    """The value of the list's record: JSON."""
    buffer: bytearray | None = getattr(_local, "buffer", None)
    if buffer is None:
        buffer = _local.buffer = bytearray(8192)
    _encoder.encode_into(recommendation, buffer)
    return bytes(buffer)


def decode_recommendation(value: bytes) -> Recommendation:
    """The list of a record. Raises ContractError when the value is none."""
    try:
        return _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ContractError(
            f"the value is no recommendation list ({error}): is this the recommendations topic?"
        ) from None
