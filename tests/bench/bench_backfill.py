"""Backfill: years of history into the state of workers, and live behind it; how fast, in how much memory, and exact.

    python -m tests.bench.bench_backfill --out build/backfill.json          (20,000,000 events of 1,000,000 users)
    python -m tests.bench.bench_backfill --events 200000 --users 10000      smaller
    python -m tests.bench.bench_backfill ... --sst                          and the stores written anew, two ways

    write      the history as a Parquet file of made-up events
    replay     in process, states only, `--processes` at a time
    install    the changelog of a real Kafka, and the group's offsets
    recover    a worker with an empty disk starts, up to its first committed live event (with --local: on the stores
               of the replay)
    count      `--live` more events: how many events every user's state has, against the file and what was sent

Exact means: each user's state in the changelog holds as many events as the user has in both. Memory is that of all
processes of the replay and its install, read from the system's account of each every fifth of a second.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import rocksdict
from confluent_kafka import Producer

from model.artifact import save_artifact, untrained_artifact
from state.codec import decode_state
from state.store import RocksStore
from stream.brokers import find_broker
from stream.engine.cycle import Partition
from stream.engine.recovery import recover
from stream.replay.backfill import install
from stream.replay.log import LogSpec
from stream.replay.process import PROGRESS_KEY, store_path
from stream.replay.run import Options, replay
from stream.settings import Settings
from tests.bench.make_events import write_events
from tests.bench.place import said
from tests.chaos.world import Worker, World, wait_for

_FILE_ITEMS = 50_000
_LOOK_EVERY_S = 0.2
_SST_BATCH = 4_096
_WAIT_S = 1_800


class Memory(threading.Thread):
    """The most memory that this process and its children had at a time, and the most that one of them had."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.sum_bytes = self.one_bytes = 0
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")
        self._stopping = threading.Event()

    def run(self) -> None:
        """Look again and again."""
        while not self._stopping.wait(_LOOK_EVERY_S):
            each = [self._resident(pid) for pid in self._family()]
            self.sum_bytes = max(self.sum_bytes, sum(each))
            self.one_bytes = max(self.one_bytes, *each)

    def _family(self) -> list[int]:
        found = [os.getpid()]
        for task in Path("/proc/self/task").iterdir():
            with contextlib.suppress(FileNotFoundError):  # a thread that has just ended
                found += map(int, (task / "children").read_text().split())
        return found

    def _resident(self, pid: int) -> int:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a process that has just ended
            return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * self._page_bytes
        return 0

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()
        self.join()


def send_live(settings: Settings, count: int, users: int, after_ms: int) -> Counter[str]:
    """`count` events of users old and new; returns how many of each."""
    draw = np.random.default_rng(1)
    producer = Producer(settings.client_properties({"partitioner": "murmur2_random", "linger.ms": 5}))
    sent: Counter[str] = Counter()
    for n in range(count):
        user = f"u{draw.integers(0, users + users // 10)}"
        event = {
            "event_id": f"live-{n}",
            "event_type": "view",
            "user_id": user,
            "item_id": f"i{draw.integers(0, _FILE_ITEMS)}",
            "occurred_at": after_ms + n,
        }
        producer.produce(settings.topics.events, msgspec.json.encode(event), user.encode())
        sent[user] += 1
        if n % 1000 == 0:
            producer.poll(0)
    if producer.flush(60):
        raise RuntimeError("the broker did not take the live events")
    return sent


def in_file(file: Path) -> tuple[Counter[str], int]:
    """Events of each user in the history, and the newest time in it, ms since 1970."""
    counts: Counter[str] = Counter()
    newest_ms = 0
    source = pq.ParquetFile(file)
    for batch in source.iter_batches(500_000, columns=["user_id", "occurred_at"]):
        values, numbers = np.unique(batch.column(0).to_numpy(zero_copy_only=False), return_counts=True)
        counts.update(dict(zip(values.tolist(), numbers.tolist(), strict=True)))
        newest_ms = max(newest_ms, int(batch.column(1).to_numpy().astype(np.int64).max()))
    return counts, newest_ms


class _Counts:
    """A store that only counts events of each user, for `recover`."""

    def __init__(self) -> None:
        self.events: dict[bytes, int] = {}
        self.position = 0

    def write(self, puts: Any, position: int | None) -> None:
        for key, value in puts:
            if value is None:
                self.events.pop(key, None)
            elif key[:1] != b"\0":
                self.events[key] = decode_state(value).events_applied
        self.position = position or self.position


def in_changelog(settings: Settings, partitions: int) -> dict[str, int]:
    """Events in the state of each user, as a worker with an empty disk would read it."""
    found: dict[str, int] = {}
    for number in range(partitions):
        store = _Counts()
        topics = settings.topics
        at = Partition(topics.events, number, topics.changelog, store, 0)  # type: ignore[arg-type]
        recover([at], settings.client_properties())
        found |= {key.decode(): count for key, count in store.events.items()}
    return found


def two_ways(work: Path, folder: Path, partitions: int) -> dict[str, Any]:
    """The stores of the replay written anew: by RocksStore, and as sorted files that RocksDB takes in."""
    seconds = {"read": 0.0, "write": 0.0, "sst_write": 0.0, "sst_ingest": 0.0}
    keys = 0
    for number in range(partitions):
        began_s = time.monotonic()
        source = RocksStore(store_path(work, number))
        items = [item for item in source.items() if item[0] != PROGRESS_KEY]
        source.close()
        keys += len(items)
        seconds["read"] += time.monotonic() - began_s

        began_s = time.monotonic()
        store = RocksStore(folder / "written" / f"{number}.db")
        for at in range(0, len(items), _SST_BATCH):
            store.write(items[at : at + _SST_BATCH], at)
        store.close()
        seconds["write"] += time.monotonic() - began_s

        if items:
            began_s = time.monotonic()
            file = folder / f"{number}.sst"
            writer = rocksdict.SstFileWriter(options=rocksdict.Options(raw_mode=True))
            writer.open(str(file))
            for key, value in items:
                writer[key] = value
            writer.finish()
            seconds["sst_write"] += time.monotonic() - began_s
            began_s = time.monotonic()
            other = rocksdict.Rdict(str(folder / f"{number}-ingested.db"), rocksdict.Options(raw_mode=True))
            other.ingest_external_file([str(file)])
            other.close()
            seconds["sst_ingest"] += time.monotonic() - began_s
    return {"keys": keys, **{f"{name}_s": round(value, 2) for name, value in seconds.items()}}


def tree_bytes(folder: Path) -> int:
    """Size of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measure(servers: str, folder: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """All stages; returns the figures."""
    world = World(servers, folder, partitions=chosen.partitions)
    if chosen.model_items != world.items:  # more of the log's items known to the model
        save_artifact(
            folder / "larger",
            untrained_artifact(
                [f"i{n}" for n in range(chosen.model_items)],
                [f"c{n % 100}" for n in range(chosen.model_items)],
                dim=32,
                hidden=32,
                seed=7,
            ),
        )
        world.values["model.path"] = str(folder / "larger")
    data_dir = folder / "worker"
    settings = world.settings.model_copy(
        update={
            "worker": world.settings.worker.model_copy(update={"data_dir": data_dir}),
            "model": world.settings.model.model_copy(update={"path": world.values["model.path"]}),
        }
    )
    seconds: dict[str, float] = {}
    file = folder / "events.parquet"
    clock_s = time.monotonic()

    def stage(name: str) -> None:
        nonlocal clock_s
        now_s = time.monotonic()
        seconds[name], clock_s = round(now_s - clock_s, 2), now_s

    with said("write the history"):
        write_events(file, chosen.events, chosen.users, _FILE_ITEMS)
    stage("write")
    memory = Memory()
    memory.start()
    with said("replay it"):
        options = Options(into="state", work=str(folder / "work"), processes=chosen.processes)
        found = replay(settings, LogSpec(sources=(str(file),)), options)
    stage("replay")
    store_bytes = tree_bytes(folder / "work")
    sst: dict[str, Any] = {}
    if chosen.sst:
        with said("write its stores anew"):
            sst = two_ways(folder / "work", folder / "anew", chosen.partitions)
        clock_s = time.monotonic()
    with said("install it"):
        done = install(settings, folder / "work", chosen.partitions, found.replay_id, local=chosen.local)
    stage("install")
    memory.stop()

    expected, newest_ms = in_file(file)
    clock_s = time.monotonic()
    worker = Worker(world, "worker")

    def caught_up() -> bool:
        if not worker.alive:
            raise RuntimeError(f"the worker ended:\n{worker.log.read_text()[-3_000:]}")
        return world.caught_up()

    try:
        with said("start a worker"):
            worker.start("--set=worker.max_cycle_records=2048")
            sent = send_live(settings, 1, chosen.users, newest_ms + 1)
            wait_for("the first live event", caught_up, _WAIT_S, [worker])
        stage("recover")
        with said("live"):
            more = send_live(settings, chosen.live, chosen.users, newest_ms + 1)
            wait_for("all is committed", caught_up, _WAIT_S, [worker])
        stage("live")
        if worker.stop() != 0:
            raise RuntimeError("the worker did not end well")
    finally:
        worker.end()
    with said("count"):
        expected.update(more)  # the one event before is the first of these, with the same id
        held = in_changelog(settings, chosen.partitions)
        wrong = sum(held.get(user, 0) != count for user, count in expected.items()) + len(held.keys() - expected.keys())
    stage("count")
    return {
        "events": chosen.events,
        "users": len(expected),
        "live_events": chosen.live,
        "partitions": chosen.partitions,
        "processes": chosen.processes,
        "seconds": seconds,
        "events_per_s": round(found.outcome.records / seconds["replay"]),
        "keys": done.keys,
        "keys_per_s": round(done.keys / done.seconds),
        "state_bytes": done.value_bytes,
        "store_bytes": store_bytes,
        "peak_memory_bytes": memory.sum_bytes,
        "peak_memory_one_process_bytes": memory.one_bytes,
        "counts": dict(found.outcome.counts),
        **({"sst": sst} if sst else {}),
        "users_with_wrong_counts": wrong,
        "ok": wrong == 0 and found.outcome.counts["applied"] == chosen.events and len(sent) == 1,
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=20_000_000)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--live", type=int, default=5_000)
    parser.add_argument("--partitions", type=int, default=32)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--model-items", type=int, default=500, help="of 50,000 in the log, that the model knows")
    parser.add_argument("--local", action="store_true", help="the worker gets the stores of the replay")
    parser.add_argument("--sst", action="store_true", help="measure sorted files against plain writes")
    parser.add_argument("--folder", type=Path, help="for all files; a temporary one otherwise")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    broker = find_broker()
    if broker.broker is None:
        raise SystemExit("no Kafka: " + "; ".join(broker.reasons))
    with broker.broker as kafka, tempfile.TemporaryDirectory(prefix="driftline-bench-", dir=chosen.folder) as folder:
        figures = measure(kafka.bootstrap_servers, Path(folder), chosen)
    text = json.dumps(figures, indent=2)
    if chosen.out is not None:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text(text + "\n")
    print(text)
    raise SystemExit(0 if figures["ok"] else 1)


if __name__ == "__main__":
    main()
