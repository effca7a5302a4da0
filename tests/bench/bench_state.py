"""What a user's state costs, and whether an event costs the same with 10,000 users as with 1,000,000. Without Kafka.

    python -m tests.bench.bench_state [--users 10000,100000,1000000] [--json build/state.json]

Events of random users in chunks of 1,024, each number of users in a store of its own:

| figure | an event is | dearest number of users by cheapest |
|---|---|---|
| `us` | the state read from RocksDB, decoded, updated, encoded, written | `state_flat_ratio` |
| `whole_us` | that, and a step of the network, 1,500 items ranked, the list with reasons encoded | `flat_ratio` |

CPU time of the process, RocksDB's threads with it: so many events are asked for that flushes and compactions come by
turns, and those that the last events caused are waited for. `memory_mb` is the process's resident set with the store
open, Python, torch and the model in it.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from model.recommender import Portion, RankingSettings, Recommender
from state.codec import decode_state, encode_state
from state.interaction import Interaction
from state.interest import VECTOR_DTYPE, InterestState
from state.keys import key_of
from state.settings import StateSettings
from state.store import RocksStore
from state.trend import Trend
from state.weights import DEFAULT_WEIGHTS, TYPE_CODES
from state.window import interest_key
from stream.contract.recommendation import ModelRef, Recommendation, Source, encode_recommendation, recommendation_id
from tests.bench.catalog_memory import resident_bytes
from tests.bench.shop import category, item_id, shop_model

START_MS = 1_780_000_000_000
ITEMS = 1_500
HIDDEN = 96  # as NetSettings has it: a state has 256 numbers, and 2 KiB at most
CHUNK = 1024
_DISTINCT = 2_000
_KINDS = ("view", "view", "view", "click", "add_to_cart", "purchase")
# Three events within minutes, a return within the day, one after days: shoppers.
_GAPS_MS = (20_000, 60_000, 180_000, 5_400_000, 200_000_000)
_BUSY = ("num-running-flushes", "mem-table-flush-pending", "num-running-compactions", "compaction-pending")
_KEYS = [key_of(item_id(number)) for number in range(ITEMS)]

Batch = list[tuple[bytes, Interaction]]
Values = list[bytes | None]
Puts = list[tuple[bytes, bytes | None]]
Work = Callable[[Batch, Values], Puts]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", default="10000,100000,1000000", help="numbers of users, by comma")
    parser.add_argument("--events", type=int, default=150_000, help="events for each of them")
    parser.add_argument("--json", type=Path, help="where the figures go")
    given = parser.parse_args(arguments)
    figures = measure([int(users) for users in given.users.split(",")], given.events)
    print(json.dumps(figures, indent=2))
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def measure(users: Sequence[int], events: int) -> dict[str, Any]:
    """`state_us`, `flat_ratio`, `state_flat_ratio` and what they rest on."""
    settings = StateSettings()
    recommender = Recommender(shop_model(ITEMS, HIDDEN), settings, RankingSettings())
    draw = random.Random(1)
    full = [_full_state(draw, recommender) for _ in range(_DISTINCT)]
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    costs = _alone(full, draw, settings)
    stores = {count: _in_store(full, count, events, draw, recommender) for count in users}
    return {
        "state_us": round(sum(costs.values()), 2),
        "parts_us": {name: round(cost, 2) for name, cost in costs.items()},
        "state_bytes": {
            "mean": round(sum(map(len, full)) / len(full)),
            "max": max(map(len, full)),
            "bound": settings.max_state_bytes(recommender.artifact.state_size * VECTOR_DTYPE.itemsize),
        },
        "flat_ratio": _flat([one["whole_us"] for one in stores.values()]),
        "state_flat_ratio": _flat([one["us"] for one in stores.values()]),
        "stores": {str(count): one for count, one in stores.items()},
    }


def _flat(us: list[float]) -> float:
    return round(max(us) / min(us), 3)


def _event(draw: random.Random, time_ms: int, offset: int = 0) -> Interaction:
    kind = draw.choice(_KINDS)
    number = draw.randrange(ITEMS)
    return Interaction(
        event=draw.getrandbits(62) + 1,
        type=TYPE_CODES[kind],
        time_ms=time_ms,
        items=(_KEYS[number],),
        interests=(interest_key(category(number)),),
        names=(category(number),),
        weight=DEFAULT_WEIGHTS[kind],
        offset=offset,
        payload=draw.randrange(1, 2**16),
    )


def _full_state(draw: random.Random, recommender: Recommender) -> bytes:
    artifact = recommender.artifact
    numbers = np.array([draw.gauss(0.0, 1.0) for _ in range(artifact.state_size)], VECTOR_DTYPE)
    state = InterestState(vector=numbers.tobytes(), vector_model=artifact.checksum)
    time_ms = START_MS - 150 * 60_000_000
    for _ in range(150):
        time_ms += draw.choice(_GAPS_MS)
        state.apply(_event(draw, time_ms), recommender.state_settings)
    return encode_state(state)


def _next_event(draw: random.Random, state: bytes) -> Interaction:
    return _event(draw, decode_state(state).last_time_ms + draw.choice(_GAPS_MS))


def _alone(full: list[bytes], draw: random.Random, settings: StateSettings) -> dict[str, float]:
    """CPU us of decoding, updating and encoding a full state; the best of five passes over all of them."""
    events = [_next_event(draw, state) for state in full]
    best = dict.fromkeys(("decode", "apply", "encode"), float("inf"))
    for _ in range(5):
        spent = {}
        spent["decode"], states = _timed(partial(list, map(decode_state, full)))
        spent["apply"], _ = _timed(partial(list, map(InterestState.apply, states, events, repeat(settings))))
        spent["encode"], _ = _timed(partial(list, map(encode_state, states)))
        best = {name: min(best[name], spent[name] / len(full) * 1e6) for name in best}
    return best


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started_s = time.process_time()
    done = work()
    return time.process_time() - started_s, done


# --- in a store -----------------------------------------------------------------------------------


def _in_store(
    full: list[bytes], users: int, events: int, draw: random.Random, recommender: Recommender
) -> dict[str, float | int]:
    """CPU us of an event with so many users' states on disk, the size of these, and memory."""
    folder = Path(tempfile.mkdtemp())
    try:
        store = RocksStore(folder / "state.db")
        for start in range(0, users, CHUNK):
            numbers = range(start, min(start + CHUNK, users))
            store.write([(b"user-%08d" % number, full[number % len(full)]) for number in numbers], start)
        store.close()
        store = RocksStore(folder / "state.db")
        store._db.compact_range(None, None)  # as after some hours: what filling left to do is not the events' cost
        bytes_on_disk = sum(file.stat().st_size for file in (folder / "state.db").rglob("*") if file.is_file())
        us = _cost_us(store, users, events, draw, partial(_state_alone, recommender.state_settings))
        whole_us = _cost_us(store, users, events, draw, partial(_whole, recommender, recommender.new_trend()))
        memory_mb = round(resident_bytes() / 1e6, 1)
        store.close()
        return {
            "us": round(us, 2),
            "whole_us": round(whole_us, 2),
            "bytes_on_disk": bytes_on_disk,
            "memory_mb": memory_mb,
        }
    finally:
        shutil.rmtree(folder)


def _cost_us(store: RocksStore, users: int, events: int, draw: random.Random, work: Work) -> float:
    """CPU us of an event: `work` makes of a chunk's events and old values the new ones."""
    batches = _batches(users, events, draw)
    making_s, done, position = 0.0, 0, store.position
    started_s = time.process_time()
    while True:
        began_s = time.thread_time()  # of this thread: what RocksDB's do meanwhile counts
        batch = next(batches, None)
        making_s += time.thread_time() - began_s
        if batch is None:
            break
        position += CHUNK
        values = store.get_many([user for user, _ in batch])
        store.write(work(batch, values), position)
        done += len(batch)
    while any(store._db.property_int_value(f"rocksdb.{name}") for name in _BUSY):
        time.sleep(0.01)
    return (time.process_time() - started_s - making_s) / done * 1e6


def _batches(users: int, events: int, draw: random.Random) -> Iterator[Batch]:
    """Chunks of distinct users' events; their times are those after the user's last."""
    for start in range(0, events, CHUNK):
        chosen = {draw.randrange(users): None for _ in range(CHUNK)}
        yield [(b"user-%08d" % user, _event(draw, draw.choice(_GAPS_MS), start)) for user in chosen]


def _state_alone(settings: StateSettings, batch: Batch, values: Values) -> Puts:
    puts: Puts = []
    for (user, event), value in zip(batch, values, strict=True):
        state = decode_state(value or b"")
        event.time_ms += state.last_time_ms
        state.apply(event, settings)
        puts.append((user, encode_state(state)))
    return puts


def _whole(recommender: Recommender, trend: Trend, batch: Batch, values: Values) -> Puts:
    """As the interest agent does it, but for the events' JSON and Kafka."""
    states = {user: decode_state(value or b"") for (user, _), value in zip(batch, values, strict=True)}
    for user, event in batch:
        event.time_ms += states[user].last_time_ms
    portion = Portion(batch, states, trend)
    recommender.process([portion])
    model = ModelRef(name=recommender.artifact.name, version=recommender.artifact.version)
    for made in portion.lists:
        encode_recommendation(
            Recommendation(
                recommendation_id=recommendation_id(made.user, 0, made.offset),
                user_id=made.user.decode(),
                generated_at="2026-05-01T10:00:00.031Z",
                trigger_event_id="event",
                events_applied=made.events_applied,
                source=Source("events", 0, made.offset),
                model=model,
                strategy=made.strategy,
                interests=made.interests,
                items=made.items,
            )
        )
    assert len(portion.lists) == len(batch)
    return [(user, encode_state(state)) for user, state in states.items()]


if __name__ == "__main__":
    sys.exit(main())
