"""A damaged state on a real Kafka: the worker ends and says whose it is, or makes it anew from the log, exactly."""

import json
from pathlib import Path

import pytest
from confluent_kafka import Producer

from state.codec import VERSION
from stream.contract.control import user_hash
from stream.engine.partitioner import partition_of
from tests.chaos.world import World, wait_for

pytestmark = pytest.mark.kafka

PARTITIONS = 2
USERS = [f"user-{n}" for n in range(12)]
START_MS = 1_780_000_000_000
DAMAGED = bytes([VERSION]) + b"\xc1 no state"


def _send(world: World, numbers: range) -> None:
    producer = Producer(world.settings.client_properties({"partitioner": "murmur2_random"}))
    for n in numbers:
        user = USERS[n * 5 % len(USERS)]
        event = {
            "event_id": f"e{n if n % 20 else n - 1}",  # some ids twice, which only a user's own make a duplicate
            "event_type": ("view", "click", "purchase", "hide")[n % 4],
            "user_id": user,
            "item_id": f"i{n * 7 % 500}",
            "occurred_at": START_MS + n * 40_000,
        }
        producer.produce(world.settings.topics.events, json.dumps(event).encode(), user.encode())
    assert producer.flush(30) == 0


@pytest.mark.slow
def test_a_damaged_state_ends_the_worker_or_is_made_anew(kafka: str, tmp_path: Path) -> None:
    world = World(kafka, tmp_path, partitions=PARTITIONS)
    victim = USERS[5]
    worker, second = world.worker("a"), world.worker("b")
    fresh = None
    try:
        _send(world, range(600))
        worker.start()
        wait_for("all is committed", world.caught_up, 60, [worker])
        worker.kill()

        changelog = Producer(world.settings.client_properties())
        changelog.produce(
            world.settings.topics.changelog, DAMAGED, victim.encode(), partition_of(victim.encode(), PARTITIONS)
        )
        assert changelog.flush(30) == 0
        worker.lose_disk()
        _send(world, range(600, 700))

        worker.start()
        wait_for("the worker ends", lambda: not worker.alive, 60, [worker])
        assert worker.exit_code == 1
        told = worker.log.read_text()
        assert user_hash(victim.encode()) in told
        assert "worker.corrupt_state = rebuild" in told
        assert victim not in told

        second.start("--set=worker.corrupt_state=rebuild")
        wait_for("all is committed", world.caught_up, 60, [second])
        assert second.metric("driftline_rebuilt_states_total") == 1
        second.kill()
        second.lose_disk()
        _send(world, range(700, 760))
        second.start()  # the state is sound now: nothing has to be made anew
        wait_for("all is committed", world.caught_up, 60, [second])
        report = world.audit()
        assert report.exact, report
        assert report.users == len(USERS)

        other = world.elsewhere("fresh")
        fresh = other.worker("fresh").start()
        wait_for("a fresh run is through", other.caught_up, 60, [fresh])
        assert world.last_lists() == other.last_lists()
    finally:
        for one in (worker, second, fresh):
            if one is not None:
                one.end()
