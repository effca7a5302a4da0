"""What a catalogue of a million items takes: memory, time to fill, to change and to look up.

    python -m tests.bench.catalog_memory [--items 1000000] [--out build/catalog.json]

Items are made as a shop's are: ids of 12 to 20 characters, three-level category paths out of 2,000, 20,000 brands,
names of some 40 characters, a text as long as is kept of one (128 bytes). Memory is the growth of the process's
resident set, read from the kernel, from before the first item to the end; the catalogue is filled, and then one item
in five is replaced by one of other texts, so that what changing costs is in it too.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from state.catalog import Catalog, CatalogItem
from state.keys import key_of

LIMIT_MB = 400
_WORDS = [f"{a}{b}" for a in ("blue", "soft", "old", "steel", "wool", "mini") for b in ("lamp", "coat", "jar", "tent")]

_DOMAINS = ("books", "films", "music", "")


def items(count: int, seed: int) -> Iterator[CatalogItem]:
    """The same ids for every seed, everything else by it."""
    draw, named = random.Random(seed), random.Random(0)
    paths = [(f"department {n // 100}", f"group {n // 10}", f"shelf {n}") for n in range(2_000)]
    brands = [f"brand number {n}" for n in range(20_000)]
    for number in range(count):
        digits = named.randrange(6, 14)
        yield CatalogItem(
            item_id=f"{number:06d}{named.randrange(10**digits):0{digits}d}",
            name=" ".join(draw.choices(_WORDS, k=5))[: draw.randrange(30, 51)],
            category=paths[draw.randrange(len(paths))],
            brand=brands[draw.randrange(len(brands))],
            price=round(draw.uniform(1, 500), 2),
            currency="EUR",
            domain=draw.choice(_DOMAINS),
            text=" ".join(draw.choices(_WORDS, k=20)),
            available=draw.random() < 0.95,
            expires_at_ms=1_800_000_000_000 + number if draw.random() < 0.1 else None,
        )


def resident_bytes() -> int:
    """Of this process, from the kernel."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) * 1024


def measure(count: int) -> dict[str, float]:
    """Figures of one catalogue."""
    gc.collect()
    before = resident_bytes()
    catalog = Catalog()
    spent_s, slowest_s = 0.0, 0.0
    for item in items(count, 1):
        started_s = time.perf_counter()
        catalog.upsert(item)
        took_s = time.perf_counter() - started_s
        spent_s += took_s
        slowest_s = max(slowest_s, took_s)
    filled = resident_bytes()
    changed_s, changed = 0.0, 0
    for number, item in enumerate(items(count, 2)):
        if number % 5 == 0:
            started_s = time.perf_counter()
            catalog.upsert(item)
            changed_s += time.perf_counter() - started_s
            changed += 1
    after = resident_bytes()
    assert len(catalog) == count
    assert key_of(next(items(1, 1)).item_id) in catalog

    some = np.array([key_of.__wrapped__(item.item_id) for item in items(min(count, 100_000), 1)], np.uint64)
    np.random.default_rng(0).shuffle(some)
    started_s = time.perf_counter()
    for _ in range(10):
        rows = catalog.rows(some)
        catalog.available(rows)
        catalog.expires_at_ms(rows)
    many_s = (time.perf_counter() - started_s) / 10 / len(some)
    one = some[:20_000].tolist()
    started_s = time.perf_counter()
    for key in one:
        catalog.category(key)
    one_s = (time.perf_counter() - started_s) / len(one)
    return {
        "items": count,
        "memory_mb": round((filled - before) / 1e6, 1),
        "memory_after_changes_mb": round((after - before) / 1e6, 1),
        "own_arrays_mb": round(catalog.size_bytes / 1e6, 1),
        "limit_mb": LIMIT_MB,
        "upsert_us": round(spent_s / count * 1e6, 2),
        "upsert_slowest_ms": round(slowest_s * 1e3, 1),
        "change_us": round(changed_s / changed * 1e6, 2),
        "look_up_us": round(one_s * 1e6, 2),
        "look_up_in_arrays_us": round(many_s * 1e6, 3),
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, default=Path("build/catalog.json"))
    given = parser.parse_args()
    figures = measure(given.items)
    for name, value in figures.items():
        print(f"{name:26} {value:>12,}")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(figures, indent=2) + "\n")
    if given.items <= 1_000_000 and max(figures["memory_mb"], figures["memory_after_changes_mb"]) > LIMIT_MB:
        raise SystemExit(f"more than {LIMIT_MB} MB")


if __name__ == "__main__":
    main()
