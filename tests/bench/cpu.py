"""CPU microseconds an event of a worker that reads a log made before, from two looks at its own metrics.

The first look is when a tenth of the log is done (start-up, recovery, cold caches), the last while there is still
work, so that no waiting is measured.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from tests.bench.place import Program

ENGINE_PARTS = ("consume", "produce", "commit", "store")
AGENT_PARTS = ("decode", "state", "model", "rank", "encode")
_WARM_UP = 0.1


@dataclass
class CpuFigures:
    """total_us: the whole process, all threads; parts_us: of it, what is known of; other_us: the rest (threads of
    Kafka's client and of RocksDB, event loop, Faust)."""

    total_us: float
    parts_us: dict[str, float]
    records: int
    wall_s: float
    chunks: float
    cycles: float
    lists: float
    more: dict[str, float] = field(default_factory=dict)

    @property
    def other_us(self) -> float:
        return self.total_us - sum(self.parts_us.values())


def measure(program: Program, topic: str, events: int, seconds: float) -> CpuFigures:
    """Watch `program` until it has committed `events` records of `topic`; it is then idle, and still running.

    Raises RuntimeError when it ends before, TimeoutError when it takes longer than `seconds`.
    """
    end_s = time.monotonic() + seconds
    pause_s = min(1.0, max(0.05, events / 400_000))  # a look costs the worker some ms
    looks: list[tuple[float, dict[str, float]]] = []
    done = _engine(topic, "records")
    while True:
        figures = program.figures()
        records = figures.get(done, 0.0)
        if records >= _WARM_UP * events:
            looks.append((time.monotonic(), figures))
        if records >= events:
            break
        program.check()
        if time.monotonic() > end_s:
            raise TimeoutError(f"{records:.0f} of {events} records after {seconds:.0f} s:\n{program.tail()}")
        time.sleep(pause_s)
    if len(looks) > 2:
        looks.pop()  # it may have been idle for a while by then
    if len(looks) < 2:
        raise RuntimeError(f"{events} events are too few: they were done between two looks")
    (began_s, first), (ended_s, last) = looks[0], looks[-1]
    grown = {name: value - first.get(name, 0.0) for name, value in last.items()}
    records = grown[done]
    us = 1e6 / records
    parts = {part: grown[f"driftline_engine_cpu_seconds_total{{part={part},topic={topic}}}"] for part in ENGINE_PARTS}
    parts |= {part: grown.get(f"driftline_cpu_seconds_total{{part={part}}}", 0.0) for part in AGENT_PARTS}
    return CpuFigures(
        total_us=grown["process_cpu_seconds_total{}"] * us,
        parts_us={part: seconds * us for part, seconds in parts.items() if seconds},
        records=int(records),
        wall_s=ended_s - began_s,
        chunks=grown[_engine(topic, "chunks")],
        cycles=grown[_engine(topic, "cycles")],
        lists=sum(value for name, value in grown.items() if name.startswith("driftline_lists_total")),
    )


def _engine(topic: str, what: str) -> str:
    return f"driftline_engine_total{{topic={topic},what={what}}}"
