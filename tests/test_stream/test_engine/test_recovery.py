"""The local stores from the changelog, on a real Kafka."""

import threading
import time
import uuid

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from state.store import MemoryStore
from stream.engine.cycle import Partition
from stream.engine.recovery import recover

pytestmark = pytest.mark.kafka


@pytest.fixture
def changelog(kafka: str) -> str:
    topic = f"recovery-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": kafka})
    admin.create_topics([NewTopic(topic, 2, 1)])[topic].result(20)
    return topic


def _partitions(changelog: str) -> list[Partition]:
    return [Partition("events", number, changelog, MemoryStore(), 0) for number in (0, 1)]


def _transaction(kafka: str, name: str, timeout_ms: int = 60_000) -> Producer:
    producer = Producer(
        {"bootstrap.servers": kafka, "transactional.id": f"{name}-{uuid.uuid4()}", "transaction.timeout.ms": timeout_ms}
    )
    producer.init_transactions(20)
    producer.begin_transaction()
    return producer


def test_an_empty_changelog_gives_empty_stores(kafka: str, changelog: str) -> None:
    assert recover(_partitions(changelog), {"bootstrap.servers": kafka}) == 0


def test_all_partitions_come_back_tombstones_and_last_values_count(kafka: str, changelog: str) -> None:
    producer = Producer({"bootstrap.servers": kafka})
    for i in range(3_000):
        producer.produce(changelog, b"%d" % i, b"k%d" % (i % 1_000), i % 2)
    producer.produce(changelog, None, b"k0", 0)
    producer.flush(20)
    partitions = _partitions(changelog)
    told: list[int] = []
    assert recover(partitions, {"bootstrap.servers": kafka}, told.append) == 3_001
    assert told[-1] == 0
    assert dict(partitions[0].store.items()) == {b"k%d" % i: b"%d" % (2_000 + i) for i in range(2, 1_000, 2)}
    assert dict(partitions[1].store.items()) == {b"k%d" % i: b"%d" % (2_000 + i) for i in range(1, 1_000, 2)}
    assert [p.store.position for p in partitions] == [1_501, 1_500]


def test_only_what_the_store_lacks_is_read(kafka: str, changelog: str) -> None:
    producer = Producer({"bootstrap.servers": kafka})
    for i in range(10):
        producer.produce(changelog, b"new", b"k%d" % i, 0)
    producer.flush(20)
    partitions = _partitions(changelog)
    partitions[0].store.write([(b"k1", b"kept")], 7)
    assert recover(partitions, {"bootstrap.servers": kafka}) == 3
    assert partitions[0].store.get_many([b"k1", b"k7"]) == [b"kept", b"new"]


def test_a_recreated_changelog_wipes_the_store(kafka: str, changelog: str) -> None:
    partitions = _partitions(changelog)
    partitions[1].store.write([(b"k1", b"of the old topic")], 99)
    recover(partitions, {"bootstrap.servers": kafka})
    assert partitions[1].store.get_many([b"k1"]) == [None]


def test_aborted_records_are_not_taken(kafka: str, changelog: str) -> None:
    producer = _transaction(kafka, "aborted")
    producer.produce(changelog, b"aborted", b"k", 0)
    producer.flush(20)
    producer.abort_transaction(20)
    partitions = _partitions(changelog)
    assert recover(partitions, {"bootstrap.servers": kafka}) == 0
    assert partitions[0].store.get_many([b"k"]) == [None]


def test_it_waits_for_a_transaction_that_is_still_open(kafka: str, changelog: str) -> None:
    """A predecessor's transaction is decided but not marked yet: stopping at the last stable offset would lose it."""
    producer = _transaction(kafka, "open")
    producer.produce(changelog, b"late", b"k", 0)
    producer.flush(20)
    partitions = _partitions(changelog)
    recovered = threading.Thread(target=recover, args=(partitions, {"bootstrap.servers": kafka}), daemon=True)
    recovered.start()
    time.sleep(1.5)
    assert recovered.is_alive()
    producer.commit_transaction(20)
    recovered.join(20)
    assert not recovered.is_alive()
    assert partitions[0].store.get_many([b"k"]) == [b"late"]


def test_a_store_whose_place_was_removed_is_rebuilt_from_what_is_left(kafka: str, changelog: str) -> None:
    producer = Producer({"bootstrap.servers": kafka})
    for i in range(10):
        producer.produce(changelog, b"v", b"k%d" % i, 0)
    producer.flush(20)
    admin = AdminClient({"bootstrap.servers": kafka})
    at = TopicPartition(changelog, 0, 6)
    admin.delete_records([at])[at].result(20)
    partitions = _partitions(changelog)
    partitions[0].store.write([(b"old", b"1")], 3)
    assert recover(partitions, {"bootstrap.servers": kafka}) == 4
    assert dict(partitions[0].store.items()) == {b"k%d" % i: b"v" for i in range(6, 10)}


def test_it_ends_early_when_the_worker_stops(kafka: str, changelog: str) -> None:
    producer = Producer({"bootstrap.servers": kafka})
    producer.produce(changelog, b"v", b"k", 0)
    producer.flush(20)
    partitions = _partitions(changelog)
    assert recover(partitions, {"bootstrap.servers": kafka}, stopping=lambda: True) == 0
    assert partitions[0].store.position == 0
