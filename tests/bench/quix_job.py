"""The job of `job` on Quix Streams: python -m tests.bench.quix_job SERVERS IN OUT GROUP FOLDER EVENTS RESULT.json.

At-least-once, state in RocksDB with its changelog. As fast as it goes without giving that up: bytes in and out (no
JSON by the library), the state as one value of bytes, the commit interval left at 5 s (the longer, the more updates
of a user become one write), no log. Ends after EVENTS and writes the CPU time of all but the first tenth.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from tests.bench.job import apply, decode_event, decode_state, encode_state, list_of, new_state


def main() -> None:
    """See the module."""
    servers, source, out, group, folder, count, result = sys.argv[1:]
    events = int(count)
    # By name: the library is optional, and this file is checked without it too.
    quix: Any = importlib.import_module("quixstreams")
    context: Any = importlib.import_module("quixstreams.context").message_context
    app = quix.Application(
        broker_address=servers,
        consumer_group=group,
        auto_offset_reset="earliest",
        state_dir=folder,
        loglevel=None,
        processing_guarantee="at-least-once",
        commit_interval=5.0,
    )
    warm = events // 10
    seen = 0
    began = (0.0, 0.0)

    def job(value: bytes, key: bytes, timestamp: int, headers: Any, state: Any) -> bytes:
        nonlocal seen, began
        seen += 1
        if seen == warm:
            began = time.process_time(), time.monotonic()
        event = decode_event(value)
        packed = state.get_bytes("s")
        user = new_state() if packed is None else decode_state(packed)
        apply(user, event, context().offset)
        state.set_bytes("s", encode_state(user))
        return list_of(event.user_id, user)

    sdf = app.dataframe(app.topic(source, value_deserializer="bytes"))
    sdf = sdf.apply(job, stateful=True, metadata=True)
    sdf.to_topic(app.topic(out, value_serializer="bytes"))
    app.run(count=events, timeout=60, collect=False)  # leaving it commits what is left
    cpu_s, wall_s = time.process_time() - began[0], time.monotonic() - began[1]
    if seen != events:
        raise SystemExit(f"it saw {seen} of {events} events")
    Path(result).write_text(json.dumps({"cpu_s": cpu_s, "wall_s": wall_s, "records": events - warm}))


if __name__ == "__main__":
    main()
