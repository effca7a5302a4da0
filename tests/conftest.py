"""Brokers for all tests: `kafka` is a real Apache Kafka, `embedded` librdkafka's own in this process."""

import logging
import os
from collections.abc import Iterator

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from stream.brokers import EmbeddedBroker, find_broker
from stream.brokers.base import GivenBroker

# A client whose broker ends before it says so; that is no news in a test.
logging.getLogger("stream.librdkafka").setLevel(logging.CRITICAL)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own DRIFTLINE_CONFIG must not change what a test sees."""
    monkeypatch.delenv("DRIFTLINE_CONFIG", raising=False)
    monkeypatch.delenv("DRIFTLINE_KAFKA_BOOTSTRAP_SERVERS", raising=False)


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    """Address (HOST:PORT) of a real Kafka for the whole session: topics of one test are seen by the next, so
    give them names of your own. Skips, with the reasons, when none is to be had."""
    found = find_broker()
    if found.broker is None:
        if os.environ.get("DRIFTLINE_REQUIRE_KAFKA"):
            pytest.fail("no Kafka, and DRIFTLINE_REQUIRE_KAFKA is set: " + "; ".join(found.reasons))
        pytest.skip("no Kafka: " + "; ".join(found.reasons))
    with found.broker as broker:
        if not isinstance(broker, GivenBroker):  # its owner decides
            _keep_old_records(broker.bootstrap_servers)
        yield broker.bootstrap_servers


def _keep_old_records(servers: str) -> None:
    """Records with timestamps of last winter must not go when retention looks, half a minute after the start."""
    admin = AdminClient({"bootstrap.servers": servers})
    setting = ConfigEntry("log.retention.ms", "-1", incremental_operation=AlterConfigOpType.SET)
    of_brokers = [
        ConfigResource(ConfigResource.Type.BROKER, str(number), incremental_configs=[setting])
        for number in admin.list_topics(timeout=20).brokers
    ]
    for answer in admin.incremental_alter_configs(of_brokers).values():
        answer.result(20)


@pytest.fixture
def embedded() -> Iterator[EmbeddedBroker]:
    """An empty embedded broker for this test; `embedded.create_topic(name, partitions)`."""
    with EmbeddedBroker() as broker:
        yield broker
