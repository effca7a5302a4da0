"""A replay beside the live topics: states in local stores, and all that is sent on topics of its own.

    driftline.recommendations.v1         the workers' lists
    driftline.recommendations.v1.shadow-NAME   the replay's; so with the changelog, late events, dead letters, ...

Each chunk is one Kafka transaction: its states and how far the replay has come (`process.Progress`) on the shadow
changelog, and what was sent. A replay that was killed brings its stores to the end of that changelog and goes on there,
so a reader of committed data sees each list once. Each partition has a producer with a transactional.id of its own:
whoever opens a partition fences who had it before, however the partitions were shared then.

The embedded broker isolates no transactions: there each chunk is a flush, and what a kill cuts off is sent again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient

from state.store import RocksStore
from stream.brokers import reach
from stream.engine import Chunk
from stream.engine.cycle import Partition, produce_chunk, retrying, too_large
from stream.engine.recovery import recover
from stream.errors import EngineError, RefusedError, ReplayError
from stream.replay.process import PROGRESS_KEY, Progress, encode_progress, read_progress, store_path
from stream.replay.work import Work
from stream.settings import Settings
from stream.topics import create_like

IDENTITY_KEY = b"\0replay-of"
"""In a store: which replay it belongs to. A user's key never begins with a zero byte."""
_WRITTEN = ("recommendations", "changelog", "rekey", "late", "dead_letters", "erasures", "features")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,60}")
_ASK_S = 30.0
_TRANSACTION_TIMEOUT_MS = 60_000
# A commit waits some ms for the broker; those of several partitions wait together.
_COMMITS_AT_ONCE = 8


def shadow_name(topic: str, name: str) -> str:
    """The topic that a shadow writes to in place of a live one. Raises RefusedError."""
    if not _NAME.fullmatch(name):
        raise RefusedError(f"--name {name}: a shadow's name has 1 to 60 of the characters a-z A-Z 0-9 _ -")
    found = f"{topic}.shadow-{name}"
    if len(found) > 249:
        raise RefusedError(f"the topic name {found} is longer than 249 characters: give a shorter --name.")
    return found


def shadow_topics(settings: Settings, name: str) -> dict[str, str]:
    """Role (recommendations, changelog, ...) -> topic, of all that a shadow writes to. Raises RefusedError."""
    live = settings.topics.names()
    return {role: shadow_name(live[role], name) for role in _WRITTEN if role in live}


def remove_shadow(settings: Settings, name: str) -> None:
    """Delete the topics of a shadow, with all they hold; returns when they are gone.

    Raises:
        RefusedError: the broker deletes no topics, or not these.
    """
    properties = settings.client_properties()
    mine = set(shadow_topics(settings, name).values())
    there = sorted(mine & reach(properties).partitions.keys())
    if not there:
        return
    admin = AdminClient(properties)
    for topic, answer in admin.delete_topics(there, operation_timeout=_ASK_S, request_timeout=_ASK_S).items():
        try:
            answer.result(_ASK_S)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise RefusedError(
                    f"topic {topic} was not deleted: {error.args[0].str()}. Delete it, or give another --name."
                ) from None
    end_s = time.monotonic() + _ASK_S
    while mine & reach(properties).partitions.keys():
        if time.monotonic() > end_s:
            raise RefusedError(f"the topics of shadow {name} are still there after {_ASK_S:g} s. Run it again.")
        time.sleep(0.1)


class ShadowTarget:
    """See the module; the protocol is process.Target.

    Args:
        settings: all settings, with the live topics' names.
        work: stores are WORK/stores/<partition>.db.
        name: of the shadow.
        partitions: of the replay, and so of the shadow's changelog and lists.

    Raises:
        RefusedError: no broker, or topics of that name with other partitions.
    """

    def __init__(self, settings: Settings, work: Path, name: str, partitions: int) -> None:
        self._settings, self._work, self._name = settings, work, name
        self._identity = Work(work).digest.encode()
        live = settings.topics.names()
        self._topics = {live[role]: topic for role, topic in shadow_topics(settings, name).items()}
        cluster = create_like(settings, self._topics, partitions)
        self._transactional = not cluster.embedded
        self._changelog = self._topics[settings.topics.changelog]
        self._stores: dict[int, RocksStore] = {}
        self._producers: dict[int, Producer] = {}
        self._committing = ThreadPoolExecutor(_COMMITS_AT_ONCE, "driftline-shadow")

    def open(self, number: int) -> Partition:
        """See Target."""
        settings = self._settings
        try:
            self._producers[number] = self._producer(number)
            store = self._stores[number] = RocksStore(store_path(self._work, number))
            partition = Partition(settings.topics.events, number, self._changelog, store, 0)
            recover([partition], settings.client_properties())
        except (KafkaException, EngineError) as error:
            raise _failed(error) from None
        (identity,) = store.get_many([IDENTITY_KEY])
        if identity not in (None, self._identity):
            raise ReplayError(
                f"{self._changelog} holds another replay: give another --name, or begin anew with --fresh, which "
                "deletes that one's topics."
            )
        if identity is None and store.position:
            store.wipe()  # of topics that are no more
        return partition

    def _producer(self, number: int) -> Producer:
        more = {
            "transactional.id": f"driftline-{self._changelog}-{number}",
            "transaction.timeout.ms": _TRANSACTION_TIMEOUT_MS,
        }
        producer = Producer(
            self._settings.client_properties(
                {
                    "linger.ms": 2,
                    "retry.backoff.ms": 5,
                    "batch.num.messages": 10_000,
                    "message.max.bytes": 64 << 20,  # as the engine's: the topic decides what is too large
                    "partitioner": "murmur2_random",
                    "enable.idempotence": True,
                    **(more if self._transactional else {}),
                }
            )
        )
        if self._transactional:
            retrying(producer.init_transactions, _ASK_S)
        return producer

    def progress(self, number: int) -> Progress:
        """See Target."""
        return read_progress(self._stores[number])

    def commit(self, chunks: Sequence[Chunk], progress: Mapping[int, Progress]) -> None:
        """See Target."""
        for _ in self._committing.map(partial(self._commit, progress=progress), chunks):
            pass

    def _commit(self, chunk: Chunk, progress: Mapping[int, Progress]) -> None:
        partition = chunk.partition
        number = partition.number
        chunk.puts += [(IDENTITY_KEY, self._identity), (PROGRESS_KEY, encode_progress(progress[number]))]
        chunk.sends = [(self._topics[topic], *rest) for topic, *rest in chunk.sends]  # type: ignore[misc]
        refused: list[EngineError] = []

        def failed(error: KafkaError | None, message: Message) -> None:
            if error is not None and error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
                refused.append(too_large(message))

        producer = self._producers[number]
        try:
            if self._transactional:
                producer.begin_transaction()
                produce_chunk(producer, chunk, failed)
                retrying(producer.commit_transaction, _ASK_S)
            else:
                produce_chunk(producer, chunk, failed)
                if producer.flush(_ASK_S):
                    raise EngineError("the broker did not take all records in time. Check that it is up.")
        except (KafkaException, EngineError) as error:
            raise _failed(refused[0] if refused else error) from None
        partition.store.write(chunk.puts, partition.changelog_end)

    def flush(self) -> None:
        """See Target: the changelog has it all."""

    def close(self) -> None:
        """See Target."""
        self._committing.shutdown()
        for store in self._stores.values():
            store.close()
        self._stores.clear()
        self._producers.clear()


def _failed(error: KafkaException | EngineError) -> ReplayError:
    told = error.args[0].str() if isinstance(error, KafkaException) else str(error)
    return ReplayError(
        f"the shadow topics cannot be written or read: {told}. Mend that (a process of an earlier run may still be "
        "there, too) and run it again: the replay goes on where it stopped."
    )
