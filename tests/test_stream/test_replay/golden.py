"""The golden log: made-up events with all that a log has, and what a replay of them says.

    tests/golden/replay/log.jsonl       400 lines: events of several types, users, tenants and sessions; duplicates,
                                        late ones, broken lines, an erasure
    tests/golden/replay/results.json    what a replay of it leaves: see `results`

The files are kept and not made anew: a change of what they hold is a change of what users get. One that is wanted is
written with

    python -m tests.test_stream.test_replay.golden [log]

which writes the results, and with `log` first the log. Read the diff before you keep it.

What is kept must be the same on every CPU and with every torch. The network's numbers are not, in their last bits:
`ranking.network_weight` is 0, so that lists follow rules, counts and popularity, and of a state all is told but the
vector. Logarithms of numpy may differ in the last bit, too: items whose scores are nearer to each other than
TIED are told as one place.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np

from model.artifact import save_artifact, untrained_artifact
from state.codec import decode_state
from state.interest import COUNT_DTYPE, InterestState
from state.keys import key_of, session_key, split_user_key
from state.settings import StateSettings
from state.store import RocksStore
from state.weights import EVENT_TYPES
from state.window import interest_key
from stream.replay.log import LogSpec
from stream.replay.process import store_path
from stream.replay.run import Options, Replayed, replay
from stream.settings import Settings, load_settings

FOLDER = Path(__file__).parents[2] / "golden" / "replay"
LOG, RESULTS = FOLDER / "log.jsonl", FOLDER / "results.json"
ITEMS = [f"i{n}" for n in range(24)]
CATEGORIES = [f"c{n % 5}" for n in range(24)]
SESSIONS = [f"s{n}" for n in range(40)]
TIED = 1e-4
FIRST_MS = 1_750_000_000_000
LINES = 400
_TYPES = ("view", "view", "view", "view", "click", "add_to_cart", "remove_from_cart", "purchase", "like", "dislike")
_TYPES = (*_TYPES, "hide", "rating", "impression", "session_start")
_BROKEN = ("no event", '{"event_type":"view"}', '{"event_type":"dance","occurred_at":1750000000000,"user_id":"u1"}')


def make_log(seed: int = 5) -> list[str]:
    """The lines."""
    draw = random.Random(seed)
    lines: list[str] = []
    for n in range(LINES):
        if n % 100 == 50:
            lines.append(_BROKEN[n // 100 % len(_BROKEN)])
            continue
        if n % 40 == 20:
            lines.append(lines[-7])  # sent again
            continue
        who = int(12 * draw.random() ** 1.5)
        kind = draw.choice(_TYPES)
        late_ms = 0
        if n % 30 == 29:
            late_ms = draw.choice((20 * 60_000, 3 * 3_600_000))  # within the grace, and beyond it
        event: dict[str, Any] = {
            "event_id": f"e{n}",
            "event_type": kind,
            "occurred_at": FIRST_MS + n * 120_000 - late_ms,
            "anonymous_id" if who % 5 == 4 else "user_id": f"u{who}",
        }
        if who % 4 == 3:
            event["tenant"] = "acme"
        if who % 3 == 0:
            event["session_id"] = SESSIONS[n // 10]
        if n == 301:
            event |= {"event_type": "user_erased"}
        elif kind == "purchase" and draw.random() < 0.5:
            event["items"] = [{"item_id": draw.choice(ITEMS), "quantity": draw.randrange(1, 4)} for _ in range(3)]
        elif kind != "session_start":
            event["item_id"] = draw.choice(ITEMS)
            if draw.random() < 0.5:
                event["category"] = CATEGORIES[int(event["item_id"][1:])]
            if kind == "rating":
                event["value"] = draw.randrange(1, 6)
            elif kind == "view" and draw.random() < 0.3:
                event["dwell_ms"] = draw.randrange(500, 90_000)
        lines.append(json.dumps(event, separators=(",", ":")))
    return lines


def golden_settings(folder: Path) -> Settings:
    """Settings, with a model made in `folder`."""
    path = folder / "model"
    if not path.exists():
        save_artifact(path, untrained_artifact(ITEMS, CATEGORIES, dim=8, hidden=8, seed=1, rules=4))
    return load_settings(
        overrides={
            "model.path": str(path),
            "worker.data_dir": str(folder / "data"),
            "topics.partitions": 3,
            "events.grace_s": 3600,
            "ranking.network_weight": 0.0,
            "ranking.exclude": "none",
            "ranking.list_size": len(ITEMS),
            "ranking.trend_refresh_events": 32,
            "state.max_counted_items": 8,
            "state.recent_items": 10,
        },
        environ={},
    )


def results(settings: Settings, folder: Path, chunk_records: int) -> dict[str, Any]:
    """What a replay of the golden log in chunks of so many records leaves: of each user state and list, and counts."""
    options = Options(work=str(folder / f"in-{chunk_records}"), chunk_records=chunk_records, processes=1)
    found = replay(settings, LogSpec(sources=(str(LOG),)), options)
    lists = last_lists(found)
    users = {user: {"state": told, "list": lists.pop(user, None)} for user, told in states(settings, found).items()}
    assert not lists, f"lists of users without a state: {sorted(lists)}"
    counts = {name: count for name, count in sorted(found.outcome.counts.items()) if name != "lists"}
    return {"counts": counts, "log": dict(sorted(found.log.items())), "users": users}


def states(settings: Settings, found: Replayed) -> dict[str, Any]:
    """By user what the state says, but for the vector."""
    told: dict[str, Any] = {}
    for number in range(found.partitions):
        store = RocksStore(store_path(found.work, number))
        for key, value in store.items():
            if not key.startswith(b"\0"):
                told[_name(*split_user_key(key))] = tell_state(decode_state(value), settings.state_settings())
        store.close()
    return dict(sorted(told.items()))


def tell_state(state: InterestState, settings: StateSettings) -> dict[str, Any]:
    """A state in names and numbers; amounts are f32 as they are kept, written exactly."""
    items = {key_of(name): name for name in ITEMS}
    counts = zip(state.counted_items(settings), np.frombuffer(state.count_values, COUNT_DTYPE)["amount"], strict=True)
    view = settings.windowing.view(state.windows, state.last_time_ms // 1000)
    return {
        "events_applied": state.events_applied,
        "ids": len(state.ids) // 8,
        "last_offset": state.last_offset,
        "last_time_ms": state.last_time_ms,
        "session": f"{_session(state.session)} of {state.session_length} since {state.session_start_ms}".strip(),
        "recent": [f"{items.get(one.key, 'mark')} {EVENT_TYPES[one.type]}" for one in state.recent_items()],
        "counted_since_s": state.count_ref_s,
        "counted": [
            f"{items[one.key]} {EVENT_TYPES[one.type]} at {one.time_s}: {float(amount)!r}" for one, amount in counts
        ],
        "interests": [
            f"{name}: {' '.join(map(repr, view[key]))}"
            for name in sorted({*CATEGORIES})
            if (key := interest_key(name)) in view
        ],
    }


def last_lists(found: Replayed) -> dict[str, list[str]]:
    """By user the places of the last list; items whose scores are as good as equal share one."""
    last: dict[str, list[str]] = {}
    assert found.out is not None
    for path in sorted((found.out / "lists").glob("*.jsonl")):
        for line in path.read_text().splitlines():
            made = json.loads(line)
            if "removed" in made:
                last.pop(_name(*split_user_key(made["removed"].encode())), None)
            else:
                last[_name(made["user_id"], made.get("tenant", ""))] = _places(made["items"])
    return last


def _places(items: list[dict[str, Any]]) -> list[str]:
    places: list[list[str]] = []
    before = 0.0
    for item in items:
        if not places or before - item["score"] > TIED:
            places.append([])
        places[-1].append(item["item_id"])
        before = item["score"]
    return [" ".join(sorted(place, key=ITEMS.index)) for place in places]


def _name(user: str, tenant: str) -> str:
    return f"{tenant}/{user}" if tenant else user


def _session(key: int) -> str:
    return next((name for name in SESSIONS if session_key(name) == key), "")


def _write() -> None:
    from tempfile import TemporaryDirectory

    FOLDER.mkdir(parents=True, exist_ok=True)
    if "log" in sys.argv[1:]:
        LOG.write_text("".join(f"{line}\n" for line in make_log()))
    with TemporaryDirectory() as folder:
        made = results(golden_settings(Path(folder)), Path(folder), 64)
    RESULTS.write_text(json.dumps(made, indent=1) + "\n")
    print(f"{RESULTS}: {len(made['users'])} users, {made['counts']}")


if __name__ == "__main__":
    _write()
