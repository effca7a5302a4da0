"""A shop for the benchmarks: its catalogue and model, its users' events, and states of users who have been there.

Users come in passes: everyone once, in random order, then everyone again in the same order. So every event of a chunk
is of another user: the costliest case, as no two events share a state or a list.
"""

from __future__ import annotations

import dataclasses
import json
import random
import time
import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
from confluent_kafka import Producer

from model.artifact import Artifact, untrained_artifact
from state.codec import encode_state
from state.interaction import Interaction
from state.interest import VECTOR_DTYPE, InterestState
from state.keys import key_of
from state.settings import StateSettings
from state.weights import DEFAULT_WEIGHTS, TYPE_CODES
from state.window import interest_key

KINDS = ("view", "view", "view", "click", "add_to_cart", "purchase")
CATEGORIES = 60
RULES_PER_ITEM = 50
_FLUSH_S = 120.0
_DISTINCT_STATES = 2_000
_SPAN_MS = 4 * 3_600_000  # a log's events spread over so long before now

Record = tuple[bytes, bytes]


def item_id(index: int) -> str:
    """Id of an item of the catalogue."""
    return f"item-{index}"


def category(index: int) -> str:
    """Category of an item."""
    return f"category {index % CATEGORIES}"


def user_key(index: int) -> bytes:
    """Key of a user's records."""
    return b"user-%06d" % index


def shop_model(items: int, hidden: int = 128) -> Artifact:
    """A model 64 wide, with 64 + 2 * `hidden` numbers of state and 50 rules an item, that learnt nothing.

    Its items differ in bias and popularity as real ones do: where all scores are equal, to find the best is work that
    no real model asks for.
    """
    ids, categories = [item_id(i) for i in range(items)], [category(i) for i in range(items)]
    artifact = untrained_artifact(ids, categories, dim=64, hidden=hidden, seed=7, rules=RULES_PER_ITEM)
    share = 1.0 / (np.arange(items) + 10.0)
    bias = np.random.default_rng(7).standard_normal(items)
    return dataclasses.replace(
        artifact, popularity=(share / share.sum()).astype(np.float32), item_bias=bias.astype(np.float32)
    )


def passes(users: int, count: int, seed: int = 0) -> Iterator[int]:
    """`count` users: all of them in random order, again and again."""
    order = list(range(users))
    random.Random(seed).shuffle(order)
    while count > 0:
        yield from order[:count]
        count -= users


def popular_item(draw: random.Random, items: int) -> int:
    """An item; a tenth of the catalogue gets about half of the events."""
    return int(items * draw.random() ** 3.3)


def shop_event(draw: random.Random, user: str, items: int, at_ms: int, event_id: str) -> dict[str, Any]:
    """An event as a shop sends it."""
    index = popular_item(draw, items)
    kind = draw.choice(KINDS)
    event: dict[str, Any] = {
        "event_id": event_id,
        "event_type": kind,
        "user_id": user,
        "item_id": item_id(index),
        "occurred_at": datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds"),
        "session_id": f"s-{at_ms // 3_600_000:x}-{user}",
    }
    if kind == "purchase":
        event |= {"quantity": 1, "price": 19.9, "currency": "EUR"}
    return event


def shop_log(events: int, users: int, items: int) -> Iterator[Record]:
    """Key and value of every event of a log that ends now."""
    draw = random.Random(1)
    first_ms = int(time.time() * 1000) - _SPAN_MS
    for number, user in enumerate(passes(users, events)):
        key = user_key(user)
        event_id = str(uuid.UUID(int=draw.getrandbits(128)))
        at_ms = first_ms + number * _SPAN_MS // events
        yield key, json.dumps(shop_event(draw, key.decode(), items, at_ms, event_id)).encode()


def known_states(artifact: Artifact, users: Iterable[int]) -> Iterator[Record]:
    """Key and encoded state of `users`, who did 5 to 80 things each before the log begins.

    Two thousand histories are shared by all users: what a state costs depends on its size, not on who has it.
    """
    draw = random.Random(2)
    settings = StateSettings()
    items = artifact.items
    vectors = np.random.default_rng(2).standard_normal((_DISTINCT_STATES, artifact.state_size)).astype(VECTOR_DTYPE)
    encoded: list[bytes] = []
    for vector in vectors:
        state = InterestState()
        time_ms = int(time.time() * 1000) - 90 * 86_400_000
        for _ in range(draw.randint(5, 80)):
            time_ms += draw.choice((20_000, 60_000, 40_000_000))
            kind, index = draw.choice(KINDS), popular_item(draw, items)
            item, weight = key_of(item_id(index)), DEFAULT_WEIGHTS[kind]
            state.apply(
                Interaction(
                    draw.getrandbits(62) + 1,
                    TYPE_CODES[kind],
                    time_ms,
                    (item,),
                    (interest_key(category(index)),),
                    weight,
                    0,
                ),
                settings,
            )
        state.vector, state.vector_model = vector.tobytes(), artifact.checksum
        encoded.append(encode_state(state))
    for user in users:
        yield user_key(user), encoded[user % len(encoded)]


def send_all(properties: dict[str, Any], topic: str, records: Iterable[Record]) -> int:
    """Send records by murmur2 of their keys and wait until all are taken; how many there were."""
    producer = Producer({**properties, "linger.ms": 20, "partitioner": "murmur2_random", "acks": "all"})
    count = 0
    for key, value in records:
        while True:
            try:
                producer.produce(topic, value, key)
                break
            except BufferError:
                producer.poll(0.1)
        count += 1
        if count % 1_000 == 0:
            producer.poll(0)
    left = producer.flush(_FLUSH_S)
    if left:
        raise TimeoutError(f"the broker did not take {left} records of {topic} within {_FLUSH_S:.0f} s")
    return count
