"""The topics: what shape each has, creating them, and checking them before a worker starts.

Events, rekey, recommendations, features and changelog have the same partition count, so that all that belongs to a user
is on the partition of the same number.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from stream.brokers import Cluster, EmbeddedBroker, reach
from stream.brokers.embedded import DEFAULT_PARTITIONS
from stream.errors import BrokerError, TopicError
from stream.settings import Settings

log = logging.getLogger(__name__)

_CO_PARTITIONED = ("events", "rekey", "recommendations", "features", "changelog")
# Catalogue, dead letters and the like are a trickle; and the embedded broker gives 4 to a topic it is asked for.
_SMALL_PARTITIONS = DEFAULT_PARTITIONS
_REQUEST_TIMEOUT_S = 15.0
_DAY_MS = 86_400_000

_COMPACTED = {
    "cleanup.policy": "compact",
    # The open segment is never compacted; 1 GiB, the default, would keep that much of dead values a partition.
    "segment.bytes": str(64 * 1024 * 1024),
    # Compact once a fifth is overwritten (default: half): a recovery reads what compaction left.
    "min.cleanable.dirty.ratio": "0.2",
    # An erased user's last value is gone from disk within two days: a day until its segment is closed (by the next
    # record of the partition; one that is quiet for ever is never cleaned), a day until it is cleaned.
    "max.compaction.lag.ms": str(_DAY_MS),
    "segment.ms": str(_DAY_MS),
    # A reader that was away for less than two days still sees every erasure.
    "delete.retention.ms": str(2 * _DAY_MS),
}
# These carry an event's bytes unchanged, and headers beside: more than the events topic takes (1 MiB, unless set).
_CARRIES_EVENTS = {"max.message.bytes": str(16 * 1024 * 1024)}

_CONFIG: dict[str, dict[str, str]] = {
    "changelog": _COMPACTED,
    "recommendations": _COMPACTED,
    "items": _COMPACTED,
    "models": _COMPACTED,
    "erasures": _COMPACTED,  # kept for ever: a replay must not bring back what was erased
    "rekey": _CARRIES_EVENTS,
    "late": _CARRIES_EVENTS,
    "dead_letters": _CARRIES_EVENTS,
    # A week to train from, and as long at most what is known of an erased user is in it.
    "features": {"retention.ms": str(7 * _DAY_MS), "segment.ms": str(_DAY_MS)},
}


@dataclass(frozen=True)
class TopicSpec:
    """The shape of one topic. role: its name in the settings; config: Kafka's topic settings."""

    role: str
    name: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)

    @property
    def compacted(self) -> bool:
        return self.config.get("cleanup.policy") == "compact"


@dataclass(frozen=True)
class TopicDone:
    """What `create_topics` did with one topic."""

    role: str
    name: str
    partitions: int
    done: Literal["created", "there", "mended"]


def topic_specs(settings: Settings, partitions: int | None = None) -> list[TopicSpec]:
    """Every topic; `partitions` (the settings' unless given) is that of the co-partitioned ones."""
    return [
        TopicSpec(
            role,
            name,
            (partitions or settings.topics.partitions) if role in _CO_PARTITIONED else _SMALL_PARTITIONS,
            _CONFIG.get(role, {}),
        )
        for role, name in settings.topics.names().items()
    ]


def create_topics(settings: Settings, *, mend: bool = False) -> list[TopicDone]:
    """Creates the topics that are missing; one that is there stays as it is, unless `mend`, which gives it
    the settings of its kind (never another partition count).

    The co-partitioned ones get the events topic's partition count where that exists already.
    Raises BrokerError (no broker, or it refuses) and TopicError (the embedded broker cannot give that count).
    """
    cluster = reach(settings.client_properties())
    specs = topic_specs(settings, cluster.partitions.get(settings.topics.events))
    missing = [spec for spec in specs if spec.name not in cluster.partitions]
    if cluster.embedded:
        _create_embedded(settings, missing)
    else:
        admin = AdminClient(settings.client_properties())
        missing = _create(admin, missing, settings)
        if mend:
            _mend(admin, [spec for spec in specs if spec.config and spec not in missing])
        _settle(settings, specs if mend else missing)
    return [
        TopicDone(
            spec.role,
            spec.name,
            cluster.partitions.get(spec.name, spec.partitions),
            "created" if spec in missing else "mended" if mend and spec.config and not cluster.embedded else "there",
        )
        for spec in specs
    ]


def create_like(settings: Settings, names: Mapping[str, str], partitions: int) -> Cluster:
    """Creates topics of the shape of others, where they are missing.

    names: topic -> the one to be like it. partitions: of those that are co-partitioned; others have as many as the
    topic that they are like.

    Raises BrokerError as `create_topics`, and TopicError when one is there with another partition count.
    """
    cluster = reach(settings.client_properties())
    specs = [
        replace(
            spec,
            name=names[spec.name],
            partitions=partitions
            if spec.role in _CO_PARTITIONED
            else cluster.partitions.get(spec.name, spec.partitions),
        )
        for spec in topic_specs(settings)
        if spec.name in names
    ]
    for spec in specs:
        there = cluster.partitions.get(spec.name, spec.partitions)
        if there != spec.partitions and spec.role in _CO_PARTITIONED:
            raise TopicError(f"topic {spec.name} has {there} partitions, and needs {spec.partitions}: delete it.")
    missing = [spec for spec in specs if spec.name not in cluster.partitions]
    if cluster.embedded:
        _create_embedded(settings, missing)
    elif missing:
        _create(AdminClient(settings.client_properties()), missing, settings)
        _settle(settings, missing)
    return cluster


def check_topics(settings: Settings) -> Cluster:
    """The cluster, when every topic is there and has its shape.

    Raises TopicError naming every problem and what mends it, and BrokerError when no broker answers.
    """
    cluster = reach(settings.client_properties())
    specs = topic_specs(settings, cluster.partitions.get(settings.topics.events))
    missing = [f"{spec.name} ({spec.role})" for spec in specs if spec.name not in cluster.partitions]
    told = [f"missing topics: {', '.join(missing)}. Create them: driftline topics create"] if missing else []
    told += [problem for spec in specs if (problem := _miscounted(spec, cluster, settings))]
    if not cluster.embedded:  # it compacts nothing, and does not answer when asked
        there = [spec for spec in specs if spec.name in cluster.partitions]
        told += _not_compacted(settings, [spec for spec in there if spec.compacted])
    if told:
        raise TopicError("\n".join(told))
    return cluster


def _miscounted(spec: TopicSpec, cluster: Cluster, settings: Settings) -> str | None:
    there = cluster.partitions.get(spec.name, spec.partitions)
    if spec.role in _CO_PARTITIONED and there != spec.partitions:
        return (
            f"topic {spec.name} ({spec.role}) has {there} partitions, and {settings.topics.events} has "
            f"{spec.partitions}: they must be equal. Name a new topic and create it: "
            f"driftline topics create --set topics.{spec.role}={spec.name}.{spec.partitions}p (and set the same "
            f"for the workers), or delete {spec.name}, with all it holds, and run driftline topics create"
        )
    return None


def _not_compacted(settings: Settings, specs: list[TopicSpec]) -> list[str]:
    if not specs:
        return []
    admin = AdminClient(settings.client_properties())
    asked = {ConfigResource(ResourceType.TOPIC, spec.name): spec for spec in specs}
    answers = admin.describe_configs(list(asked), request_timeout=_REQUEST_TIMEOUT_S)
    problems = []
    for resource, answer in answers.items():
        name = asked[resource].name
        try:
            policy = answer.result()["cleanup.policy"].value
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_AUTHORIZATION_FAILED:
                raise BrokerError(f"the broker did not tell the settings of {name}: {_told(error)}.") from None
            log.warning("not allowed to see whether %s is compacted; see to it yourself", name)
            continue
        if policy != "compact":
            problems.append(
                f"topic {name} ({asked[resource].role}) is not only compacted (cleanup.policy={policy}): it would "
                "lose what is older than its retention. Set it: driftline topics create --mend"
            )
    return problems


def _create(admin: AdminClient, specs: list[TopicSpec], settings: Settings) -> list[TopicSpec]:
    """Creates them, and returns those that were not there: the broker may know of one that it did not tell yet."""
    if not specs:
        return []
    created = {spec.name: spec for spec in specs}
    copies = settings.topics.replication_factor
    # An event is taken when all copies but one have it: one broker may be away.
    durable = {"min.insync.replicas": str(max(1, copies - 1))}
    wanted = [
        NewTopic(
            spec.name,
            num_partitions=spec.partitions,
            replication_factor=copies,
            config={**durable, **spec.config},
        )
        for spec in specs
    ]
    answers = admin.create_topics(wanted, operation_timeout=_REQUEST_TIMEOUT_S, request_timeout=_REQUEST_TIMEOUT_S)
    for name, answer in answers.items():
        try:
            answer.result()
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                del created[name]
            else:
                raise BrokerError(
                    f"the broker did not create topic {name}: {_told(error)}. Mend that (rights, "
                    "topics.replication_factor above the number of brokers) and run it again."
                ) from None
    return list(created.values())


def _mend(admin: AdminClient, specs: list[TopicSpec]) -> None:
    """Sets what belongs to the kind of each; how many copies must be in sync stays as its owner has it."""
    resources = [
        ConfigResource(
            ResourceType.TOPIC,
            spec.name,
            incremental_configs=[
                ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
                for name, value in spec.config.items()
            ],
        )
        for spec in specs
    ]
    answers = admin.incremental_alter_configs(resources, request_timeout=_REQUEST_TIMEOUT_S) if resources else {}
    for resource, answer in answers.items():
        try:
            answer.result()
        except KafkaException as error:
            raise BrokerError(f"the broker did not change topic {resource.name}: {_told(error)}.") from None


def _settle(settings: Settings, specs: list[TopicSpec]) -> None:
    """Until the broker tells of what its controller has just done, a fraction of a second later."""
    names = {spec.name for spec in specs}
    compacted = [spec for spec in specs if spec.compacted]
    deadline = time.monotonic() + _REQUEST_TIMEOUT_S
    while time.monotonic() < deadline:
        known = reach(settings.client_properties()).partitions
        if names <= known.keys() and not _not_compacted(settings, compacted):
            return
        time.sleep(0.05)
    raise BrokerError(f"the broker has not made the topics within {_REQUEST_TIMEOUT_S:g} s. Run it again.")


def _create_embedded(settings: Settings, specs: list[TopicSpec]) -> None:
    """In the embedded broker's own process any count; from another, by asking for the topic, 4 only."""
    broker = EmbeddedBroker.running_here(settings.kafka.bootstrap_servers)
    if broker is not None:
        for spec in specs:
            broker.create_topic(spec.name, spec.partitions)
        return
    other = [spec for spec in specs if spec.partitions != DEFAULT_PARTITIONS]
    if other:
        raise TopicError(
            f"the embedded broker gives a topic {DEFAULT_PARTITIONS} partitions when asked from another process, "
            f"and {other[0].name} is to have {other[0].partitions}. Start it with these settings "
            f"(`driftline broker embedded` creates them all), or add --set topics.partitions={DEFAULT_PARTITIONS}."
        )
    admin = AdminClient(settings.client_properties())
    for spec in specs:
        admin.list_topics(spec.name, timeout=_REQUEST_TIMEOUT_S)


def _told(error: KafkaException) -> str:
    return str(error.args[0].str())
