"""The embedded broker: librdkafka's own mock broker, in this process; nothing to install.

Its limits: memory only, gone with the process; no compaction; transactions are not isolated and old
producers not fenced, so one worker at most (`claim_embedded`) and no word about exactly-once. Topics can be
created only from this process; one created by being asked for, from another, gets DEFAULT_PARTITIONS.

confluent-kafka starts the mock broker (`test.mock.num.brokers`) but offers none of its calls, so we call the
library that it brings, by rdkafka_mock.h.
"""

import ctypes
import fcntl
import os
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from confluent_kafka import cimpl

from stream.brokers.base import Broker
from stream.brokers.cluster import Cluster
from stream.errors import BrokerError, RefusedError

# What librdkafka gives a topic that is created by being asked for.
DEFAULT_PARTITIONS = 4

_VISIT_AFTER_S = 0.01
_PRODUCER = 0  # rd_kafka_type_t
_TOPIC_EXISTS = 36  # RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS


class EmbeddedBroker(Broker):
    """One embedded broker on a loopback port that the system chooses.

    topics: topic -> partition count, created at once; more by `create_topic`.
    """

    _running: ClassVar[dict[str, "EmbeddedBroker"]] = {}

    def __init__(self, topics: Mapping[str, int] | None = None) -> None:
        self._library = _library()
        self._lock = threading.Lock()
        message = ctypes.create_string_buffer(512)
        conf = self._library.rd_kafka_conf_new()
        # Its client half connects to nothing; without this it says so on stderr.
        self._library.rd_kafka_conf_set(conf, b"log_level", b"2", message, len(message))
        self._client = self._library.rd_kafka_new(_PRODUCER, conf, message, len(message))
        self._cluster = self._library.rd_kafka_mock_cluster_new(self._client, 1) if self._client else None
        if not self._cluster:
            raise BrokerError(f"the embedded broker did not start: {message.value.decode()}. Use a real Kafka.")
        self.bootstrap_servers = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
        # A worker is the only member of its group: nothing to wait for (3 s otherwise).
        self._library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 0)
        EmbeddedBroker._running[self.bootstrap_servers] = self
        for name, partitions in (topics or {}).items():
            self.create_topic(name, partitions)

    @classmethod
    def running_here(cls, bootstrap_servers: str) -> "EmbeddedBroker | None":
        """The embedded broker of this process at that address, if there is one."""
        return cls._running.get(bootstrap_servers)

    def create_topic(self, name: str, partitions: int) -> bool:
        """Creates a topic; False when there is one of that name already. Raises BrokerError."""
        with self._lock:
            if not self._cluster:
                raise BrokerError("the embedded broker has stopped. Start another.")
            # The broker's thread misses one wake-up in some ten, and then looks only after a second: a visitor
            # at its port wakes it. (Our wait for it lets other threads run.)
            visitor = threading.Timer(_VISIT_AFTER_S, self._visit)
            visitor.start()
            code = self._library.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1)
            visitor.cancel()
            visitor.join()
        if code not in (0, _TOPIC_EXISTS):
            raise BrokerError(f"the embedded broker cannot create topic {name!r} (error {code}).")
        return bool(code == 0)

    def _visit(self) -> None:
        host, _, port = self.bootstrap_servers.partition(":")
        with socket.socket() as visitor:
            visitor.connect_ex((host, int(port)))

    def stop(self) -> None:
        """Ends the broker; all it held is gone."""
        with self._lock:
            if self._cluster:
                EmbeddedBroker._running.pop(self.bootstrap_servers, None)
                self._library.rd_kafka_mock_cluster_destroy(self._cluster)
                self._library.rd_kafka_destroy(self._client)
                self._cluster = None


def _library() -> ctypes.CDLL:
    """librdkafka as confluent-kafka loaded it: a symbol is looked up in what the extension links to."""
    library = ctypes.CDLL(cimpl.__file__)
    pointer, text, number, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_size_t
    try:
        for name, result, arguments in (
            ("rd_kafka_conf_new", pointer, []),
            ("rd_kafka_conf_set", number, [pointer, text, text, text, size]),
            ("rd_kafka_new", pointer, [number, pointer, text, size]),
            ("rd_kafka_destroy", None, [pointer]),
            ("rd_kafka_mock_cluster_new", pointer, [pointer, number]),
            ("rd_kafka_mock_cluster_destroy", None, [pointer]),
            ("rd_kafka_mock_cluster_bootstraps", text, [pointer]),
            ("rd_kafka_mock_topic_create", number, [pointer, text, number, number]),
            ("rd_kafka_mock_group_initial_rebalance_delay_ms", None, [pointer, ctypes.c_int32]),
        ):
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except AttributeError as error:
        raise BrokerError(
            f"this build of librdkafka has no embedded broker ({error}). Install confluent-kafka from its wheel, "
            "or use a real Kafka."
        ) from None
    return library


@contextmanager
def claim_embedded(cluster: Cluster) -> Iterator[None]:
    """Holds the one place for a worker on an embedded broker, until left or the process dies.

    Does nothing on a real Kafka. Raises RefusedError when another worker holds the place.
    """
    if not cluster.embedded:
        yield
        return
    address = cluster.brokers[0]
    path = Path(tempfile.gettempdir()) / f"driftline-{cluster.cluster_id}-{address.rpartition(':')[2]}.lock"
    refused = RefusedError(
        f"another worker is on the embedded broker at {address}. It takes one only: its transactions "
        "are not isolated, so two would double lists and counts. Stop the other, or use a real Kafka "
        "(`driftline broker kafka`, or docker compose up)."
    )
    try:
        held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except PermissionError:
        raise refused from None  # another user's
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            gone = os.fstat(held).st_nlink == 0  # its last holder removed it between our open and our lock
        except BlockingIOError:
            raise refused from None
        if gone:
            raise refused
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(held)
