"""The job that is done with and without Quix Streams: an event in, a state of about 600 bytes changed, a list out.

No model and no ranking: what it costs is what the stream itself costs. The state is the last 50 items, 16 decayed
counters and 256 bytes that stand for a vector; a new user begins with a full one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import msgspec

from tests.bench.shop import passes, user_key

_VECTOR = random.Random(0).randbytes(256)
_ITEMS = 20_000


class JobEvent(msgspec.Struct, gc=False):
    """An event in."""

    event_id: str
    user_id: str
    item_id: int
    type: str
    ts: int


class JobState(msgspec.Struct, array_like=True):
    """A user's state."""

    offset: int
    count: int
    items: list[int]
    counters: dict[int, float]
    vector: bytes


class JobList(msgspec.Struct):
    """A list out."""

    user: str
    offset: int
    items: list[int]
    count: int


decode_event = msgspec.json.Decoder(JobEvent).decode
decode_state = msgspec.msgpack.Decoder(JobState).decode
encode_state = msgspec.msgpack.Encoder().encode
encode_list = msgspec.json.Encoder().encode


def new_state() -> JobState:
    """A new user's state, as large as it gets."""
    return JobState(-1, 0, list(range(1_000, 1_045)), dict.fromkeys(range(16), 1.0), _VECTOR)


def apply(state: JobState, event: JobEvent, offset: int) -> bool:
    """Change the state by an event; False when the state has it already."""
    if offset <= state.offset:
        return False
    state.offset = offset
    state.count += 1
    state.items.append(event.item_id)
    if len(state.items) > 50:
        del state.items[:10]
    counters = state.counters
    group = event.item_id % 16
    counters[group] = counters.get(group, 0.0) * 0.99 + 1.0
    return True


def list_of(user: str, state: JobState) -> bytes:
    """The user's list, encoded."""
    return encode_list(JobList(user, state.offset, state.items[-20:], state.count))


def job_log(events: int, users: int) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of every event of the log."""
    draw = random.Random(1)
    for number, user in enumerate(passes(users, events)):
        key = user_key(user)
        event = JobEvent(f"e{number:025d}", key.decode(), draw.randrange(_ITEMS), "click", 1_700_000_000_000 + number)
        yield key, encode_list(event)
