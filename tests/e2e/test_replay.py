"""A replay of a topic against live runs with faults on a real Kafka: the same states, the same last lists.

live 1   two workers, one killed with kill -9 under traffic     replay in chunks of 512, two processes
live 2   three workers, other chunks, the same log              replay in chunks of 77, one process
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from stream.replay.equal import Verified, verify
from stream.replay.log import LogSpec
from stream.replay.run import Options, replay
from tests.chaos.world import Traffic, Worker, World, wait_for

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

EVENTS = 20_000
PARTITIONS = 8


def verified(world: World, folder: Path, *, chunk_records: int, processes: int) -> tuple[Verified, int]:
    """A replay of the world's events beside what its workers made; and how many records it took."""
    spec = LogSpec(sources=(f"topic:{world.settings.topics.events}",))
    options = Options(work=str(folder), chunk_records=chunk_records, processes=processes)
    found = replay(world.settings, spec, options)
    assert found.out is not None
    kinds = ("applied", "duplicate", "late", "dead_letter", "erased", "rekeyed")
    assert sum(found.outcome.counts[kind] for kind in kinds) == found.outcome.records
    return verify(world.settings, found.work, found.out, found.partitions), found.outcome.records


def test_a_replay_gives_what_live_gave(kafka: str, tmp_path: Path) -> None:
    world = World(kafka, tmp_path, partitions=PARTITIONS)
    traffic = Traffic(world, events=EVENTS, users=2_000, rate=2_000, seed=5)
    other = world.elsewhere("three")
    first = [world.worker("a"), world.worker("b")]
    second = [other.worker(name) for name in ("c", "d", "e")]
    try:
        for worker in first:
            worker.start()
        wait_for("both have a share", lambda: all(0 < len(w.partitions()) < PARTITIONS for w in first), 120, first)
        traffic.start()
        time.sleep(4)
        first[0].kill()
        time.sleep(2)
        first[0].start()
        wait_for("it is back", lambda: len(first[0].partitions()) > 0, 120, first)
        traffic.join(120)
        assert traffic.undelivered == 0
        wait_for("all is committed", world.caught_up, 240, first)
        _stop(first)
        one, records = verified(world, tmp_path / "one", chunk_records=512, processes=2)
        for worker in second:
            worker.start("--set=worker.max_cycle_records=300")
        wait_for("the second run has read the log", other.caught_up, 300, second)
        _stop(second)
        two, _ = verified(other, tmp_path / "two", chunk_records=77, processes=1)
    finally:
        for worker in (*first, *second):
            worker.end()
    assert records >= EVENTS
    for found in (one, two):
        assert found.states.same, found.states
        assert found.lists.same, found.lists
        assert found.states.equal == found.lists.equal == len(traffic.per_user)


def _stop(workers: list[Worker]) -> None:
    for worker in workers:
        assert worker.stop() == 0
