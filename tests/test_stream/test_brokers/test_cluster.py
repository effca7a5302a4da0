"""Asking a broker who it is, and saying well why none answers."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from stream.brokers import EmbeddedBroker, is_embedded, reach
from stream.brokers.local import free_port
from stream.errors import BrokerError
from stream.settings import load_settings


def test_tells_topics_and_kind(embedded: EmbeddedBroker) -> None:
    embedded.create_topic("t", 7)
    cluster = reach({"bootstrap.servers": embedded.bootstrap_servers})
    assert cluster.embedded
    assert cluster.partitions == {"t": 7}
    assert cluster.brokers == (embedded.bootstrap_servers,)
    assert is_embedded(load_settings(None, {"kafka.bootstrap_servers": embedded.bootstrap_servers}, {}))


@pytest.mark.kafka
def test_a_real_kafka_is_not_embedded(kafka: str) -> None:
    assert not reach({"bootstrap.servers": kafka}).embedded


@pytest.mark.parametrize(
    ("address", "why", "todo"),
    [
        ("127.0.0.1:1", "Connection refused", "Start Kafka there"),
        ("no-such-host.invalid:9092", "Failed to resolve", "Check the host's name"),
    ],
)
def test_no_broker_there(address: str, why: str, todo: str) -> None:
    began = time.monotonic()
    with pytest.raises(BrokerError) as caught:
        reach({"bootstrap.servers": address})
    assert time.monotonic() - began < 4
    for part in (f"no broker answers at {address}", why, todo, "--bootstrap-servers", "driftline broker embedded"):
        assert part in str(caught.value)
    assert "state CONNECT" not in str(caught.value)


@pytest.fixture
def mute() -> Iterator[str]:
    """A server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    taken.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in taken:
            connection.close()


def test_something_else_answers_there(mute: str) -> None:
    with pytest.raises(BrokerError, match=r"no answer within 1 s\. Check address"):
        reach({"bootstrap.servers": mute}, timeout_s=1)


def test_one_dead_server_of_two_does_no_harm(embedded: EmbeddedBroker) -> None:
    assert reach({"bootstrap.servers": f"127.0.0.1:{free_port()},{embedded.bootstrap_servers}"}).embedded


def test_a_property_that_librdkafka_does_not_know() -> None:
    with pytest.raises(BrokerError, match=r'"no\.such\.thing".*Mend kafka\.properties'):
        reach({"bootstrap.servers": "127.0.0.1:1", "no.such.thing": "1"})


def test_patience_with_a_broker_that_is_starting() -> None:
    port, began = free_port(), time.monotonic()
    with pytest.raises(BrokerError, match="Connection refused"):
        reach({"bootstrap.servers": f"127.0.0.1:{port}"}, 1.0, patient=True)
    assert time.monotonic() - began >= 1.0
