"""The doctor: each thing that can be missing is found, with what to do."""

import shutil
import socket
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import stream.doctor as doctor
from model.artifact import save_artifact, untrained_artifact
from stream.brokers import EmbeddedBroker
from stream.brokers.local import free_port
from stream.doctor import Check, examine
from stream.settings import load_settings
from stream.topics import create_topics


@pytest.fixture
def well(embedded: EmbeddedBroker, tmp_path: Path) -> dict[str, Any]:
    """Flags of a machine on which a worker would run."""
    save_artifact(tmp_path / "m", untrained_artifact(["a", "b"], ["", ""], dim=8, hidden=8, seed=1))
    flags = {
        "kafka.bootstrap_servers": embedded.bootstrap_servers,
        "topics.partitions": 4,
        "model.path": str(tmp_path / "m"),
        "worker.data_dir": tmp_path / "data",
        "worker.web_port": free_port(),
    }
    create_topics(load_settings(None, flags, {}))
    return flags


def checks(flags: dict[str, Any]) -> dict[str, Check]:
    return {check.name: check for check in examine(load_settings(None, flags, {}))}


def test_all_is_well(well: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_OPEN_FILES", 10)
    monkeypatch.setattr(doctor, "_DISK_WARN_BYTES", 0)
    found = checks(well)
    assert {name for name, check in found.items() if check.status != "ok"} == {"broker"}
    assert found["broker"].status == "warn"
    assert "embedded" in found["broker"].todo
    assert "is empty" in found["catalogue"].found
    assert not (tmp_path / "data").exists()  # it looks, and leaves nothing


@pytest.mark.kafka
def test_a_real_kafka_is_well(kafka: str) -> None:
    assert checks({"kafka.bootstrap_servers": kafka})["broker"].status == "ok"


class Case(NamedTuple):
    """A change to a machine that is well, and what the doctor must then say."""

    flags: dict[str, Any]
    name: str
    status: str
    told: str


@pytest.mark.parametrize(
    "case",
    [
        Case({"kafka.bootstrap_servers": "127.0.0.1:1"}, "broker", "fail", "Start Kafka there"),
        Case({"topics.changelog": "nothing"}, "topics", "fail", "driftline topics create"),
        Case({"topics.partitions": 9}, "partitions", "warn", "Set topics.partitions = 4"),
        Case({"ranking.listed_only": True}, "catalogue", "fail", "driftline produce --items"),
        Case({"model.path": ""}, "model", "fail", "driftline train"),
        Case({"model.path": "/nowhere"}, "model", "fail", "/nowhere"),
        Case({"worker.data_dir": "/proc/nowhere"}, "data folder", "fail", "--data-dir"),
        Case({"worker.web_host": "no-such-host.invalid"}, "web port", "warn", "--web-port"),
    ],
    ids=lambda case: f"{case.name}-{case.status}-{len(case.told)}",
)
def test_what_is_wrong_is_found_with_what_to_do(well: dict[str, Any], case: Case) -> None:
    check = checks({**well, **case.flags})[case.name]
    assert check.status == case.status
    assert case.told in f"{check.found} {check.todo}"
    assert check.todo


def test_a_port_in_use(well: dict[str, Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        check = checks({**well, "worker.web_port": server.getsockname()[1]})["web port"]
    assert check.status == "warn"


def test_no_port_wanted(well: dict[str, Any]) -> None:
    assert checks({**well, "worker.web_port": 0})["web port"].status == "ok"


@pytest.mark.parametrize(("free_bytes", "status"), [(1, "fail"), (1024**3, "warn"), (1024**4, "ok")])
def test_disk(well: dict[str, Any], monkeypatch: pytest.MonkeyPatch, free_bytes: int, status: str) -> None:
    usage = shutil.disk_usage(".")._replace(free=free_bytes)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert checks(well)["disk"].status == status


def test_an_old_librdkafka(well: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("confluent_kafka.libversion", lambda: ("2.3.0", 0x020300FF))
    assert checks(well)["Kafka client"].status == "fail"
