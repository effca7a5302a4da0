"""Messages between workers and their operators: which model is active, what was erased, why an event was
put aside.
"""

import traceback
from collections.abc import Sequence
from hashlib import blake2b
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from state.errors import DriftlineError
from stream.contract.recommendation import Source
from stream.errors import ContractError, EventError

# Kafka Streams' family of names (KIP-1034), so that its tools read our dead letters too.
ERROR_EXCEPTION = "__streams.errors.exception"
ERROR_MESSAGE = "__streams.errors.message"
ERROR_STACKTRACE = "__streams.errors.stacktrace"
ERROR_TOPIC = "__streams.errors.topic"
ERROR_PARTITION = "__streams.errors.partition"
ERROR_OFFSET = "__streams.errors.offset"
# Ours: the step that failed, and the stable code to count and filter by.
ERROR_STAGE = "driftline.errors.stage"
ERROR_REASON = "driftline.errors.reason"

#: On an event that was sent on under its own key: when it was first sent, ms since 1970.
FIRST_SENT = "driftline.first_sent_ms"
#: On a tombstone of the recommendations topic: why there is no list any more, and the offset of the event after which.
REMOVED_BECAUSE = "driftline.removed.because"
REMOVED_AT = "driftline.removed.offset"

ERROR_HEADERS: tuple[str, ...] = (
    ERROR_EXCEPTION,
    ERROR_MESSAGE,
    ERROR_STACKTRACE,
    ERROR_TOPIC,
    ERROR_PARTITION,
    ERROR_OFFSET,
    ERROR_STAGE,
    ERROR_REASON,
)
# On the late topic, besides the above: when the event happened, and what it was held against.
LATE_BY_MS = "driftline.late.late_by_ms"
"""How far the event is behind the watermark."""
LATE_EVENT_MS = "driftline.late.event_time_ms"
"""The event's time, after correction of its sender's clock; ms since 1970."""
LATE_WATERMARK_MS = "driftline.late.watermark_ms"
"""The newest event time of the partition before this event; ms since 1970."""
LATE_GRACE_MS = "driftline.late.grace_ms"
"""The grace period that it missed."""
LATE_MISSED = "driftline.late.missed_windows"
"""Names of the windows that no longer reach back to it, separated by commas."""
LATE_COVERED = "driftline.late.covering_windows"
"""Names of those that still would, had it been let in (events.late_policy)."""

LATE_HEADERS: tuple[str, ...] = (
    LATE_BY_MS,
    LATE_EVENT_MS,
    LATE_WATERMARK_MS,
    LATE_GRACE_MS,
    LATE_MISSED,
    LATE_COVERED,
)
#: Reason of an error that is no EventError.
UNEXPECTED = "unexpected"

# A dead letter must fit where its record did, so what is added to it has a bound.
_MAX_MESSAGE_CHARS = 1_000
_MAX_STACKTRACE_CHARS = 8_000


class ModelPointer(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The artifact that is active under a name. Key: the name; the last one counts."""

    name: Annotated[str, Meta(min_length=1, description="Name of the model.")]
    version: Annotated[str, Meta(min_length=1, description="Version of the artifact.")]
    uri: Annotated[str, Meta(min_length=1, description="Where the artifact's folder is: a path or URI.")]
    sha256: Annotated[
        str, Meta(pattern="^[0-9a-f]{64}$", description="SHA-256 of the artifact's manifest.json, in hex.")
    ]
    activated_at: Annotated[
        str,
        Meta(
            description="When it was made active: ISO-8601, UTC, milliseconds.",
            extra_json_schema={"format": "date-time"},
        ),
    ]


class ErasureConfirmed(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What was known of a user from one partition of the events topic was erased. Key: `key`."""

    user_hash: Annotated[
        str, Meta(pattern="^[0-9a-f]{32}$", description="Hash of the user's key: whose erasure, not who.")
    ]
    erased_at: Annotated[
        str,
        Meta(
            description="When it was done: ISO-8601, UTC, milliseconds.",
            extra_json_schema={"format": "date-time"},
        ),
    ]
    source: Annotated[Source, Meta(description="The record that asked for it.")]
    requested_at: Annotated[
        str,
        Meta(
            description="Timestamp of that record: ISO-8601, UTC, milliseconds. Events that were sent before it under "
            "another key, and come later under the user's own, are erased too.",
            extra_json_schema={"format": "date-time"},
        ),
    ]

    @property
    def key(self) -> bytes:
        """The record's key: a user whose producers used two partitioners has two states, and two confirmations."""
        return f"{self.user_hash}/{self.source.partition}".encode()


def user_hash(key: bytes) -> str:
    """Hash of a user's key for an erasure's confirmation: 32 hex digits (BLAKE2b, 128 bits).

    Who knows the user can look the confirmation up; the confirmation does not tell the user.
    """
    return blake2b(key, digest_size=16).hexdigest()


Headers = Sequence[tuple[str, bytes | None]]


def first_sent_ms(headers: Headers) -> int | None:
    """When an event was first sent, ms since 1970, if it was sent on under another key; None otherwise."""
    for name, value in headers:
        if name == FIRST_SENT and value is not None and value.isdigit() and len(value) < 16:
            return int(value)
    return None


def with_first_sent(headers: Headers, sent_ms: int) -> list[tuple[str, bytes | None]]:
    """`headers` with the time at which the event was first sent, unless they tell it already."""
    if first_sent_ms(headers) is not None:
        return list(headers)
    return [*headers, (FIRST_SENT, b"%d" % sent_ms)]


_Message = TypeVar("_Message")
_encoder = msgspec.json.Encoder()


def encode_control(message: ModelPointer | ErasureConfirmed) -> bytes:
    """The value of the message's record: JSON."""
    return _encoder.encode(message)


def decode_model_pointer(value: bytes) -> ModelPointer:
    """The pointer of a record on the models topic. Raises ContractError when the value is none."""
    return _decode(value, ModelPointer, "model pointer")


def decode_erasure(value: bytes) -> ErasureConfirmed:
    """The confirmation of a record on the erasures topic. Raises ContractError when the value is none."""
    return _decode(value, ErasureConfirmed, "erasure")


def error_headers(
    error: BaseException, *, stage: str, topic: str, partition: int, offset: int
) -> list[tuple[str, bytes]]:
    """The headers that a dead letter gets besides its own: why, and from where.

    stage: the step that failed ('decode', 'process', ...). topic, partition, offset: the record's.
    The reason is the EventError's, else `UNEXPECTED`. The stack trace is left empty for Driftline's own
    errors: their message says all, and a flood of bad events must not cost a trace each.
    """
    own = isinstance(error, DriftlineError)
    trace = "" if own else "".join(traceback.format_exception(error))
    values = (
        f"{type(error).__module__}.{type(error).__qualname__}",
        str(error)[:_MAX_MESSAGE_CHARS],
        trace[-_MAX_STACKTRACE_CHARS:],
        topic,
        str(partition),
        str(offset),
        stage,
        error.reason if isinstance(error, EventError) else UNEXPECTED,
    )
    # A message may quote what cannot be encoded (half a surrogate pair); the letter must go out all the same.
    return [(name, value.encode(errors="replace")) for name, value in zip(ERROR_HEADERS, values, strict=True)]


def _decode(value: bytes, kind: type[_Message], what: str) -> _Message:
    try:
        return msgspec.json.decode(value, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ContractError(f"the value is no {what} ({error}): check who writes to this topic") from None
