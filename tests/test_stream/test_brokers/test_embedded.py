"""The embedded broker: topics of any size, quick groups, and one worker only."""

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer

from stream.brokers import Cluster, EmbeddedBroker, claim_embedded, reach
from stream.errors import BrokerError, RefusedError


def test_topics_of_any_partition_count() -> None:
    with EmbeddedBroker({"a": 1, "b": 32}) as broker:
        assert broker.create_topic("c", 3)
        assert not broker.create_topic("c", 5)
        assert reach({"bootstrap.servers": broker.bootstrap_servers}).partitions == {"a": 1, "b": 32, "c": 3}


def test_records_come_back_without_waiting_for_a_group(embedded: EmbeddedBroker) -> None:
    embedded.create_topic("t", 2)
    producer = Producer({"bootstrap.servers": embedded.bootstrap_servers})
    for number in range(10):
        producer.produce("t", str(number), partition=number % 2)
    assert producer.flush(5) == 0
    consumer = Consumer(
        {"bootstrap.servers": embedded.bootstrap_servers, "group.id": "g", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe(["t"])
    began, values = time.monotonic(), set()
    while len(values) < 10 and time.monotonic() - began < 5:
        values |= {int(message.value()) for message in consumer.consume(10, 0.2) if message.error() is None}
    consumer.close()
    assert values == set(range(10))
    assert time.monotonic() - began < 2.5  # 3 s of waiting for further members, unless switched off


def test_stopping_twice_and_using_what_has_stopped() -> None:
    broker = EmbeddedBroker()
    assert EmbeddedBroker.running_here(broker.bootstrap_servers) is broker
    broker.stop()
    broker.stop()
    assert EmbeddedBroker.running_here(broker.bootstrap_servers) is None
    with pytest.raises(BrokerError, match="has stopped"):
        broker.create_topic("t", 1)


def test_it_says_nothing_on_the_terminal() -> None:
    code = "from stream.brokers import EmbeddedBroker\nwith EmbeddedBroker({'t': 1}): pass"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout + done.stderr == ""


class TestClaim:
    @pytest.fixture
    def cluster(self, embedded: EmbeddedBroker) -> Cluster:
        return reach({"bootstrap.servers": embedded.bootstrap_servers})

    def test_a_second_worker_is_refused_with_the_reason(self, cluster: Cluster) -> None:
        reason = r"another worker .* takes one only.*not isolated.*real Kafka"
        with claim_embedded(cluster), pytest.raises(RefusedError, match=reason), claim_embedded(cluster):
            pass

    def test_the_place_is_free_again_afterwards(self, cluster: Cluster) -> None:
        for _ in range(2):
            with claim_embedded(cluster):
                pass

    def test_a_worker_that_was_killed_holds_it_no_longer(self, cluster: Cluster, tmp_path: Path) -> None:
        code = f"""
            import time
            from stream.brokers import Cluster, claim_embedded
            with claim_embedded({cluster!r}):
                print("held", flush=True)
                time.sleep(60)
        """
        holder = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
        with holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(RefusedError), claim_embedded(cluster):
                pass
            holder.kill()
        with claim_embedded(cluster):
            pass

    def test_a_real_kafka_takes_any_number(self) -> None:
        real = Cluster("Zm9v", ("127.0.0.1:9092",), {})
        with claim_embedded(real), claim_embedded(real):
            pass
