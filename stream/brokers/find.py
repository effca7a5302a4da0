"""A real Kafka for tests, from wherever one is to be had."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from stream.brokers.base import Broker, GivenBroker
from stream.brokers.cluster import reach
from stream.brokers.docker import DockerKafka, why_no_docker
from stream.brokers.local import LocalKafka, why_no_local
from stream.errors import BrokerError

GIVEN_VARIABLE = "DRIFTLINE_TEST_KAFKA"


@dataclass(frozen=True)
class Found:
    """broker: a running one, or None. source: given, docker or local. reasons: why the others are not."""

    broker: Broker | None
    source: str = ""
    reasons: list[str] = field(default_factory=list)


def find_broker(order: Sequence[str] = ("given", "docker", "local")) -> Found:
    """Starts the first real Kafka of `order` that can be had. A given address that does not answer is an
    error (BrokerError), not a reason to try the next: whoever gave it meant it."""
    reasons: list[str] = []
    for source in order:
        if source == "given":
            address = os.environ.get(GIVEN_VARIABLE)
            if address:
                reach({"bootstrap.servers": address})
                return Found(GivenBroker(address), source, reasons)
            reasons.append(f"{GIVEN_VARIABLE} names no broker")
            continue
        reason = why_no_docker() if source == "docker" else why_no_local()
        if reason is None:
            try:
                return Found(DockerKafka() if source == "docker" else LocalKafka(), source, reasons)
            except BrokerError as error:
                reason = str(error)
        reasons.append(reason)
    return Found(None, "", reasons)
