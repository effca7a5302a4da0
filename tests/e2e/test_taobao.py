"""The sample of Taobao out of order, on a real Kafka: what is late is named by a count that knows no Driftline.

time + up to 10 min ── sort ──> log, read in offset order, partition by partition:

event time, s      0   30   70   200   180    100
newest so far      0   30   70   200   200    200
behind it          0    0    0     0    20    100 ── more than a grace of 60 s ──> late topic; not of 900 s
"""

import gzip
import json
import random
from collections import Counter
from pathlib import Path

import pytest
from confluent_kafka import Producer

from stream.audit import read_topic
from stream.contract.control import LATE_BY_MS
from stream.settings import load_settings
from tests.chaos.world import World, wait_for

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "taobao" / "small_sample.csv.gz"

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.data,
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.exists(), reason="the sample of Taobao is not in ../shared/data"),
]

EVENTS = 100_001
TYPES = {"pv": "view", "cart": "add_to_cart", "fav": "like", "buy": "purchase"}
SHUFFLED_WITHIN_S = 600


def send_shuffled(world: World) -> None:
    """Each event as if it came up to ten minutes after its time. Their records are of today, years after all of them,
    so that no event is ahead of its record, where it would be taken to be of its record's time."""
    draw = random.Random(11)
    arrivals: list[tuple[float, dict[str, str | int]]] = []
    with gzip.open(DATA, "rt") as lines:
        for number, line in enumerate(lines):
            user, item, category, behaviour, time_s = line.rstrip("\n").split(",")
            event: dict[str, str | int] = {
                "event_id": f"e{number}",
                "event_type": TYPES[behaviour],
                "user_id": user,
                "item_id": item,
                "category": category,
                "occurred_at": int(time_s) * 1000,
            }
            arrivals.append((int(time_s) + draw.uniform(0, SHUFFLED_WITHIN_S), event))
    arrivals.sort(key=lambda arrival: arrival[0])
    properties = {"partitioner": "murmur2_random", "linger.ms": 20, "queue.buffering.max.messages": 2 * EVENTS}
    producer = Producer(world.settings.client_properties(properties))
    for _, event in arrivals:
        producer.produce(world.settings.topics.events, json.dumps(event).encode(), str(event["user_id"]).encode())
    assert producer.flush(30) == 0


def counted_naively(world: World, grace_ms: int) -> tuple[dict[str, int], Counter[str]]:
    """Id of each late event -> by how much, ms; and the events on time of each user."""
    newest_ms: dict[int, int] = {}
    late: dict[str, int] = {}
    on_time: Counter[str] = Counter()
    types: Counter[str] = Counter()
    for message in read_topic(world.settings, world.settings.topics.events):
        event = json.loads(message.value())
        types[event["event_type"]] += 1
        at_ms, partition = event["occurred_at"], message.partition()
        newest_ms[partition] = max(newest_ms.get(partition, 0), at_ms)
        if newest_ms[partition] - at_ms > grace_ms:
            late[event["event_id"]] = newest_ms[partition] - at_ms
        else:
            on_time[event["user_id"]] += 1
    assert len(newest_ms) > 1, "all in one partition"
    assert types.keys() == set(TYPES.values())
    assert types.total() == EVENTS
    return late, on_time


@pytest.mark.parametrize(("grace_s", "some_late"), [(60, True), (900, False)])
def test_the_late_topic_holds_what_a_naive_count_names_and_the_states_the_rest(
    kafka: str, tmp_path: Path, grace_s: int, some_late: bool
) -> None:
    world = World(kafka, tmp_path, partitions=4)
    world.values |= {"events.grace_s": grace_s}
    world.settings = load_settings(overrides=world.values, environ={})
    send_shuffled(world)
    late, on_time = counted_naively(world, grace_s * 1000)
    worker = world.worker("a").start()
    try:
        wait_for("all is committed", world.caught_up, 50, [worker])
        changed_times = worker.metric("driftline_future_events_total")
        assert worker.stop() == 0
    finally:
        worker.end()

    found: dict[str, int] = {}
    for message in read_topic(world.settings, world.settings.topics.late):
        event_id = json.loads(message.value() or b"")["event_id"]
        assert event_id not in found, "twice on the late topic"
        found[event_id] = int(dict(message.headers() or [])[LATE_BY_MS])
    assert found == late
    assert len(late) > 10_000 if some_late else not late
    assert {key.decode(): made.events_applied for key, made in world.last_lists().items()} == on_time
    assert changed_times == 0
    report = world.audit()
    assert report.exact, report
    assert (report.events, report.late, report.duplicates) == (EVENTS - len(late), len(late), 0)
    assert not report.dead_letters
