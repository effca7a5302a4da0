"""Replay: how fast, and whether it gives what live gives.

    python -m tests.bench.bench_replay            (make bench-replay; writes build/replay.json)

    1  The demo's log (Complete Journey, every household) in process, with the demo's model and lists, on all cores.
    2  The same log into a real Kafka (`--into live`), two workers on it, one killed with kill -9 half way; then a
       replay of the topic: states and last lists of all users against the workers'. Again with three workers and
       other chunks.

Seconds differ from machine to machine; what counts is `state_equal` and `lists_equal`, with the numbers of users.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model.artifact import MANIFEST
from model.training.journey import Journey, load_journey
from stream.brokers import find_broker
from stream.demo import prepare_model
from stream.replay.equal import verify
from stream.replay.live import replay_live
from stream.replay.log import LogSpec, open_log
from stream.replay.run import Options, replay
from stream.settings import Settings, load_settings
from stream.topics import create_topics
from tests.chaos.world import Worker, World, wait_for

_PARTITIONS = 32


def write_journey(journey: Journey, file: Path) -> int:
    """The demo's events of all households in order of time, as Parquet; returns how many."""
    data = journey.data
    order = np.lexsort((np.arange(len(data)), data.time_ms))
    item = data.item[order]
    names = ("event_id", "event_type", "occurred_at", "user_id", "item_id", "category")
    columns = (
        pa.array([f"journey-{row}" for row in order.tolist()]),
        pa.array(np.where(item == data.items, "session_start", "purchase")),
        pa.array(data.time_ms[order], pa.timestamp("ms")),
        pa.array(np.array(data.user_ids, np.object_)[data.user[order]]),
        pa.array(np.array([*data.item_ids, None], np.object_)[item]),
        pa.array(np.array([*data.item_categories, None], np.object_)[item]),
    )
    pq.write_table(pa.table(dict(zip(names, columns, strict=True))), file)
    return len(order)


class JourneyWorld(World):
    """Topics of its own on a given Kafka, and the demo's model."""

    def __init__(self, servers: str, folder: Path, model: Path, name: str) -> None:
        self.folder, self.items, self.name = folder, 0, name
        self.values = {
            "kafka.bootstrap_servers": servers,
            "worker.group": name,
            "model.path": str(model),
            "topics.partitions": _PARTITIONS,
            **{f"topics.{role}": f"{name}.{role}" for role in Settings().topics.names()},
        }
        self.settings = load_settings(overrides=self.values, environ={})
        create_topics(self.settings)


def in_process(log: Path, model: Path, folder: Path) -> dict[str, Any]:
    """Part 1."""
    values = {"model.path": str(model), "topics.partitions": _PARTITIONS, "worker.data_dir": str(folder)}
    settings = load_settings(overrides=values, environ={})
    began_s, cpu = time.monotonic(), os.times()
    found = replay(settings, LogSpec(sources=(str(log),)), Options(work=str(folder / "in-process")))
    spent = os.times()
    cpu_s = sum(spent[:4]) - sum(cpu[:4])
    events, seconds = found.outcome.replayed, found.outcome.seconds
    return {
        "events": events,
        "lists": found.outcome.counts["lists"],
        "events_per_s": round(events / seconds),
        "seconds": round(seconds, 1),
        "seconds_with_start": round(time.monotonic() - began_s, 1),
        "cpu_us_per_event": round(1e6 * cpu_s / events, 1),
    }


def into_kafka(world: World, log: Path) -> dict[str, Any]:
    """The log onto the events topic."""
    rows = open_log(LogSpec(sources=(str(log),)), world.settings)
    done = replay_live(world.settings, rows.blocks(), rows.files, replay_id=world.name)
    return {"events": done.sent, "events_per_s": round(done.sent / done.seconds), "exactly_once": done.exactly_once}


def against_live(
    world: World, workers: list[Worker], folder: Path, *, events: int, kill: bool, chunk_records: int, more: str
) -> dict[str, Any]:
    """A live run of the log that is on the topic, and a replay of that topic beside it."""
    began_s = time.monotonic()
    for worker in workers:
        worker.start(more)
    killed = 0
    try:
        wait_for("each has a share", lambda: all(w.partitions() for w in workers), 120, workers)
        if kill:
            wait_for("half of it is done", lambda: _done(workers) > events / 2, 600, workers)
            workers[0].kill()
            killed = 1
            workers[0].start(more)
            wait_for("it is back", lambda: len(workers[0].partitions()) > 0, 120, workers)
        wait_for("all is committed", world.caught_up, 900, workers)
        for worker in workers:
            assert worker.stop() == 0
    finally:
        for worker in workers:
            worker.end()
    live_s = time.monotonic() - began_s
    spec = LogSpec(sources=(f"topic:{world.settings.topics.events}",))
    found = replay(world.settings, spec, Options(work=str(folder), chunk_records=chunk_records))
    assert found.out is not None
    same = verify(world.settings, found.work, found.out, found.partitions)
    return {
        "workers": len(workers),
        "killed": killed,
        "live_seconds": round(live_s, 1),
        "replayed": found.outcome.replayed,
        "events_per_s": round(found.outcome.events_per_s),
        "chunk_records": chunk_records,
        "users_with_equal_states": same.states.equal,
        "users_with_equal_lists": same.lists.equal,
        "state_equal": same.states.same,
        "lists_equal": same.lists.same,
    }


def _done(workers: list[Worker]) -> float:
    return sum(worker.metric("driftline_events_total") for worker in workers)


def main(arguments: list[str] | None = None) -> int:
    """See the module; 1 when a replay and a live run differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("build/journey"), help="kept there; trained if it is not")
    parser.add_argument("--steps", type=int, default=2400, help="of the training")
    parser.add_argument("--out", type=Path, default=Path("build/replay.json"))
    options = parser.parse_args(arguments)
    journey = load_journey()
    if not (options.model / "model" / MANIFEST).exists():
        prepare_model(journey, options.model, options.steps, None, lambda _: None)
    model = options.model / "model"
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as temporary:
        folder = Path(temporary)
        log = folder / "journey.parquet"
        events = write_journey(journey, log)
        found: dict[str, Any] = {"in_process": in_process(log, model, folder)}
        broker = find_broker().broker
        if broker is None:
            raise SystemExit("bench-replay needs a real Kafka: see the README's section on brokers.")
        with broker:
            servers = broker.bootstrap_servers
            name = f"bench-replay-{int(time.time())}"
            two = JourneyWorld(servers, folder, model, name)
            found["into_kafka"] = into_kafka(two, log)
            workers = [two.worker("a"), two.worker("b")]
            found["two_workers"] = against_live(
                two, workers, folder / "two", events=events, kill=True, chunk_records=8192, more="-q"
            )
            three = two.elsewhere("three")
            found["three_workers"] = against_live(
                three,
                [three.worker(each) for each in "cde"],
                folder / "three",
                events=events,
                kill=False,
                chunk_records=333,
                more="--set=worker.max_cycle_records=700",
            )
    runs = (found["two_workers"], found["three_workers"])
    found = {
        "state_equal": all(run["state_equal"] for run in runs),
        "lists_equal": all(run["lists_equal"] for run in runs),
        "events_per_s": found["in_process"]["events_per_s"],
        **found,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1))
    print(json.dumps(found, indent=1))
    return 0 if found["state_equal"] and found["lists_equal"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
