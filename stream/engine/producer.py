"""Faust's producer on librdkafka: what timers, tasks, views and ordinary agents send.

Sends made inside an open chunk join the chunk's transaction instead.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import Producer as KafkaProducer
from confluent_kafka.admin import AdminClient, NewTopic
from faust.exceptions import ProducerSendError
from faust.streams import current_event
from faust.transport import base
from faust.types import TP, RecordMetadata
from mode.utils.times import want_seconds

from stream.engine.chunk import Chunk
from stream.engine.options import EngineOptions
from stream.engine.partitioner import partition_of
from stream.errors import EngineError

logger = logging.getLogger(__name__)

_ASK_S = 30.0
# Asked in the event loop, once a topic.
_LOOK_UP_S = 5.0
_POLL_EVERY_S = 0.002  # delivery reports wait in the client until someone polls


class Producer(base.Producer):
    """See the module."""

    logger = logger

    def __post_init__(self) -> None:
        self._rd: KafkaProducer | None = None
        self._polling = False
        self._partition_counts: dict[str, int] = {}

    def _client(self) -> dict[str, Any]:
        options: EngineOptions = getattr(self.app, "engine_options", EngineOptions())
        return options.client(self.transport.bootstrap_servers, **{"client.id": self.client_id})

    async def on_start(self) -> None:
        """Connects lazily; Faust's buffer for `send_soon` starts here."""
        await super().on_start()
        self._rd = KafkaProducer(
            {
                "enable.idempotence": True,
                "linger.ms": max(self.linger_ms, 1),
                "partitioner": "murmur2_random",
                **self._client(),
            }
        )

    async def on_stop(self) -> None:
        """Wait for what is still to be delivered."""
        await super().on_stop()
        await self.flush()

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: Any,
        *,
        transactional_id: str | None = None,  # noqa: ARG002 - Faust's signature
    ) -> Awaitable[RecordMetadata]:
        """See faust.Producer. The future ends when the record is acknowledged; inside a chunk at once, with
        offset -1, since the offset is not known before the commit."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[RecordMetadata] = loop.create_future()
        pairs = list(headers.items()) if isinstance(headers, Mapping) else list(headers or [])
        number = -1 if partition is None else partition
        event = current_event()
        chunk = event.value if event is not None else None
        if isinstance(chunk, Chunk) and chunk.open:
            chunk.send(topic, value, key, number, pairs or None)
            future.set_result(RecordMetadata(topic, number, TP(topic, number), -1))
            return future

        def done(error: KafkaError | None, message: Message) -> None:
            if future.cancelled():
                return
            if error is not None:
                future.set_exception(ProducerSendError(str(error)))
                return
            tp = TP(message.topic(), message.partition())
            kind, timestamp_ms = message.timestamp()
            future.set_result(RecordMetadata(tp.topic, tp.partition, tp, message.offset(), timestamp_ms, kind))

        assert self._rd is not None, "the producer was not started"
        self._rd.produce(
            topic,
            value,
            key,
            number,
            on_delivery=lambda error, message: loop.call_soon_threadsafe(done, error, message),
            timestamp=int(timestamp * 1000) if timestamp else 0,
            headers=pairs,
        )
        if not self._polling:
            self._polling = True
            loop.call_later(_POLL_EVERY_S, self._poll, loop)
        return future

    def _poll(self, loop: asyncio.AbstractEventLoop) -> None:
        assert self._rd is not None
        self._rd.poll(0)
        self._polling = len(self._rd) > 0
        if self._polling:
            loop.call_later(_POLL_EVERY_S, self._poll, loop)

    async def send_and_wait(self, *args: Any, **options: Any) -> RecordMetadata:
        """Send and wait for the acknowledgement."""
        return await (await self.send(*args, **options))

    async def flush(self) -> None:
        """Wait until everything sent is acknowledged."""
        await self.buffer.flush()
        if self._rd is not None and await asyncio.to_thread(self._rd.flush, _ASK_S):
            raise EngineError(f"records are still not acknowledged after {_ASK_S:.0f} s. Check the brokers.")

    async def create_topic(
        self,
        topic: str,
        partitions: int,
        replication: int,
        *,
        config: Mapping[str, Any] | None = None,
        timeout: Any = _ASK_S,
        retention: Any = None,
        compacting: bool | None = None,
        deleting: bool | None = None,
        ensure_created: bool = False,  # noqa: ARG002 - Faust's signature
    ) -> None:
        """Create a topic; one that exists already is left as it is."""
        settings = {name: str(value) for name, value in (config or {}).items()}
        policy = ",".join(word for word, wanted in (("compact", compacting), ("delete", deleting)) if wanted)
        if policy:
            settings["cleanup.policy"] = policy
        if retention:
            settings["retention.ms"] = str(int(want_seconds(retention) * 1000))

        def create() -> None:
            admin = AdminClient(self._client())  # must outlive its future
            future = admin.create_topics([NewTopic(topic, partitions, replication, config=settings)])[topic]
            try:
                future.result(want_seconds(timeout))
            except KafkaException as exc:
                if exc.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise

        await asyncio.to_thread(create)

    def key_partition(self, topic: str, key: bytes) -> TP:
        """Partition of `key` by murmur2."""
        if topic not in self._partition_counts:
            assert self._rd is not None, "the producer was not started"
            self._partition_counts[topic] = len(self._rd.list_topics(topic, _LOOK_UP_S).topics[topic].partitions)
        return TP(topic, partition_of(key, self._partition_counts[topic]))

    def supports_headers(self) -> bool:
        """Yes."""
        return True
