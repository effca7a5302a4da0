"""Writes a large log of made-up events as Parquet, to measure training from disk.

    python -m tests.bench.make_events build/events.parquet --events 20000000 --users 1000000 --items 50000

Users are drawn evenly, items by a power law around a place that each user has, times evenly over thirty days.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

_ROWS = 500_000
_FIRST_MS = 1_767_225_600_000
_SPAN_MS = 30 * 86_400_000
_TYPES = ("view", "click", "add_to_cart", "purchase")


def write_events(file: Path, events: int, users: int, items: int, seed: int = 0) -> None:
    """The log, in order of time, some hundred thousand rows in memory at once."""
    draw = np.random.default_rng(seed)
    schema = pa.schema(
        {
            "user_id": pa.string(),
            "item_id": pa.string(),
            "event_type": pa.dictionary(pa.int8(), pa.string()),
            "occurred_at": pa.timestamp("ms"),
        }
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(file, schema) as writer:
        for first in range(0, events, _ROWS):
            k = min(_ROWS, events - first)
            user = draw.integers(0, users, k)
            near = (user * 7919 + np.floor(draw.pareto(0.8, k)).astype(np.int64).clip(0, items)) % items
            popular = np.floor(items ** draw.random(k)).astype(np.int64) - 1
            item = np.where(draw.random(k) < 0.7, near, popular)
            time_ms = _FIRST_MS + np.sort(draw.integers(first, first + k, k)) * _SPAN_MS // events
            kind = draw.choice(len(_TYPES), k, p=(0.8, 0.1, 0.06, 0.04)).astype(np.int8)
            writer.write_table(
                pa.table(
                    {
                        "user_id": pa.array(np.char.add("u", user.astype(str))),
                        "item_id": pa.array(np.char.add("i", item.astype(str))),
                        "event_type": pa.DictionaryArray.from_arrays(pa.array(kind), pa.array(_TYPES)),
                        "occurred_at": pa.array(time_ms, pa.timestamp("ms")),
                    },
                    schema,
                )
            )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--events", type=int, default=20_000_000)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    write_events(chosen.file, chosen.events, chosen.users, chosen.items, chosen.seed)


if __name__ == "__main__":
    main()
