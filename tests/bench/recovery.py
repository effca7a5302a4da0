"""How fast an empty disk is filled from the changelog: `stream.engine.recovery.recover` in a fresh process.

    python -m tests.bench.recovery SERVERS CHANGELOG PARTITIONS FOLDER RESULT.json

Afterwards every key and value is compared (by a sum of hashes) with what was written to the changelog.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import time
import uuid
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from state.store import RocksStore
from stream.engine.cycle import Partition
from stream.engine.recovery import recover
from tests.bench.place import Place, module
from tests.bench.shop import Record

_CHUNK_RECORDS = 2_048  # states in one transaction, as a worker writes them
_ASK_S = 30.0


def measure(place: Place, changelog: str, states: Iterable[Record], repeats: int) -> dict[str, Any]:
    """Write `states` to `changelog` as a worker would, then recover them `repeats` times."""
    count, total, size = _fill(place.servers, changelog, states)
    runs = []
    for repeat in range(repeats):
        folder, result = place.folder / f"recovery-{repeat}", place.folder / f"recovery-{repeat}.json"
        with module(
            place.folder, "recovery", place.servers, changelog, str(place.partitions), str(folder), str(result)
        ) as program:
            program.wait(300)
        run = json.loads(result.read_text())
        shutil.rmtree(folder)
        if (run["records"], run["keys"], run["hash"]) != (count, count, total):
            raise RuntimeError(f"the stores do not hold what the changelog does: {run}, {count} records, hash {total}")
        runs.append(run)
    rates = [run["records"] / run["wall_s"] for run in runs]
    return {
        "records": count,
        "mean_value_bytes": round(size / count),
        "records_per_s": round(statistics.median(rates)),
        "records_per_s_best": round(max(rates)),
        "cpu_us_per_record": round(statistics.median(run["cpu_s"] for run in runs) * 1e6 / count, 2),
        "close_s": round(statistics.median(run["close_s"] for run in runs), 2),
        "runs": [round(rate) for rate in rates],
    }


def _fill(servers: str, changelog: str, states: Iterable[Record]) -> tuple[int, int, int]:
    """Number of states written, sum of their hashes, bytes of their values."""
    producer = Producer(
        {
            "bootstrap.servers": servers,
            "transactional.id": f"{changelog}-{uuid.uuid4()}",
            "partitioner": "murmur2_random",
            "linger.ms": 2,
            "retry.backoff.ms": 5,
            "queue.buffering.max.messages": 500_000,
        }
    )
    producer.init_transactions(_ASK_S)
    count = total = size = 0
    for key, value in states:
        if count % _CHUNK_RECORDS == 0:
            if count:
                producer.commit_transaction(_ASK_S)
            producer.begin_transaction()
        producer.produce(changelog, value, key)
        count += 1
        total += _hash(key, value)
        size += len(value)
    if count:
        producer.commit_transaction(_ASK_S)
    return count, total, size


def _hash(key: bytes, value: bytes) -> int:
    return int.from_bytes(blake2b(key + b"\0" + value, digest_size=8).digest(), "little")


def main() -> None:
    """See the module."""
    servers, changelog, partitions, folder, result = sys.argv[1:]
    numbers = range(int(partitions))
    wall_s, cpu_s = time.monotonic(), time.process_time()
    assigned = [Partition("events", n, changelog, RocksStore(Path(folder) / f"{n}.db"), 0) for n in numbers]
    records = recover(assigned, {"bootstrap.servers": servers})
    wall_s, cpu_s = time.monotonic() - wall_s, time.process_time() - cpu_s
    keys = total = 0
    for partition in assigned:
        for key, value in partition.store.items():
            keys += 1
            total += _hash(key, value)
    close_s = time.monotonic()
    for partition in assigned:
        partition.store.close()
    close_s = time.monotonic() - close_s
    told = {"records": records, "keys": keys, "hash": total, "wall_s": wall_s, "cpu_s": cpu_s, "close_s": close_s}
    Path(result).write_text(json.dumps(told))


if __name__ == "__main__":
    main()
