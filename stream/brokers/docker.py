"""Apache Kafka in Docker, by testcontainers; for tests."""

import os
import socket
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from stream.brokers.base import Broker
from stream.brokers.cluster import reach
from stream.brokers.local import free_port
from stream.errors import BrokerError

IMAGE = "apache/kafka:4.3.1"
_PORT = 9092
_SOCKET = "unix:///var/run/docker.sock"


def why_no_docker() -> str | None:
    """Why Docker cannot be used here; None when it can."""
    if find_spec("testcontainers") is None or find_spec("docker") is None:
        return "testcontainers is not installed (pip install 'driftline[docker]')"
    host = os.environ.get("DOCKER_HOST", _SOCKET)
    if host.startswith("unix://"):  # asked ourselves first: docker's client leaks its socket where none listens
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(host.removeprefix("unix://")) != 0:
                return f"no Docker engine answers at {host}"
    docker: Any = import_module("docker")  # carries no types
    try:
        client = docker.from_env(timeout=3)
        try:
            client.ping()
        finally:
            client.close()
    except docker.errors.DockerException as error:
        return f"no Docker engine answers ({str(error).splitlines()[0][:120]})"
    return None


def environment(port: int) -> dict[str, str]:
    """The image's settings: one KRaft node that clients on this machine reach at 127.0.0.1:`port`."""
    return {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_LISTENERS": f"PLAINTEXT://:{_PORT},CONTROLLER://:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://127.0.0.1:{port}",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "4",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS": "4",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        "KAFKA_TRANSACTION_ABORT_TIMED_OUT_TRANSACTION_CLEANUP_INTERVAL_MS": "1000",
    }


class DockerKafka(Broker):
    """One Kafka container, removed at the end."""

    def __init__(self, image: str = IMAGE, timeout_s: float = 60.0) -> None:
        reason = why_no_docker()
        if reason is not None:
            raise BrokerError(f"Kafka cannot run in Docker: {reason}. Use `driftline broker kafka` (a JDK).")
        from testcontainers.core.container import DockerContainer

        port = free_port()
        container: Any = DockerContainer(image).with_bind_ports(_PORT, port)
        for name, value in environment(port).items():
            container = container.with_env(name, value)
        self._container = container.start()
        self.bootstrap_servers = f"127.0.0.1:{port}"
        try:
            reach({"bootstrap.servers": self.bootstrap_servers, "log_level": 0}, timeout_s, patient=True)
        except BrokerError:
            self.stop()
            raise

    def stop(self) -> None:
        """Stops and removes the container."""
        self._container.stop()
