"""Is this machine ready to run a worker? Each check says what it found and, where needed, what to do."""

import os
import resource
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import confluent_kafka
from confluent_kafka import Consumer, KafkaException, TopicPartition

from model.errors import ModelError
from state.errors import DriftlineError
from stream.brokers import Cluster, reach
from stream.settings import Settings
from stream.topics import check_topics

Status = Literal["ok", "warn", "fail"]

_PYTHON = (3, 11)
_LIBRDKAFKA = (2, 12, 0)  # what the engine was measured and tested with
_GIB = 1024**3
# 200,000 users take 0.4 GiB; compaction of the store needs as much again.
_DISK_FAIL_BYTES, _DISK_WARN_BYTES = _GIB // 2, 4 * _GIB
# RocksDB keeps some tens of files open for each partition.
_OPEN_FILES = 4096
_ASK_S = 10.0


@dataclass(frozen=True)
class Check:
    """One finding. todo: what to do; empty where all is well."""

    name: str
    status: Status
    found: str
    todo: str = ""


def examine(settings: Settings) -> Iterator[Check]:
    """All checks, one after the other, as they are done."""
    yield _versions()
    yield _client()
    cluster: Cluster | None = None
    try:
        cluster = reach(settings.client_properties())
    except DriftlineError as error:
        yield Check("broker", "fail", *_split(error))
    if cluster is not None:
        yield _broker(cluster)
        yield from _topics(settings)
        yield from _catalogue(settings, cluster)
    yield _model(settings)
    yield _data_folder(settings.worker.data_dir)
    yield _disk(settings.worker.data_dir)
    yield _port(settings.worker.web_host, settings.worker.web_port)
    yield _open_files()


def _versions() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < _PYTHON:
        return Check("Python", "fail", found, f"Use Python {'.'.join(map(str, _PYTHON))} or later.")
    return Check("Python", "ok", found)


def _client() -> Check:
    text, number = confluent_kafka.libversion()
    found = f"librdkafka {text}, confluent-kafka {version('confluent-kafka')}"
    # 0xMMmmrrff: major, minor, revision, pre-release
    if (number >> 24, number >> 16 & 0xFF, number >> 8 & 0xFF) < _LIBRDKAFKA:
        wanted = ".".join(map(str, _LIBRDKAFKA))
        return Check(
            "Kafka client", "fail", found, f"Use librdkafka {wanted} or later: pip install -U confluent-kafka."
        )
    return Check("Kafka client", "ok", found)


def _broker(cluster: Cluster) -> Check:
    found = f"{len(cluster.brokers)} at {', '.join(cluster.brokers)}, cluster {cluster.cluster_id}"
    if cluster.embedded:
        return Check(
            "broker", "warn", found, "The embedded broker: memory only, one worker, no exactly-once. Use a real Kafka."
        )
    return Check("broker", "ok", found)


def _topics(settings: Settings) -> Iterator[Check]:
    try:
        cluster = check_topics(settings)
    except DriftlineError as error:
        for problem in str(error).splitlines():
            yield Check("topics", "fail", *_split(problem))
        return
    partitions = cluster.partitions[settings.topics.events]
    yield Check("topics", "ok", f"all {len(settings.topics.names())}, {partitions} partitions")
    if partitions != settings.topics.partitions:
        yield Check(
            "partitions",
            "warn",
            f"{settings.topics.events} has {partitions}, topics.partitions says {settings.topics.partitions}",
            f"Set topics.partitions = {partitions}, so that new topics will fit.",
        )


def _catalogue(settings: Settings, cluster: Cluster) -> Iterator[Check]:
    topic = settings.topics.items
    if topic not in cluster.partitions:
        return  # said among the topics
    consumer = Consumer(settings.client_properties({"group.id": "driftline-items"}))  # never joined
    records = 0
    try:
        for number in range(cluster.partitions[topic]):
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=_ASK_S)
            records += high - low
    except KafkaException as error:
        yield Check(
            "catalogue", "fail", f"{topic}: {error.args[0].str()}", "See to the broker, or to the right to read it."
        )
        return
    finally:
        consumer.close()
    if not records and settings.ranking.listed_only:
        yield Check(
            "catalogue",
            "fail",
            f"{topic} is empty, and ranking.listed_only leaves out what it does not hold: all lists are empty",
            "Send the items (driftline produce --items FILE), or set ranking.listed_only=false.",
        )
    else:
        yield Check("catalogue", "ok", f"{records} records on {topic}" if records else f"none: {topic} is empty")


def _model(settings: Settings) -> Check:
    if not settings.model.path:
        return Check(
            "model", "fail", "model.path is not set", "Train one: driftline train DATA --out DIR, then --model DIR."
        )
    from model.artifact import load_artifact  # late: torch

    try:
        artifact = load_artifact(Path(settings.model.path))
    except ModelError as error:
        return Check("model", "fail", *_split(error))
    return Check("model", "ok", f"{artifact.name} {artifact.version}, {len(artifact.item_ids)} items")


def _data_folder(folder: Path) -> Check:
    try:
        with tempfile.TemporaryFile(dir=_there(folder)):
            pass
    except OSError as error:
        return Check(
            "data folder", "fail", f"{folder.absolute()}: {error.strerror}", "Give one that can be written: --data-dir."
        )
    return Check("data folder", "ok", str(folder.absolute()))


def _there(folder: Path) -> Path:
    """The folder, or where it would be made."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def _disk(folder: Path) -> Check:
    free_bytes = shutil.disk_usage(_there(folder)).free
    found = f"{free_bytes / _GIB:.1f} GiB free"
    if free_bytes < _DISK_WARN_BYTES:
        status: Status = "fail" if free_bytes < _DISK_FAIL_BYTES else "warn"
        return Check("disk", status, found, "Make room: a user takes about 2 KiB, and compaction as much again.")
    return Check("disk", "ok", found)


def _port(host: str, port: int) -> Check:
    if not port:
        return Check("web port", "ok", "none wanted")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return Check(
            "web port",
            "warn",
            f"{host}:{port}: {error.strerror}",
            "A worker here already? Give each its own: --web-port (0 for none).",
        )
    return Check("web port", "ok", f"{host}:{port} is free")


def _open_files() -> Check:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _OPEN_FILES:
        return Check("open files", "warn", f"{soft} at most", f"Raise it: ulimit -n {_OPEN_FILES}.")
    return Check("open files", "ok", f"{soft} at most, on {os.cpu_count()} cores")


def _split(error: DriftlineError | str) -> tuple[str, str]:
    """An error's text as what was found and what to do: its first sentence and the rest."""
    found, _, todo = str(error).partition(". ")
    return (found, todo) if todo else (str(error), "See the message.")
