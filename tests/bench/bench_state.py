"""What a user's state costs, and whether it costs the same with 10,000 users as with 1,000,000. Without Kafka.

    python -m tests.bench.bench_state [--users 10000,100000,1000000] [--json build/state.json]

Reads a state from RocksDB, applies an event, writes it back: for random users, in chunks of 1,024, each size in a store
of its own. CPU time of the process with RocksDB's threads. `flat_ratio` is the dearest size's time by the cheapest's.
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
from collections.abc import Callable, Sequence
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

from state.codec import decode_state, encode_state
from state.interaction import Interaction
from state.interest import InterestState
from state.settings import StateSettings
from state.store import RocksStore
from state.weights import DEFAULT_WEIGHTS, TYPE_CODES

START_MS = 1_780_000_000_000
VECTOR_BYTES = 512
CHUNK = 1024
_DISTINCT = 2_000
_KINDS = ("view", "view", "view", "click", "add_to_cart", "purchase")
# Three events within minutes, a return within the day, one after days: shoppers.
_GAPS_MS = (20_000, 60_000, 180_000, 5_400_000, 200_000_000)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", default="10000,100000,1000000", help="numbers of users, by comma")
    parser.add_argument("--events", type=int, default=60_000, help="events for each of them")
    parser.add_argument("--json", type=Path, help="where the figures go")
    given = parser.parse_args(arguments)
    figures = measure([int(users) for users in given.users.split(",")], given.events)
    print(json.dumps(figures, indent=2))
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def measure(users: Sequence[int], events: int) -> dict[str, Any]:
    """`state_us`, `flat_ratio` and what they rest on."""
    settings = StateSettings()
    draw = random.Random(1)
    full = [_full_state(draw, settings) for _ in range(_DISTINCT)]
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    costs = _alone(full, draw, settings)
    stores = {count: _in_store(full, count, events, draw, settings) for count in users}
    us = [one["us"] for one in stores.values()]
    return {
        "state_us": round(sum(costs.values()), 2),
        "parts_us": {name: round(cost, 2) for name, cost in costs.items()},
        "state_bytes": {
            "mean": round(sum(map(len, full)) / len(full)),
            "max": max(map(len, full)),
            "bound": settings.max_state_bytes(VECTOR_BYTES),
        },
        "flat_ratio": round(max(us) / min(us), 3),
        "stores": {str(count): one for count, one in stores.items()},
    }


def _event(draw: random.Random, time_ms: int) -> Interaction:
    kind = draw.choice(_KINDS)
    return Interaction(
        event=draw.getrandbits(62) + 1,
        type=TYPE_CODES[kind],
        time_ms=time_ms,
        items=(draw.getrandbits(62) + 1,),
        categories=(f"category {draw.randrange(40)}",),
        weight=DEFAULT_WEIGHTS[kind],
        offset=2**40,
        payload=draw.randrange(1, 2**16),
    )


def _full_state(draw: random.Random, settings: StateSettings) -> bytes:
    state = InterestState(vector=draw.randbytes(VECTOR_BYTES), vector_model=2**32 - 1)
    time_ms = START_MS - 150 * 60_000_000
    for _ in range(150):
        time_ms += draw.choice(_GAPS_MS)
        state.apply(_event(draw, time_ms), settings)
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


def _in_store(
    full: list[bytes], users: int, events: int, draw: random.Random, settings: StateSettings
) -> dict[str, float | int]:
    """CPU us of an event with so many users' states on disk, and the size of these."""
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
        chunks = [[b"user-%08d" % draw.randrange(users) for _ in range(CHUNK)] for _ in range(events // CHUNK)]
        spent_s = 0.0
        for number, chunk in enumerate(chunks):
            keys = list(set(chunk))
            made = [_event(draw, draw.choice(_GAPS_MS)) for _ in keys]  # after the user's last
            started_s = time.process_time()
            puts: list[tuple[bytes, bytes | None]] = []
            for key, value, one in zip(keys, store.get_many(keys), made, strict=True):
                assert value is not None
                state = decode_state(value)
                one.time_ms += state.last_time_ms
                state.apply(one, settings)
                puts.append((key, encode_state(state)))
            store.write(puts, number)
            spent_s += time.process_time() - started_s
        store.close()
        applied = sum(len(set(chunk)) for chunk in chunks)
        return {"us": round(spent_s / applied * 1e6, 2), "bytes_on_disk": bytes_on_disk, "events": applied}
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
