"""murmur2 against values that Kafka's Java client gives (UtilsTest.testMurmur2) and against librdkafka."""

import uuid

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from stream.engine.partitioner import partition_of

# key -> Utils.murmur2(key), from the Java client's own unit test.
JAVA = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize("key", JAVA)
def test_agrees_with_java(key: bytes) -> None:
    for partitions in (1, 3, 8, 32):
        assert partition_of(key, partitions) == (JAVA[key] & 0x7FFFFFFF) % partitions


@pytest.mark.kafka
def test_agrees_with_what_our_producers_do(kafka: str) -> None:
    topic = f"partitioner-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": kafka})
    admin.create_topics([NewTopic(topic, 8, 1)])[topic].result(20)
    producer = Producer({"bootstrap.servers": kafka, "partitioner": "murmur2_random"})
    keys = [f"user-{i}".encode() for i in range(200)]
    for key in keys:
        producer.produce(topic, b"", key)
    assert producer.flush(20) == 0
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": topic, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    found: dict[bytes, int] = {}
    try:
        while len(found) < len(keys):
            for message in consumer.consume(200, 10):
                assert message.error() is None
                found[message.key()] = message.partition()
    finally:
        consumer.close()
    assert found == {key: partition_of(key, 8) for key in keys}
