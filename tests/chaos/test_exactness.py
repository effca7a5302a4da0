"""Workers killed and stopped at any moment, every event counted once: counted from the topics alone.

    0 s      ready     both       + ~6 s      back        + ~2 s        back       12 s      caught up
    A starts B joins   kill -9 A  A returns   kill -9 B   B returns     SIGTERM B, SIGSTOP A audit; a fresh run
                                              disk lost   (empty disk)  B returns  and CONT  over the same log
    traffic ─────────────────────────────────────────────────────────────────────────

The moments are drawn from the run's number. A worker that ends by itself is started again at once, as an orchestrator
would; it may do so at most twice (a zombie whose transaction timed out ends by itself).

How long and how often: DRIFTLINE_CHAOS_EVENTS (150,000), DRIFTLINE_CHAOS_RUNS (1); `make chaos` runs three and
writes build/chaos.json.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.world import Traffic, Worker, World, wait_for

pytestmark = [pytest.mark.chaos, pytest.mark.kafka]

EVENTS = int(os.environ.get("DRIFTLINE_CHAOS_EVENTS", "150000"))
RUNS = int(os.environ.get("DRIFTLINE_CHAOS_RUNS", "1"))
USERS = 20_000
PARTITIONS = 8
RATE = 3_000.0


def _keep_alive(workers: list[Worker], ended: list[int]) -> None:
    for worker in workers:
        if not worker.alive:
            ended.append(worker.exit_code or 0)
            worker.start()


def _hurt(a: Worker, b: Worker, ended: list[int], draw: random.Random) -> None:
    """The faults, in order; returns when the last was done."""
    wait_for("A has all partitions", lambda: len(a.partitions()) == PARTITIONS, 90, [a])
    time.sleep(draw.uniform(2, 5))
    b.start()
    wait_for("B has its share", lambda: 0 < len(b.partitions()) < PARTITIONS, 90, [a, b])
    time.sleep(draw.uniform(2, 5))
    a.kill()
    time.sleep(draw.uniform(1, 8))
    a.start()
    wait_for("A is back", lambda: len(a.partitions()) > 0, 90, [a, b])
    time.sleep(draw.uniform(0, 4))
    b.kill()
    b.lose_disk()
    time.sleep(draw.uniform(0, 3))
    b.start()
    wait_for("B is back", lambda: len(b.partitions()) > 0, 90, [a, b])
    time.sleep(draw.uniform(0, 3))
    assert b.stop() == 0  # SIGTERM under traffic
    b.start()
    wait_for("B is back again", lambda: len(b.partitions()) > 0, 90, [a, b])
    a.signal(signal.SIGSTOP)  # past its session (6 s) and its transaction (10 s): a zombie
    time.sleep(12)
    a.signal(signal.SIGCONT)
    time.sleep(5)
    _keep_alive([a, b], ended)


@pytest.mark.parametrize("run", range(RUNS))
def test_every_event_counts_once_through_kills_and_zombies(kafka: str, tmp_path: Path, run: int) -> None:
    world = World(kafka, tmp_path, partitions=PARTITIONS)
    traffic = Traffic(world, events=EVENTS, users=USERS, rate=RATE, seed=run)
    other = world.elsewhere("fresh")
    a, b, fresh = world.worker("a"), world.worker("b"), other.worker("fresh")
    ended: list[int] = []
    try:
        a.start()
        traffic.start()
        _hurt(a, b, ended, random.Random(run))
        traffic.join(EVENTS / RATE + 120)
        assert not traffic.is_alive()
        assert traffic.undelivered == 0

        def done() -> bool:
            _keep_alive([a, b], ended)
            return world.caught_up()

        wait_for("all is committed", done, 240, [a, b])
        report = world.audit()
        assert a.stop() == 0
        assert b.stop() == 0

        fresh.start()
        wait_for("the fresh run has read the log", other.caught_up, 300, [fresh])
        engine_duplicates = fresh.metric("driftline_duplicates_total")
        assert fresh.stop() == 0
        lists, fresh_lists = world.last_lists(), other.last_lists()
        differ = [key for key in lists if lists[key] != fresh_lists.get(key)]
        _write(run, report, traffic, len(lists), len(differ), a, b, ended)

        sent = sum(traffic.per_user.values())
        assert report.events == sent
        assert report.users == len(traffic.per_user)
        assert report.duplicates == traffic.duplicates
        # Event ids would hide a log that an engine wrote or read twice: a run that nothing disturbed meets exactly
        # the duplicates that were sent.
        assert engine_duplicates == traffic.duplicates
        assert len(ended) <= 2
        assert 0 not in ended
        assert sum(report.dead_letters.values()) == traffic.broken
        assert report.rekeyed == traffic.rekeyed
        assert (report.lost_events, report.doubled_events, report.doubled_lists) == (0, 0, 0)
        assert report.exact, report
        assert {key.decode(): made.events_applied for key, made in lists.items()} == traffic.per_user
        assert lists.keys() == fresh_lists.keys()
        assert not differ, [(lists[key], fresh_lists.get(key)) for key in differ[:2]]
    finally:
        for worker in (a, b, fresh):
            worker.end()


def _write(
    run: int, report: Any, traffic: Traffic, lists: int, differ: int, a: Worker, b: Worker, ended: list[int]
) -> None:
    """Add the run to build/chaos.json."""
    path = Path("build/chaos.json")
    path.parent.mkdir(exist_ok=True)
    runs = [] if run == 0 or not path.exists() else json.loads(path.read_text())["runs"]
    runs.append(
        {
            "records": report.records,
            "events": report.events,
            "users": report.users,
            "lists": report.lists,
            "lost": report.lost_events,
            "doubled_events": report.doubled_events,
            "doubled_lists": report.doubled_lists,
            "missing_users": report.missing_users,
            "stale_users": report.stale_users,
            "duplicates_sent": traffic.duplicates,
            "dead_letters": sum(report.dead_letters.values()),
            "rekeyed": report.rekeyed,
            "last_lists": lists,
            "last_lists_unlike_a_fresh_run": differ,
            "worker_starts": a.starts + b.starts,
            "ended_by_themselves": ended,
        }
    )
    path.write_text(json.dumps({"partitions": PARTITIONS, "users": USERS, "runs": runs}, indent=1))
