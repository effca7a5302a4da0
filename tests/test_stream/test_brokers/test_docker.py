"""Kafka in Docker: what the container is told, and why there is none. Tried for real where Docker answers."""

from pathlib import Path

import pytest
import yaml

from stream.brokers import DockerKafka, reach
from stream.brokers.docker import IMAGE, environment, why_no_docker
from stream.errors import BrokerError

ROOT = Path(__file__).parents[3]


def test_clients_are_sent_to_the_published_port() -> None:
    assert environment(12345)["KAFKA_ADVERTISED_LISTENERS"] == "PLAINTEXT://127.0.0.1:12345"


def test_the_same_image_as_docker_compose() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert services["kafka"]["image"] == IMAGE


def test_no_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    reason = why_no_docker()
    assert reason is not None
    with pytest.raises(BrokerError, match="cannot run in Docker"):
        DockerKafka()


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.skipif(why_no_docker() is not None, reason=str(why_no_docker()))
def test_runs() -> None:
    with DockerKafka() as broker:
        assert not reach({"bootstrap.servers": broker.bootstrap_servers}).embedded
