"""A record that no librdkafka client can make: a header whose *name* is not UTF-8. It must not stop a worker."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stream.audit import read_topic
from stream.contract.control import ERROR_REASON
from tests.chaos.world import World, wait_for

pytestmark = pytest.mark.kafka

# aiokafka in pure Python encodes names itself, so that a name may be made to say anything.
PRODUCE = """
import asyncio, sys
from aiokafka import AIOKafkaProducer

class Name(str):
    def encode(self, *_):
        return b"\\xff\\xfe"

async def produce(servers, topic):
    producer = AIOKafkaProducer(bootstrap_servers=servers)
    await producer.start()
    await producer.send_and_wait(topic, b"{}", b"ann", headers=[(Name("x"), b"1")])
    await producer.stop()

asyncio.run(produce(*sys.argv[1:]))
"""


def test_a_header_name_that_is_not_utf8_is_a_dead_letter(kafka: str, tmp_path: Path) -> None:
    world = World(kafka, tmp_path, partitions=2)
    topics = world.settings.topics
    environment = {**os.environ, "AIOKAFKA_NO_EXTENSIONS": "1"}
    for topic in (topics.events, topics.rekey):
        subprocess.run([sys.executable, "-c", PRODUCE, kafka, topic], env=environment, check=True, timeout=60)
    worker = world.worker("a").start()
    try:
        wait_for("all is committed", world.caught_up, 60, [worker])
        assert worker.stop() == 0
    finally:
        worker.end()
    letters = [dict(message.headers() or []) for message in read_topic(world.settings, topics.dead_letters)]
    assert [letter[ERROR_REASON] for letter in letters] == [b"bad_header", b"bad_header"]
