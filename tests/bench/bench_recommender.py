"""CPU time of the recommender by part, one thread. A script, not a test:

    python tests/bench/bench_recommender.py [--json build/recommender.json]

Users with realistic states, an event each, all users of a chunk distinct: the costliest case. Times are those of the
process's own CPU clock (best of the repeats), so that a busy machine disturbs them little.
"""

import argparse
import dataclasses
import gc
import json
import platform
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import msgspec
import numpy as np
import torch

from model.artifact import untrained_artifact
from model.ranking.rerank import LearntBlend
from model.recommender import Portion, RankingSettings, Recommender
from state.codec import decode_state, encode_state
from state.interaction import Interaction
from state.interest import VECTOR_DTYPE, InterestState
from state.keys import key_of
from state.settings import StateSettings
from state.weights import DEFAULT_WEIGHTS, EVENT_TYPES
from state.window import interest_key

START_MS = 1_700_000_000_000
P = ParamSpec("P")
R = TypeVar("R")

KINDS = ("view", "view", "view", "click", "add_to_cart", "purchase")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=3_400)
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--chunk", type=int, default=256, help="events of one batch, each of another user")
    parser.add_argument("--events", type=int, default=25_600, help="events measured")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--exclude", choices=("seen", "session", "none"), default="seen")
    parser.add_argument("--basket-weight", type=float, default=0.0)
    parser.add_argument("--counted-items", type=int, default=StateSettings().max_counted_items)
    parser.add_argument("--learnt", action="store_true", help="with a learnt blend of 24 and 12 hidden units")
    parser.add_argument("--parts", action="store_true", help="with the parts of each score (ranking.parts)")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    args = parser.parse_args()

    draw = random.Random(0)
    ids = [f"item-{index}" for index in range(args.items)]
    categories = [f"category {index % 60}" for index in range(args.items)]
    keys = [key_of(item_id) for item_id in ids]
    artifact = untrained_artifact(ids, categories, rules=50)
    if args.learnt:
        numbers = np.random.default_rng(0)
        shapes = {"w1": (24, 8), "b1": (24,), "w2": (12, 24), "b2": (12,), "w3": (1, 12)}
        blend = {name: numbers.standard_normal(shapes[name]).astype(np.float32) for name in LearntBlend.ARRAYS}
        artifact = dataclasses.replace(artifact, blend=blend)
    settings = StateSettings(max_counted_items=args.counted_items)
    ranking = RankingSettings(exclude=args.exclude, basket_weight=args.basket_weight, parts=args.parts)
    recommender = Recommender(artifact, settings, ranking)

    def event(number: int, time_ms: int) -> Interaction:
        index = min(int(draw.paretovariate(0.6)) - 1, args.items - 1) if draw.random() < 0.5 else 0
        index = index or draw.randrange(args.items)
        kind = draw.choice(KINDS)
        return Interaction(
            event=draw.getrandbits(62) + 1,
            type=EVENT_TYPES.index(kind),
            time_ms=time_ms,
            items=(keys[index],),
            interests=(interest_key(categories[index]),),
            names=(categories[index],),
            weight=DEFAULT_WEIGHTS[kind],
            offset=number,
        )

    # Histories of 5 to 80 events; the vectors are random: their values do not matter to the time.
    vector_bytes = np.random.default_rng(0).standard_normal((args.users, artifact.state_size)).astype(VECTOR_DTYPE)
    encoded: dict[bytes, bytes] = {}
    for user in range(args.users):
        state = InterestState()
        time_ms = START_MS
        for _ in range(draw.randint(5, 80)):
            time_ms += draw.choice((20_000, 60_000, 40_000_000))
            state.apply(event(0, time_ms), settings)
        state.vector, state.vector_model = vector_bytes[user].tobytes(), artifact.checksum
        encoded[b"user-%d" % user] = encode_state(state)
    sizes = sorted(map(len, encoded.values()))

    users = list(encoded)
    draw.shuffle(users)
    log = [
        (users[offset % len(users)], event(offset, START_MS + 4_000_000_000 + offset)) for offset in range(args.events)
    ]
    batches = [log[start : start + args.chunk] for start in range(0, args.events, args.chunk)]

    # As in a worker: what is there for good is not searched for garbage.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    best: dict[str, float] = {}
    for _ in range(args.repeats):
        figures = _run(recommender, batches, encoded, settings)
        best = {name: min(best.get(name, us), us) for name, us in figures.items()}
    # `process` measures its parts by the wall clock; here they are shares of its CPU time.
    report = {
        "us_per_event": {name: round(us, 2) for name, us in best.items()},
        "state_bytes": {"median": sizes[len(sizes) // 2], "max": sizes[-1]},
        "settings": {name: str(value) for name, value in vars(args).items()},
        "machine": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "cpu": torch.backends.cpu.get_cpu_capability(),
        },
    }
    print(json.dumps(report, indent=2))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=2))


def _run(
    recommender: Recommender,
    batches: list[list[tuple[bytes, Interaction]]],
    encoded: dict[bytes, bytes],
    settings: StateSettings,
) -> dict[str, float]:
    """CPU microseconds an event of one pass over the batches; `encoded` is left as it is."""
    seconds = dict.fromkeys(("decode", "encode", "process", "lists_encoded", "apply"), 0.0)
    parts = dict.fromkeys(("state", "model", "rank", "explain"), 0.0)
    encoder = msgspec.json.Encoder()
    trend = recommender.new_trend()
    pipeline = recommender.pipeline
    explainer = pipeline._explainer
    timed = [(pipeline, "_items"), (explainer, "find"), (explainer, "reasons"), (explainer, "interests")]
    list_bytes = 0
    events = 0
    for batch in batches:
        # A store hands out a fresh copy, which is in the cache then; what memory costs is the store's time.
        values = {user: bytes(memoryview(encoded[user])) for user, _ in batch}
        t0 = time.process_time()
        states = {user: decode_state(value) for user, value in values.items()}
        t1 = time.process_time()
        for user, interaction in batch:
            states[user].apply(interaction, settings)
        t2 = time.process_time()
        states = {user: decode_state(value) for user, value in values.items()}
        t3 = time.process_time()
        done = Portion(batch, states, trend)
        spent = recommender.process([done])
        t4 = time.process_time()
        records = [encode_state(state) for state in states.values()]
        t5 = time.process_time()
        list_bytes += sum(len(encoder.encode(user_list.items)) for user_list in done.lists)
        t6 = time.process_time()
        assert len(records) == len(batch) == len(done.lists)
        for name, took in zip(
            ("decode", "apply", "process", "encode", "lists_encoded"),
            (t1 - t0, t2 - t1, t4 - t3, t5 - t4, t6 - t5),
            strict=True,
        ):
            seconds[name] += took
        parts["state"] += spent.state_s
        parts["model"] += spent.model_s
        parts["rank"] += spent.rank_s
        events += len(batch)
    # A second pass of the ranking alone, with the reasons' part timed.
    for owner, name in timed:
        setattr(owner, name, _timed(getattr(owner, name), parts, "explain"))
    try:
        ranked = 0.0
        for batch in batches:
            states = {user: decode_state(encoded[user]) for user, _ in batch}
            ranked += recommender.process([Portion(batch, states, recommender.new_trend())]).rank_s
    finally:
        for owner, name in timed:
            delattr(owner, name)  # the class's own method shows again
    wall = parts["state"] + parts["model"] + parts["rank"]
    cpu = seconds["process"] / wall
    us = 1e6 / events
    explain = parts["explain"] / ranked * parts["rank"]
    return {
        "state_decode": seconds["decode"] * us,
        "state_apply": seconds["apply"] * us,
        "state_encode": seconds["encode"] * us,
        "process": seconds["process"] * us,
        "process_state_and_trend": parts["state"] * cpu * us,
        "process_model_step": parts["model"] * cpu * us,
        "process_rank_without_list": (parts["rank"] - explain) * cpu * us,
        "process_list_with_reasons": explain * cpu * us,
        "list_to_json": seconds["lists_encoded"] * us,
        "list_json_bytes": list_bytes / events,
    }


def _timed(function: Callable[P, R], parts: dict[str, float], name: str) -> Callable[P, R]:
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        before = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            parts[name] += time.perf_counter() - before

    return call


if __name__ == "__main__":
    main()
