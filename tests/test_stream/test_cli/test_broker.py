"""`driftline broker`: runs until it is told to stop, and prints its address for scripts."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stream.brokers import find_broker, is_embedded
from stream.brokers.local import why_no_local
from stream.settings import load_settings
from stream.topics import check_topics

DRIFTLINE = [sys.executable, "-c", "from stream.cli import main; main()"]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_embedded_has_all_topics_and_ends_in_order(stop: signal.Signals) -> None:
    command = [*DRIFTLINE, "broker", "embedded", "--set", "topics.partitions=3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as broker:
        assert broker.stdout is not None
        address = broker.stdout.readline().strip()
        settings = load_settings(None, {"kafka.bootstrap_servers": address}, {})
        assert is_embedded(settings)
        assert check_topics(settings).partitions[settings.topics.events] == 3
        broker.send_signal(stop)
        said = broker.communicate(timeout=10)[1]
    assert broker.returncode == 0
    assert "one worker" in said
    assert "rdkafka" not in said


def test_the_embedded_brokers_port_cannot_be_chosen(driftline) -> None:
    done = driftline("broker", "embedded", "--port", "9092")
    assert done.code == 2
    assert "chosen by the system" in done.err


def test_kafka_without_java_is_refused(driftline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DRIFTLINE_CACHE", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    done = driftline("broker", "kafka")
    assert done.code == 2
    assert "install" in done.err


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.skipif(why_no_local() is not None, reason=str(why_no_local()))
def test_kafka_runs_at_the_port_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from stream.brokers.local import free_port

    port = free_port()
    command = [*DRIFTLINE, "broker", "kafka", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as broker:
        assert broker.stdout is not None
        assert broker.stdout.readline().strip() == f"127.0.0.1:{port}"
        monkeypatch.setenv("DRIFTLINE_TEST_KAFKA", f"127.0.0.1:{port}")
        assert find_broker().source == "given"
        broker.send_signal(signal.SIGINT)
        broker.communicate(timeout=30)
    assert broker.returncode == 0
