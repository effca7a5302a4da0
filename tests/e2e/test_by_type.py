"""Brands as interests, half-lives and windows by type: exact through a kill -9 and a lost disk, on a real Kafka."""

import json
from pathlib import Path

import pytest
from confluent_kafka import Producer

from tests.chaos.world import World, wait_for

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

USERS = [f"user-{n}" for n in range(15)]
TYPES = ("impression", "view", "view", "click", "add_to_cart", "purchase", "hide")
START_MS = 1_780_000_000_000
HOUR_MS = 3_600_000
SETTINGS = ("--profile=shop", "--set=state.interests=category,brand", "--set=ranking.exclude=none")


def _send(world: World, numbers: range) -> None:
    """Events of forty days, so that half-lives of days differ; one in twenty is sent twice."""
    producer = Producer(world.settings.client_properties({"partitioner": "murmur2_random"}))
    for n in numbers:
        user = USERS[n * 7 % len(USERS)]
        event = {
            "event_id": f"e{n if n % 20 else max(n - len(USERS), 0)}",  # of the same user's round before
            "event_type": TYPES[n * 5 % len(TYPES)],
            "user_id": user,
            "item_id": f"i{n * 11 % 90}",
            "category": f"c{n * 11 % 90 % 9}",
            "brand": f"b{n * 11 % 90 % 5}",
            "occurred_at": START_MS + n * HOUR_MS,
        }
        producer.produce(
            world.settings.topics.events, json.dumps(event).encode(), user.encode(), timestamp=event["occurred_at"]
        )
    assert producer.flush(30) == 0


def test_states_by_type_survive_a_kill_and_a_lost_disk(kafka: str, tmp_path: Path) -> None:
    world = World(kafka, tmp_path, partitions=2)
    worker = world.worker("a")
    fresh = None
    try:
        _send(world, range(400))
        worker.start(*SETTINGS)
        wait_for("the first lists", lambda: bool(world.last_lists()), 60, [worker])
        _send(world, range(400, 700))
        worker.kill()  # somewhere in the middle
        worker.lose_disk()
        _send(world, range(700, 960))
        worker.start(*SETTINGS)
        wait_for("all is committed", world.caught_up, 60, [worker])
        report = world.audit()
        assert report.exact, report
        assert report.users == len(USERS)

        other = world.elsewhere("fresh")
        fresh = other.worker("fresh").start(*SETTINGS)
        wait_for("a fresh run is through", other.caught_up, 60, [fresh])
        lists = world.last_lists()
        assert lists == other.last_lists()
        assert len(lists) == len(USERS)
        kinds = {interest.kind for one in lists.values() for interest in one.interests}
        assert kinds == {"", "brand"}
    finally:
        for one in (worker, fresh):
            if one is not None:
                one.end()
