"""A broker given by address: is it there, and what has it?"""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from stream.errors import BrokerError
from stream.settings import LIBRDKAFKA_LOG, Settings

# librdkafka's embedded broker calls its cluster so.
EMBEDDED_PREFIX = "mockCluster"

_HINTS = {
    KafkaError._AUTHENTICATION: "Check security.protocol, sasl.mechanism, sasl.username and sasl.password",
    KafkaError.SASL_AUTHENTICATION_FAILED: "Check sasl.mechanism, sasl.username and sasl.password",
    KafkaError._SSL: "Check security.protocol and ssl.ca.location",
    KafkaError._RESOLVE: "Check the host's name",
    KafkaError._TRANSPORT: "Start Kafka there",
}
# No second try mends these; other errors may be of one server of several.
_HOPELESS = {*_HINTS, KafkaError._ALL_BROKERS_DOWN} - {KafkaError._RESOLVE, KafkaError._TRANSPORT}

# What librdkafka adds for its own developers: "/bootstrap", "(after 0ms in state CONNECT, ...)".
_DETAIL = re.compile(r"/bootstrap(?=:)| \(after \d+ms in state .*$")


@dataclass(frozen=True)
class Cluster:
    """A broker that answered. brokers: HOST:PORT each. partitions: topic -> partition count."""

    cluster_id: str
    brokers: tuple[str, ...]
    partitions: dict[str, int]

    @property
    def embedded(self) -> bool:
        """Whether it is the embedded broker, which knows no real transactions."""
        return self.cluster_id.startswith(EMBEDDED_PREFIX)


def reach(properties: Mapping[str, Any], timeout_s: float = 5.0, *, patient: bool = False) -> Cluster:
    """Asks the broker who it is. `properties`: `Settings.client_properties()`. `patient`: a
    broker that is just starting may refuse at first; keep asking until `timeout_s`.
    Raises BrokerError, which says why no broker answers and what to do.
    """
    heard: list[KafkaError] = []
    try:
        admin = AdminClient({"logger": LIBRDKAFKA_LOG, **properties, "error_cb": heard.append})
    except KafkaException as error:
        raise BrokerError(f"Kafka's client refuses its properties: {_told(error)}. Mend kafka.properties.") from None
    deadline = time.monotonic() + timeout_s
    while True:
        admin.poll(0)
        hopeless = not patient and any(error.code() in _HOPELESS for error in heard)
        left_s = deadline - time.monotonic()
        if hopeless or left_s <= 0:
            break
        try:
            found = admin.list_topics(timeout=min(left_s, 0.5))
        except KafkaException:
            continue  # what went wrong arrives through error_cb
        return Cluster(
            cluster_id=found.cluster_id or "",
            brokers=tuple(f"{b.host}:{b.port}" for b in found.brokers.values()),
            partitions={name: len(topic.partitions) for name, topic in found.topics.items()},
        )
    address = properties["bootstrap.servers"]
    told = [_DETAIL.sub("", error.str()) for error in heard if error.code() != KafkaError._ALL_BROKERS_DOWN]
    why = "; ".join(dict.fromkeys(told)) or f"no answer within {timeout_s:g} s"
    hint = next((_HINTS[e.code()] for e in heard if e.code() in _HINTS), "Check address, port and firewall")
    raise BrokerError(
        f"no broker answers at {address}: {why}. {hint}, give another address with --bootstrap-servers, "
        "or try without Kafka: `driftline broker embedded`."
    )


def is_embedded(settings: Settings, timeout_s: float = 5.0) -> bool:
    """Whether the broker is the embedded one. Raises BrokerError when none answers."""
    return reach(settings.client_properties(), timeout_s).embedded


def _told(error: KafkaException) -> str:
    first = error.args[0]
    return first.str() if isinstance(first, KafkaError) else str(first)
