"""Apache Kafka run by a JDK: starting, being killed, coming back, dying with its parent; and what is missing."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from stream.brokers import LocalKafka, reach
from stream.brokers.local import CACHE_VARIABLE, kafka_folder, why_no_local
from stream.errors import BrokerError

kafka_here = pytest.mark.skipif(why_no_local() is not None, reason=str(why_no_local()))


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@kafka_here
@pytest.mark.kafka
@pytest.mark.slow
class TestLocalKafka:
    def test_comes_back_on_its_data_after_kill_9(self) -> None:
        with LocalKafka() as broker:
            admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
            admin.create_topics([NewTopic("t", 1, 1)])["t"].result()
            producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "acks": "all"})
            producer.produce("t", b"kept")
            assert producer.flush(10) == 0
            address = broker.bootstrap_servers
            broker.kill()
            with pytest.raises(BrokerError):
                reach({"bootstrap.servers": address}, 1)
            broker.start()
            assert broker.bootstrap_servers == address
            consumer = Consumer({"bootstrap.servers": address, "group.id": "g"})
            consumer.assign([TopicPartition("t", 0, 0)])
            message = consumer.poll(20)
            consumer.close()
            assert message is not None
            assert message.value() == b"kept"
            assert "Kafka Server started" in broker.log_file.read_text()
            folder, pid = broker.folder, broker.pid
        assert not folder.exists()
        assert pid is not None
        assert not alive(pid)

    def test_dies_with_its_parent(self) -> None:
        code = """
import time
from stream.brokers import LocalKafka
broker = LocalKafka()
print(broker.pid, broker.folder, flush=True)
time.sleep(60)
"""
        parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        with parent:
            assert parent.stdout is not None
            pid, folder = parent.stdout.readline().split()
            assert alive(int(pid))
            parent.kill()
        deadline = time.monotonic() + 5
        while alive(int(pid)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not alive(int(pid))
        subprocess.run(["rm", "-r", folder], check=True)

    def test_a_given_folder_stays(self, tmp_path: Path) -> None:
        with LocalKafka(tmp_path / "kafka") as broker:
            address = broker.bootstrap_servers
        with LocalKafka(tmp_path / "kafka") as again:
            assert again.bootstrap_servers == address
        with pytest.raises(BrokerError, match=r"belongs to a Kafka at .*Leave the port out"):
            LocalKafka(tmp_path / "kafka", port=1)


class TestWhatIsMissing:
    @pytest.fixture(autouse=True)
    def _nothing_cached(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
        monkeypatch.delenv("JAVA_HOME", raising=False)

    def fake(self, folder: Path, name: str, script: str) -> None:
        program = folder / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    def test_no_java(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert str(why_no_local()).startswith("no Java: install a JDK, 17 or later")

    def test_java_too_old(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.fake(tmp_path, "java", "echo 'openjdk version \"11.0.2\"' >&2")
        monkeypatch.setenv("PATH", str(tmp_path))
        assert "is 11" in str(why_no_local())

    def test_no_maven(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.fake(tmp_path, "java", "echo 'openjdk version \"21.0.2\"' >&2")
        monkeypatch.setenv("PATH", str(tmp_path))
        assert "no Maven" in str(why_no_local())
        with pytest.raises(BrokerError, match=r"no Maven.*--bootstrap-servers"):
            LocalKafka()

    def test_maven_cannot_reach_its_repository(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.fake(tmp_path, "java", "echo 'openjdk version \"21.0.2\"' >&2")
        self.fake(tmp_path, "mvn", "echo '[ERROR] Could not transfer artifact'; exit 1")
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin")
        with pytest.raises(BrokerError, match=r"could not bring Kafka's jars: \[ERROR\] Could not transfer.*mirror"):
            LocalKafka()


def test_the_properties_are_for_tests_of_transactions() -> None:
    text = (kafka_folder() / "kafka.properties").read_text()
    for line in (
        "auto.create.topics.enable=false",
        "group.initial.rebalance.delay.ms=0",
        "transaction.state.log.replication.factor=1",
        "offsets.topic.replication.factor=1",
    ):
        assert line in text.splitlines()
