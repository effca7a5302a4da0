"""What a worker refuses before the first event, beyond what test_cli/test_worker shows of the command."""

import socket
from pathlib import Path

import pytest

from stream.brokers import EmbeddedBroker
from stream.errors import BrokerError, RefusedError
from stream.settings import Settings, load_settings
from stream.topics import create_topics
from stream.worker import prepare_worker


@pytest.fixture
def ready(embedded: EmbeddedBroker, tmp_path: Path) -> Settings:
    """Settings with which a worker could start."""
    settings = load_settings(
        overrides={
            "kafka.bootstrap_servers": embedded.bootstrap_servers,
            "worker.data_dir": tmp_path / "data",
            "worker.web_port": 0,
            "model.path": "somewhere",
            "topics.partitions": 2,
        },
        environ={},
    )
    create_topics(settings)
    return settings


def _changed(settings: Settings, **worker: object) -> Settings:
    return settings.model_copy(update={"worker": settings.worker.model_copy(update=worker)})


def test_it_gives_the_cluster_and_its_partitions(ready: Settings) -> None:
    with prepare_worker(ready) as cluster:
        assert cluster.embedded
        assert cluster.partitions[ready.topics.events] == 2


def test_a_data_folder_in_use(ready: Settings, tmp_path: Path) -> None:
    import fcntl

    folder = tmp_path / "data" / "driftline"
    folder.mkdir(parents=True)
    with (folder / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(RefusedError, match="--data-dir"), prepare_worker(ready):
            pass


def test_a_data_folder_that_cannot_be_made(ready: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = _changed(ready, data_dir=tmp_path / "file")
    with pytest.raises(RefusedError, match="--data-dir"), prepare_worker(settings):
        pass


def test_the_folder_is_free_again_afterwards(ready: Settings) -> None:
    for _ in range(2):
        with prepare_worker(ready):
            pass


def test_a_web_port_in_use(ready: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = _changed(ready, web_port=taken.getsockname()[1])
        with pytest.raises(RefusedError, match="--web-port"), prepare_worker(settings):
            pass


def test_no_broker() -> None:
    settings = load_settings(
        overrides={"kafka.bootstrap_servers": "127.0.0.1:1", "model.path": "m", "worker.web_port": 0}, environ={}
    )
    with pytest.raises(BrokerError, match="--bootstrap-servers"), prepare_worker(settings):
        pass
