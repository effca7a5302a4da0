"""The heart of the engine: fetch, hand out, commit, again and again, for one chunk topic.

        fetch ──> one chunk a partition ──> agent collects puts and sends ──> commit ──> store
          ^        (Faust event)             (event loop)                       │
          └─────────────────────── cycle thread ────────────────────────────────┘

One thread owns the consumer and calls everything here, rebalance callbacks included. No chunk is in flight while
it polls, so a rebalance never meets one. A commit is one Kafka transaction: changelog records, lists, and the
source offsets with the consumer group's metadata, so that a member of an older generation (a zombie) is fenced.

    error at commit          what happens
    abortable                abort, forget what was collected, seek every partition back to its ledger (about one
                             a rebalance)
    retriable                the same call again
    fatal, fenced            EngineError: the process ends with a non-zero code and is started again
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from state.store import Store
from stream.engine.asking import patiently, watermarks
from stream.engine.chunk import Chunk
from stream.engine.ledger import Ledger, Verdict
from stream.engine.options import EngineOptions
from stream.engine.recovery import recover
from stream.errors import EngineError

logger = logging.getLogger(__name__)

_ASK_S = 30.0
# One producer's next transaction waits until the markers of its last one are written; two that take turns make a
# cycle of 5 ms out of one of 9 (ENGINE: two transactional producers in turn).
_PRODUCERS = 2
# From here on a cycle's fixed cost is worth sharing: above some thousand events a second.
_BUSY_RECORDS = 256
# How long one call may be retried: twice the time after which the broker aborts a transaction by itself.
_RETRY_S = 60.0
_RETRY_PAUSE_S = 0.05
# The first time so long after the start, when the partitions that come back have come back.
_TIDY_EVERY_S = 3_600.0
# An abort is normal at a rebalance. So many in a row without one commit between them are no rebalance.
_MAX_ABORTS_IN_A_ROW = 20
UNFINISHED_OFFSET = 2**62
"""A group's offsets while its changelog is being written from history: no worker may start. See
stream.replay.backfill."""


class Partition:
    """One assigned partition of the chunk topic: its ledger, its store, and what the agent remembers of it."""

    __slots__ = ("alive", "changelog", "changelog_end", "ledger", "memo", "number", "store", "topic")

    def __init__(
        self,
        topic: str,
        number: int,
        changelog: str | None,
        store: Store,
        expected: int,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        """`alive`: to be called now and then by work on a chunk that takes many seconds, so that it is no stall."""
        self.alive = alive
        self.topic = topic
        self.number = number
        self.changelog = changelog
        self.store = store
        self.ledger = Ledger(expected)
        self.memo: dict[str, Any] = {}
        self.changelog_end: int | None = None

    def delivered(self, error: KafkaError | None, message: Message) -> None:
        """Delivery report of the last changelog record of a chunk: where recovery would go on after it."""
        if error is None:
            self.changelog_end = message.offset() + 1


def linger_ms(records_last_cycle: int, seconds_last_cycle: float, longest_ms: int) -> float:
    """How long a fetch waits for company after its first record.

    Up to a few hundred records in the last cycle: not at all, latency is all. Busy: as long as the last cycle took, at
    most `longest_ms`: a cycle's fixed cost (some ms of CPU, and a produce request for each partition and topic in it)
    is shared by more records, and an event waits at most twice what it would have waited.
    """
    if records_last_cycle < _BUSY_RECORDS:
        return 0.0
    return min(seconds_last_cycle * 1000.0, float(longest_ms))


class Cycle:
    """Fetch and commit for one chunk topic. All methods are for the one thread that owns it, but `assignment`,
    `rebalanced` and the figures, which anyone may read."""

    def __init__(
        self,
        topic: str,
        changelog: str | None,
        group: str,
        bootstrap_servers: str,
        options: EngineOptions,
        open_store: Callable[[str, int], Store],
        tidy: Callable[[Iterable[int]], None] = lambda _: None,
    ) -> None:
        """`tidy`: removes what is left of partitions that are not among the given ones; called now and then."""
        self.topic = topic
        self.changelog = changelog
        self.group = group
        self._options = options
        self._client = options.client(bootstrap_servers, **{"client.id": f"{group}-{os.getpid()}"})
        self._open_store = open_store
        self._tidy = tidy
        self._tidy_at_s = time.monotonic() + _TIDY_EVERY_S
        self._consumer: Consumer | None = None
        self._producers: list[Producer] = []
        self._turn = 0
        self._partitions: dict[int, Partition] = {}
        self._aborts_in_a_row = 0
        self._last = (0, 0.0)  # records and seconds of the last cycle, for linger_ms
        self._failed: Exception | None = None  # of a rebalance: the client may lose it
        self.assignment: frozenset[int] = frozenset()
        self.rebalanced = False
        """Set by a rebalance; whoever tells Faust clears it."""
        self.joined = False
        """Whether the group has given this member an assignment, be it an empty one."""
        self.stopping = False
        """Set from outside: recovery ends early, for nothing will be processed any more."""
        self.alive_s = time.monotonic()
        """When this cycle last made progress; an old time is a stall."""
        self.counts: Counter[str] = Counter()
        """records, cycles, chunks, aborts, missing_offsets, retention_lost_offsets, trimmed_records,
        recovered_records"""
        self.recovery_remaining_records = 0
        self.cpu_s: dict[str, float] = dict.fromkeys(("consume", "produce", "commit", "store"), 0.0)
        """CPU seconds of this thread by part: consume, produce, commit, store."""

    # ------------------------------------------------------------------ life

    def open(self) -> None:
        """Connect and join the group.

        Raises:
            KafkaException: the broker refuses or does not answer in time.
        """
        options = self._options
        self._consumer = Consumer(
            {
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": options.session_timeout_ms,
                "heartbeat.interval.ms": options.heartbeat_interval_ms,
                "max.poll.interval.ms": options.max_poll_interval_ms,
                "fetch.wait.max.ms": 10,
                # A full queue stops fetching for so long; the default, 1 s, may be longer than the queue lasts.
                "fetch.queue.backoff.ms": 20,
                "queued.min.messages": 20_000,
                **self._client,
                "group.id": self.group,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": options.auto_offset_reset,
                "isolation.level": "read_committed",
            }
        )
        name = f"{self.group}-{self.topic}-{uuid.uuid4()}"
        for index in range(_PRODUCERS if options.transactional else 1):
            transactional = {
                "transactional.id": f"{name}-{index}",
                "transaction.timeout.ms": options.transaction_timeout_ms,
            }
            producer = Producer(
                {
                    "linger.ms": 2,
                    "retry.backoff.ms": 5,
                    "batch.num.messages": 10_000,
                    "queue.buffering.max.messages": 500_000,
                    # A dead letter carries its record's bytes unchanged: the topic decides what is too large.
                    "message.max.bytes": 64 << 20,
                    "partitioner": "murmur2_random",
                    "enable.idempotence": True,
                    **self._client,
                    **(transactional if options.transactional else {}),
                }
            )
            if options.transactional:
                producer.init_transactions(_ASK_S)
            self._producers.append(producer)
        self._consumer.subscribe(
            [self.topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
        )

    def close(self) -> None:
        """Leave the group and close the stores; what was not committed is left for the next owner."""
        consumer, self._consumer = self._consumer, None  # first out of sight: a closing consumer must not be asked
        if consumer is not None:
            consumer.close()  # serves on_revoke, which closes the stores
        self._drop(list(self._partitions))
        self._producers.clear()

    @property
    def _rd(self) -> Consumer:
        assert self._consumer is not None, "the cycle was not opened"
        return self._consumer

    # ------------------------------------------------------------------ rebalance

    def _on_assign(self, consumer: Consumer, assigned: list[TopicPartition]) -> None:
        try:
            self._assign(consumer, assigned)
        except Exception as exc:
            self._failed = exc
            raise

    def _assign(self, consumer: Consumer, assigned: list[TopicPartition]) -> None:
        fresh: list[Partition] = []
        # read_committed asks for *stable* offsets: this waits until the last owner's transaction has ended.
        for position in patiently(lambda: consumer.committed(assigned, _ASK_S)) if assigned else []:
            if position.error is not None:
                raise KafkaException(position.error)
            expected = self._first_offset(consumer, position)
            fresh.append(
                Partition(
                    position.topic,
                    position.partition,
                    self.changelog,
                    self._open_store(position.topic, position.partition),
                    expected,
                    self._is_alive,
                )
            )
        if fresh and self.changelog is not None:
            self.counts["recovered_records"] += recover(
                fresh, self._client, self._tell_remaining, lambda: self.stopping
            )
        self._partitions.update((partition.number, partition) for partition in fresh)
        self._note_rebalance("assigned", [p.number for p in fresh])

    def _first_offset(self, consumer: Consumer, position: TopicPartition) -> int:
        """Where to begin: the group's committed offset, or what `auto_offset_reset` says where that is none."""
        low, high = watermarks(consumer, position.topic, position.partition)
        committed = int(position.offset)
        if 0 <= committed <= high:
            return committed
        if committed == UNFINISHED_OFFSET:
            raise EngineError(
                f"a backfill of the group {self.group} is not finished. Run it again (driftline replay ... --into "
                "state), then start the worker."
            )
        if committed > high:
            raise EngineError(
                f"the group {self.group} is at offset {committed} of {position.topic}[{position.partition}], which "
                f"ends at {high}: the topic was made anew or lost its end. If it was made anew, make the changelog and "
                "the lists anew too and use another --group; if it lost its end, reset the group's offset to that end."
            )
        return int(low if self._options.auto_offset_reset == "earliest" else high)

    def _on_revoke(self, _: Consumer, revoked: list[TopicPartition]) -> None:
        numbers = [position.partition for position in revoked]
        self._drop(numbers)
        self._note_rebalance("revoked", numbers)

    def _drop(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            partition = self._partitions.pop(number, None)
            if partition is not None:
                partition.store.close()

    def _note_rebalance(self, what: str, numbers: list[int]) -> None:
        self.assignment = frozenset(self._partitions)
        self.rebalanced = self.joined = True
        self.alive_s = time.monotonic()
        logger.info("rebalance topic=%s %s=%s now=%s", self.topic, what, sorted(numbers), sorted(self.assignment))

    def _tell_remaining(self, records: int) -> None:
        self.recovery_remaining_records = records
        self._is_alive()

    def _is_alive(self) -> None:
        self.alive_s = time.monotonic()

    # ------------------------------------------------------------------ fetch

    def fetch(self) -> list[tuple[Partition, list[Message]]]:
        """One run of records for each partition that has some; rebalances are served here.

        Raises:
            EngineError: the client reports a fatal error.
        """
        options = self._options
        self.alive_s = time.monotonic()
        if self.alive_s > self._tidy_at_s:
            self._tidy_at_s = self.alive_s + _TIDY_EVERY_S
            self._tidy(self.assignment)
        with self._spending("consume"):
            # consume(n, t) would wait out t: take the first record when it comes, then what is there.
            try:
                messages = self._rd.consume(1, options.idle_poll_ms / 1000.0)
            except SystemError as exc:  # two rebalances in one call: it says "NULL without setting an exception"
                raise self._failed or exc from exc
            if not messages:
                self._last = (0, 0.0)
                return []
            pause_ms = linger_ms(*self._last, options.linger_max_ms)
            if pause_ms:
                time.sleep(pause_ms / 1000.0)
            messages += self._rd.consume(options.max_cycle_records - 1, 0)
            runs: dict[int, list[Message]] = {}
            for message in messages:
                error = message.error()
                if error is None:
                    runs.setdefault(message.partition(), []).append(message)
                elif error.fatal():
                    raise EngineError(f"the consumer of {self.topic} cannot go on: {error}. Restart the worker.")
                else:
                    logger.warning("consumer of %s: %s", self.topic, error)
            admitted = []
            for number, run in runs.items():
                partition = self._partitions.get(number)
                if partition is not None and (run := self._admit(partition, run)):
                    admitted.append((partition, run))
            return admitted

    def _admit(self, partition: Partition, run: list[Message]) -> list[Message]:
        """The records of `run` that the ledger lets through."""
        ledger = partition.ledger
        first = run[0].offset()
        whole = run
        if run[-1].offset() - first != len(run) - 1:
            run = _ascending(run)
        verdict = ledger.judge(first)
        if len(run) < len(whole):
            ledger.rewound()  # what was cut off should come again: doubt the next run if it does not
        if verdict is Verdict.SEEK:
            logger.warning(
                "gap topic=%s partition=%d expected=%d got=%d: seeking back",
                partition.topic,
                partition.number,
                ledger.expected,
                first,
            )
            self._seek_back(partition)
            return []
        if verdict is Verdict.TRIM:
            return self._trim(partition, run)
        if first > ledger.expected:
            self._note_hole(partition, first)
        return run

    def _trim(self, partition: Partition, run: list[Message]) -> list[Message]:
        """The part of a run that was not taken before.

        Raises:
            EngineError: the log goes back behind what was read: these are other records under old offsets.
        """
        expected = partition.ledger.expected
        kept = [message for message in run if message.offset() >= expected]
        if not kept:
            _, high = self.watermarks(partition.number)
            if high < expected:
                raise EngineError(
                    f"{partition.topic}[{partition.number}] ends at {high}, before offset {expected}, which was read "
                    "already: the topic was made anew or lost its end. Restart the worker, which says what to do."
                )
        self.counts["trimmed_records"] += len(run) - len(kept)
        return kept

    def give_back(self, partitions: Sequence[Partition]) -> None:
        """Records that were fetched and not handed to an agent, or not finished by it: read them again."""
        for partition in partitions:
            partition.memo.clear()
            if self._partitions.get(partition.number) is partition:
                self._seek_back(partition)

    def _note_hole(self, partition: Partition, first: int) -> None:
        """Offsets that no record has: markers and compaction are normal, records gone before they were read not."""
        expected = partition.ledger.expected
        self.counts["missing_offsets"] += first - expected
        low, _ = self.watermarks(partition.number)
        if low > expected:
            self.counts["retention_lost_offsets"] += min(low, first) - expected
            logger.error(
                "retention removed offsets %d to %d of %s[%d] before they were read: events are lost. Raise the "
                "topic's retention.ms or retention.bytes, or add workers.",
                expected,
                min(low, first) - 1,
                partition.topic,
                partition.number,
            )

    def _seek_back(self, partition: Partition) -> None:
        partition.ledger.rewound()
        self._rd.seek(TopicPartition(partition.topic, partition.number, partition.ledger.expected))

    # ------------------------------------------------------------------ commit

    def commit(self, chunks: Sequence[Chunk], seconds: float = 0.0) -> bool:
        """Commit what the agent made of `chunks`, then write the stores.

        Args:
            chunks: all chunks of one fetch, each left without an exception.
            seconds: how long the cycle took so far, for the linger of the next fetch.

        Returns:
            False when the transaction was aborted: nothing happened, the records come again.

        Raises:
            EngineError: this process may not go on.
        """
        offsets = [TopicPartition(c.partition.topic, c.partition.number, c.records[-1].offset() + 1) for c in chunks]
        producer = self._producers[self._turn]
        self.alive_s = time.monotonic()
        try:
            self._transact(producer, chunks, offsets)
        except KafkaException as exc:
            self._roll_back(producer, chunks, exc)
            return False
        self._turn = (self._turn + 1) % len(self._producers)
        self._aborts_in_a_row = 0
        records = 0
        with self._spending("store"):
            for chunk, offset in zip(chunks, offsets, strict=True):
                partition = chunk.partition
                partition.ledger.committed(offset.offset)
                if chunk.puts:
                    partition.store.write(chunk.puts, partition.changelog_end)
                records += len(chunk.records)
        self.counts.update(records=records, chunks=len(chunks), cycles=1)
        self._last = (records, seconds)
        return True

    def _transact(self, producer: Producer, chunks: Sequence[Chunk], offsets: list[TopicPartition]) -> None:
        refused: list[EngineError] = []

        def failed(error: KafkaError | None, message: Message) -> None:
            if error is not None and error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
                refused.append(too_large(message))

        transactional = self._options.transactional
        with self._spending("produce"):
            if transactional:
                producer.begin_transaction()
            try:
                for chunk in chunks:
                    produce_chunk(producer, chunk, failed)
            except KafkaException as exc:
                if transactional and exc.args[0].code() == KafkaError._STATE:
                    # The transaction failed in the background; only its commit tells how, and whether to abort.
                    producer.commit_transaction(_ASK_S)
                raise
        try:
            with self._spending("commit"):
                if transactional:
                    metadata = self._rd.consumer_group_metadata()
                    retrying(producer.send_offsets_to_transaction, offsets, metadata, _ASK_S)
                    retrying(producer.commit_transaction, _ASK_S)
                else:
                    if producer.flush(_ASK_S):
                        raise EngineError("the broker did not take all records in time. Check that it is up.")
                    self._rd.commit(offsets=offsets, asynchronous=False)
        finally:
            if refused:
                raise refused[0]

    def _roll_back(self, producer: Producer, chunks: Sequence[Chunk], exc: KafkaException) -> None:
        error = exc.args[0]
        self._aborts_in_a_row += 1
        if error.fatal() or not error.txn_requires_abort():
            raise self._given_up(error) from exc
        if self._aborts_in_a_row >= _MAX_ABORTS_IN_A_ROW:
            raise EngineError(
                f"{self._aborts_in_a_row} transactions in a row were aborted on {self.topic}, the last by: {error}. "
                "Read the broker's log."
            ) from exc
        logger.warning("transaction aborted topic=%s: %s", self.topic, error)
        try:
            retrying(producer.abort_transaction, _ASK_S)
        except KafkaException as second:
            raise self._given_up(second.args[0]) from second
        self.counts["aborts"] += 1
        self.give_back([chunk.partition for chunk in chunks])  # stores and ledgers are untouched

    def _given_up(self, error: KafkaError) -> EngineError:
        return EngineError(
            f"the transaction on {self.topic} cannot go on: {error}. It ran into its timeout, another worker owns its "
            "partitions, or the cluster refuses it. Nothing of it counts; restart the worker, and read the broker's "
            "log if it comes again."
        )

    # ------------------------------------------------------------------ figures

    def watermarks(self, number: int) -> tuple[int, int]:
        """Low and high offset of a partition of the topic, as last seen by the client (no request)."""
        low, high = self._rd.get_watermark_offsets(TopicPartition(self.topic, number), cached=True)
        return max(low, 0), max(high, 0)

    def expected_offsets(self) -> dict[int, int]:
        """Offset of the next record to take of each assigned partition. For any thread."""
        return {number: partition.ledger.expected for number, partition in self._partitions.copy().items()}

    def expected(self, number: int) -> int:
        """Offset of the next record to take of an assigned partition."""
        return self._partitions[number].ledger.expected

    @contextmanager
    def _spending(self, part: str) -> Iterator[None]:
        started_s = time.thread_time()
        try:
            yield
        finally:
            self.cpu_s[part] += time.thread_time() - started_s


def _ascending(run: list[Message]) -> list[Message]:
    """`run` up to the first offset that goes backwards: what follows is from before a seek, and comes again."""
    for index in range(1, len(run)):
        if run[index].offset() <= run[index - 1].offset():
            return run[:index]
    return run


def produce_chunk(producer: Producer, chunk: Chunk, failed: Callable[[KafkaError | None, Message], None]) -> None:
    """Hand what the agent made of a chunk to a producer. failed: told of the fate of records that may be too large."""
    partition = chunk.partition
    partition.changelog_end = None
    number = partition.number
    changelog = partition.changelog
    if chunk.puts and changelog is None:
        raise EngineError(
            f"the agent of {partition.topic} stores values, but its topic names no changelog. "
            "Declare it with ChunkTopic(changelog=...)."
        )

    def last_delivered(error: KafkaError | None, message: Message) -> None:
        partition.delivered(error, message)
        failed(error, message)

    last = len(chunk.puts) - 1
    for index, (key, value) in enumerate(chunk.puts):
        if index == last:
            produce_one(producer, changelog, value, key, number, on_delivery=last_delivered)
        elif key[:1] == b"\0":  # the partition's own records, which may grow: watch their fate
            produce_one(producer, changelog, value, key, number, on_delivery=failed)
        else:
            produce_one(producer, changelog, value, key, number)
    for topic, sent, sent_key, to, headers in chunk.sends:
        if headers is None:
            produce_one(producer, topic, sent, sent_key, to)
        else:  # rare records, among them dead letters that may be large: watch their fate
            produce_one(producer, topic, sent, sent_key, to, headers=headers, on_delivery=failed)


def produce_one(producer: Producer, topic: str | None, value: Any, key: Any, number: int, **more: Any) -> None:
    """`Producer.produce`, however full its queue is."""
    while True:
        try:
            producer.produce(topic, value, key, number, **more)
            return
        except BufferError:  # the client's queue is full: let it send
            producer.poll(0.05)


def retrying(call: Callable[..., Any], *args: Any) -> Any:
    """The answer of a transactional call, made again while the broker asks for that.

    Raises:
        KafkaException: it asks for something else.
        EngineError: it does not stop asking.
    """
    end_s = time.monotonic() + _RETRY_S
    while True:
        try:
            return call(*args)
        except KafkaException as exc:
            error = exc.args[0]
            if not error.retriable() or error.txn_requires_abort():
                raise
            if time.monotonic() > end_s:
                raise EngineError(
                    f"the broker does not answer: {error}, again and again for {_RETRY_S:.0f} s. Nothing of this cycle "
                    "counts; check the brokers, and restart the worker."
                ) from exc
            logger.warning("again, after: %s", error)
            time.sleep(_RETRY_PAUSE_S)


def too_large(message: Message) -> EngineError:
    """The error of a record that the broker refused for its size."""
    size_bytes = len(message.value() or b"") + len(message.key() or b"")
    size_bytes += sum(len(name) + len(value or b"") for name, value in message.headers() or [])
    return EngineError(
        f"topic {message.topic()} refuses a record of {size_bytes} bytes. Raise its "
        "max.message.bytes above that of the events topic (driftline topics check names the settings)."
    )


__all__ = [
    "UNFINISHED_OFFSET",
    "Cycle",
    "Partition",
    "linger_ms",
    "produce_chunk",
    "produce_one",
    "retrying",
    "too_large",
]
