"""Trains from disk on a log that is larger than it should take of memory, and tells time and peak memory.

    python -m tests.bench.make_events build/events.parquet
    python -m tests.bench.bench_training build/events.parquet --max-steps 200

Writes build/bench_training.json. The training runs in a process of its own, so that its peak is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    """See the module; all that is not known here is handed to `driftline train`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--figures", type=Path, default=Path("build/bench_training.json"))
    chosen, flags = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="driftline-bench-", dir=chosen.file.parent) as folder:
        command = [sys.executable, "-m", "stream.cli", "train", str(chosen.file), "--out", f"{folder}/model"]
        began_s = time.monotonic()
        done = subprocess.run([*command, "-o", "json", *flags], check=True, stdout=subprocess.PIPE)
        spent_s = time.monotonic() - began_s
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    figures = {
        "file_mb": chosen.file.stat().st_size / 1e6,
        "seconds": spent_s,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_mb": used.ru_maxrss / 1024,  # kB on Linux
        "training": json.loads(done.stdout),
    }
    chosen.figures.parent.mkdir(parents=True, exist_ok=True)
    chosen.figures.write_text(json.dumps(figures, indent=1))
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
