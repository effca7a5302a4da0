"""Faust's consumer on librdkafka: a `Cycle` for each chunk topic, a `PlainReader` for all others.

Each of them has one thread that owns its Kafka consumer; agents run in the event loop. `_turn` is held by whoever
has chunks in flight or tells Faust of a rebalance: Faust empties its queues then, and a chunk in a queue would
never be reported.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from confluent_kafka import KafkaException, Message
from faust.exceptions import ConsumerNotStarted, ImproperlyConfigured
from faust.transport import base
from faust.types import TP, ConsumerMessage
from mode import Service

from state.store import RocksStore, Store, remove_abandoned
from stream.engine.chunk import Chunk, ChunkTopic
from stream.engine.cycle import Cycle, Partition
from stream.engine.options import EngineOptions
from stream.engine.plain import PlainReader
from stream.engine.watch import STALLED_S, Watch
from stream.errors import EngineError

logger = logging.getLogger(__name__)

T = TypeVar("T")
_PLAIN_WAIT_S = 0.05
# A cycle in hand commits within a second; orchestrators kill after 30 s by default.
_STOP_S = 25.0


def local_store(folder: Path, topic: str, number: int) -> Path:
    """Where a group's store of a partition is. folder: of the group, DATA_DIR/GROUP."""
    return folder / f"{topic}-{number}.db"


class _Thread:
    """One thread that owns one Kafka consumer: librdkafka's callbacks must find no second caller."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(1, name)

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, partial(function, *args))

    def end(self) -> None:
        self._executor.shutdown(wait=False)


class _Flight:
    """The chunks of one fetch while agents work on them."""

    def __init__(self) -> None:
        self.left = 0
        self.landed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def finished(self, _: Chunk) -> None:
        self.left -= 1
        if self.left == 0:
            self.end(True)

    def end(self, whole: bool) -> None:
        if not self.landed.done():
            self.landed.set_result(whole)


class Consumer(base.Consumer):
    """See the module."""

    logger = logger
    consumer_stopped_errors = (KafkaException,)

    def __post_init__(self) -> None:
        self.options: EngineOptions = getattr(self.app, "engine_options", EngineOptions())
        self.cycles: dict[str, Cycle] = {}
        self._drivers: list[asyncio.Task[None]] = []
        self._threads: dict[str, _Thread] = {}
        self._plain: PlainReader | None = None
        self._plain_thread = _Thread("driftline-plain")
        self._plain_seeks: set[TP] = set()
        self._turn = asyncio.Lock()
        self._flight: _Flight | None = None
        self._failed: BaseException | None = None
        self._told: set[TP] = set()
        self.watch: Watch | None = None

    # ------------------------------------------------------------------ life

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Faust's conductor names all topics of the app, at start and again when an agent brings another."""
        if self.app.client_only:
            return
        if self.app.tables:
            raise ImproperlyConfigured(
                "app.Table needs Faust's own assignor and recovery, which this transport replaces: keep state with "
                "ChunkTopic(changelog=...) and chunk.put."
            )
        chunk_topics = self._chunk_topics()
        for name, schema in chunk_topics.items():
            if name not in self.cycles:
                await self._start_cycle(name, schema)
        if self.watch is None and self.cycles:
            self.watch = Watch(self.cycles, self.options.client(self.transport.bootstrap_servers))
            self.watch.start()
        plain = set(topics) - set(chunk_topics)
        if plain:
            if self._plain is None:
                self._plain = PlainReader(f"{self.app.conf.id}.plain", self.transport.bootstrap_servers, self.options)
                self._drivers.append(asyncio.create_task(self._drive(self._drive_plain())))
            await self._plain_thread.call(self._plain.subscribe, plain)

    def _chunk_topics(self) -> dict[str, ChunkTopic]:
        found: dict[str, ChunkTopic] = {}
        for channel in self.app.topics:
            if isinstance(channel.schema, ChunkTopic):
                for name in channel.topics:
                    if name in found:
                        raise ImproperlyConfigured(
                            f"two agents read the chunk topic {name}; a chunk has one owner: use one agent."
                        )
                    found[name] = channel.schema
        return found

    async def _start_cycle(self, topic: str, schema: ChunkTopic) -> None:
        group = schema.group or f"{self.app.conf.id}.{topic}"
        data_dir = self.options.data_dir / self.app.conf.id

        def open_store(name: str, number: int) -> Store:
            return RocksStore(local_store(data_dir, name, number), purge_after_s=self.options.purge_after_s)

        def tidy(numbers: Iterable[int]) -> None:
            # Of this topic alone: what other cycles have open is not known here.
            mine = {f"{topic}-{number}.db" for number in numbers}
            others = {path.name for path in data_dir.glob("*.db") if path.name.rpartition("-")[0] != topic}
            for path in remove_abandoned(data_dir, mine | others):
                logger.info("removed the local store %s: another worker has had its partition for a day", path.name)

        cycle = Cycle(topic, schema.changelog, group, self.transport.bootstrap_servers, self.options, open_store, tidy)
        thread = _Thread(f"driftline-{topic}")
        await thread.call(cycle.open)
        self.cycles[topic], self._threads[topic] = cycle, thread
        self._drivers.append(asyncio.create_task(self._drive(self._drive_cycle(cycle, thread))))

    async def on_stop(self) -> None:
        """Let the cycles in hand commit, then leave the groups: partitions move on at once."""
        for cycle in self.cycles.values():
            cycle.stopping = True
        if self._drivers:
            _, late = await asyncio.wait(self._drivers, timeout=_STOP_S)
            if late:
                logger.critical(
                    "a cycle did not end within %.0f s; the process ends without it. Nothing of it counts: the next "
                    "owner reads its records again.",
                    _STOP_S,
                )
                os._exit(1)  # its thread cannot be interrupted, and Python would wait for it for ever
        if self.watch is not None:
            self.watch.stop()
        if self._plain is not None:
            if self._failed is None:
                await super().on_stop()  # commits the plain topics
            await self._plain_thread.call(self._plain.close)
        for topic, cycle in self.cycles.items():
            await self._threads[topic].call(cycle.close)
            self._threads[topic].end()
        self._plain_thread.end()

    async def on_task_error(self, exc: BaseException) -> None:
        """An agent raised. Nothing of its cycle was produced, so nothing is lost; the process ends."""
        await self._fail(exc)

    async def _fail(self, exc: BaseException) -> None:
        if self._failed is None:
            self._failed = exc
            if self._flight is not None:
                self._flight.end(False)
            logger.critical("the worker ends: %s", exc, exc_info=exc)
            asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(self.crash(exc)))

    @property
    def failure(self) -> BaseException | None:
        """What ended this consumer, for the exit code; None while all is well."""
        return self._failed

    @property
    def ready(self) -> bool:
        """Whether every group has been joined, its state recovered, and all cycles move."""
        return (
            self._going()
            and not self.app.rebalancing
            and bool(self.cycles)
            and all(cycle.joined for cycle in self.cycles.values())
            and (self.watch is None or self.watch.age_s() < STALLED_S)
        )

    def _going(self) -> bool:
        return not (self.should_stop or self.app.should_stop or self._failed is not None)

    async def _drive(self, loop: Any) -> None:
        try:
            await loop
        except (KafkaException, EngineError, OSError, RuntimeError) as exc:
            await self._fail(exc)
        except Exception as exc:
            await self._fail(exc)
            raise

    # ------------------------------------------------------------------ chunk topics

    async def _drive_cycle(self, cycle: Cycle, thread: _Thread) -> None:
        while self._going():
            runs = await thread.call(cycle.fetch)
            started_s = time.monotonic()
            chunks: list[Chunk] = []
            if runs or cycle.rebalanced:
                async with self._turn:
                    if cycle.rebalanced:
                        cycle.rebalanced = False
                        await self._tell_faust()
                    if runs:
                        chunks = await self._hand_out(runs)
            if chunks and self._failed is None:
                await thread.call(cycle.commit, chunks, time.monotonic() - started_s)
            elif runs and self._going():
                await thread.call(cycle.give_back, [partition for partition, _ in runs])

    async def _hand_out(self, runs: Sequence[tuple[Partition, list[Message]]]) -> list[Chunk]:
        """Give each run to the agent; the chunks when all came back, nothing when one did not."""
        flight = self._flight = _Flight()
        flight.left = len(runs)
        chunks = [Chunk(partition, records, flight.finished, None) for partition, records in runs[:-1]]
        chunks.append(Chunk(*runs[-1], flight.finished, chunks))
        generation = self.app.consumer_generation_id
        for chunk in chunks:
            if not (self.flow_active and self._going()):
                return []  # the app is stopping: Faust has closed its queues
            at, last = chunk.partition, chunk.records[-1]
            kind, timestamp_ms = last.timestamp()
            tp = TP(at.topic, at.number)
            await self.callback(
                ConsumerMessage(
                    at.topic,
                    at.number,
                    last.offset(),
                    timestamp_ms / 1000.0,
                    kind,
                    None,
                    None,
                    chunk,
                    None,
                    0,
                    0,
                    tp,
                    generation_id=generation,
                )
            )
        return chunks if await flight.landed else []

    def stop_flow(self) -> None:
        """Faust stops the flow at a rebalance (no chunk is in flight then) and when the app stops."""
        super().stop_flow()
        if self._flight is not None:
            self._flight.end(False)

    async def _tell_faust(self) -> None:
        """Faust's own rebalance: conductor, agents, tables (there are none), then its flow opens again.
        The caller holds `_turn`."""
        assigned = self.assignment()
        gone = self._told - assigned
        self._told = set(assigned)
        self.app.on_rebalance_start()
        await self.on_partitions_revoked(gone)
        self.app.consumer_generation_id += 1
        self.stop_flow()
        await self.on_partitions_assigned(set(assigned), self.app.consumer_generation_id)
        await self.wait(self.can_resume_flow)

    # ------------------------------------------------------------------ ordinary topics

    async def _drive_plain(self) -> None:
        assert self._plain is not None
        plain, call = self._plain, self._plain_thread.call
        while self._going():
            records = await call(plain.fetch, _PLAIN_WAIT_S)
            if plain.rebalanced:
                async with self._turn:
                    plain.rebalanced = False
                    # Faust empties its queues: what was delivered before comes again, from the commit on.
                    again = set(self._plain_seeks)
                    await self._tell_faust()
                records = [(tp, m) for tp, m in records if tp not in again and tp in plain.assignment]
            for tp, message in records:
                if not self._going():
                    return
                if tp.topic != self.app.conf.reply_to:  # a reply that comes twice crashes Faust's ReplyConsumer
                    self._plain_seeks.add(tp)
                await self.wait_first(self.callback(self._to_message(tp, message)), self.suspend_flow.wait())

    def _to_message(self, tp: TP, record: Message) -> ConsumerMessage:
        key, value = record.key(), record.value()
        kind, timestamp_ms = record.timestamp()
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            record.offset(),
            timestamp_ms / 1000.0,
            kind,
            record.headers() or [],
            key,
            value,
            None,
            len(key or b""),
            len(value or b""),
            tp,
            generation_id=self.app.consumer_generation_id,
        )

    async def perform_seek(self) -> None:
        """After a rebalance Faust has dropped what its queues held: read it again from the commit."""
        for tp, offset in (await self.seek_to_committed()).items():
            if offset is not None:
                self._committed_offset[tp] = offset

    async def seek_to_committed(self) -> Mapping[TP, int | None]:
        """Ordinary topics only: the ledger owns the position of a chunk topic."""
        if self._plain is None:
            return {}
        seeks, self._plain_seeks = self._plain_seeks, set()
        return await self._plain_thread.call(self._plain.seek_to_committed, seeks)

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        mine = {tp: offset for tp, offset in offsets.items() if tp.topic not in self.cycles}
        if self._plain is None or not mine:
            return False
        return await self._plain_thread.call(self._plain.commit, mine)

    # ------------------------------------------------------------------ what Faust asks besides

    def assignment(self) -> set[TP]:
        """Assigned partitions of chunk and ordinary topics; none before the first rebalance."""
        chunk = {TP(topic, number) for topic, cycle in self.cycles.items() for number in cycle.assignment}
        return chunk | set(self._plain.assignment if self._plain is not None else ())

    def highwater(self, tp: TP) -> int:
        """End of the partition as last seen; no request."""
        cycle = self.cycles.get(tp.topic)
        if cycle is not None:
            return cycle.watermarks(tp.partition)[1]
        return self._reader().watermarks(tp, cached=True)[1]

    def _reader(self) -> PlainReader:
        if self._plain is None:
            raise ConsumerNotStarted("no ordinary topic is subscribed")
        return self._plain

    def topic_partitions(self, topic: str) -> int | None:  # noqa: ARG002 - Faust's signature
        """Not known: only tables and routes ask, which this transport refuses."""
        return None

    def key_partition(self, topic: str, key: bytes | None, partition: int | None = None) -> int | None:
        """Partition a record with `key` goes to."""
        if partition is not None or key is None:
            return partition
        return self.app.producer.key_partition(topic, key).partition

    async def position(self, tp: TP) -> int | None:
        """Next offset to read."""
        cycle = self.cycles.get(tp.topic)
        if cycle is not None:
            return cycle.expected(tp.partition)
        return await self._plain_thread.call(self._reader().position, tp)

    async def earliest_offsets(self, *tps: TP) -> Mapping[TP, int]:
        """Low watermark of each partition."""
        return {tp: (await self._watermarks(tp))[0] for tp in tps}

    async def highwaters(self, *tps: TP) -> Mapping[TP, int]:
        """High watermark of each partition."""
        return {tp: (await self._watermarks(tp))[1] for tp in tps}

    async def _watermarks(self, tp: TP) -> tuple[int, int]:
        cycle = self.cycles.get(tp.topic)
        if cycle is not None:
            return cycle.watermarks(tp.partition)
        return await self._plain_thread.call(partial(self._reader().watermarks, tp, cached=False))

    async def _seek(self, partition: TP, offset: int) -> None:
        if partition.topic in self.cycles:
            raise ImproperlyConfigured(
                "the ledger owns the position of a chunk topic: reset its group's offsets instead"
            )
        await self._plain_thread.call(self._reader().seek, partition, offset)

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """Seek several partitions."""
        for tp, offset in partitions.items():
            await self._seek(tp, offset)

    def _new_topicpartition(self, topic: str, partition: int) -> TP:
        return TP(topic, partition)

    async def _getmany(self, *_: Any, **__: Any) -> Any:
        raise ImproperlyConfigured("this transport fetches by itself: nothing may call Faust's getmany")

    async def create_topic(self, topic: str, partitions: int, replication: int, **options: Any) -> None:
        """Create a topic that an agent declares."""
        await self.app.producer.create_topic(topic, partitions, replication, **options)

    def close(self) -> None:
        """Nothing beyond on_stop."""


class Fetcher(Service):
    """Faust starts this after recovery and stops it at a rebalance; the drivers above do the fetching."""

    def __init__(self, app: Any, **options: Any) -> None:
        self.app = app
        super().__init__(**options)
