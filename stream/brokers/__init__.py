"""Where a broker comes from: one given by address, Docker, Apache Kafka run here by a JDK, or embedded.

| source | class | real Kafka | needs |
|---|---|---|---|
| given | `reach(settings)` | as it is | an address |
| Docker | `DockerKafka` | yes | a Docker engine, `pip install 'driftline[docker]'` |
| local | `LocalKafka` | yes | JDK 17 or later and Maven |
| embedded | `EmbeddedBroker` | no: memory only, one worker | nothing |

`find_broker` tries the real ones in that order, for tests.
"""

from stream.brokers.base import Broker, GivenBroker
from stream.brokers.cluster import Cluster, is_embedded, reach
from stream.brokers.docker import DockerKafka
from stream.brokers.embedded import EmbeddedBroker, claim_embedded
from stream.brokers.find import Found, find_broker
from stream.brokers.local import LocalKafka

__all__ = [
    "Broker",
    "Cluster",
    "DockerKafka",
    "EmbeddedBroker",
    "Found",
    "GivenBroker",
    "LocalKafka",
    "claim_embedded",
    "find_broker",
    "is_embedded",
    "reach",
]
