"""The erasures topic: who was erased, and up to where in the log, as a worker knows it; and asking for an erasure.

A worker reads it to its present end when it starts, and again whenever partitions come to it, so before the first
event of any: an erasure that another worker did meanwhile is known then. While a partition stays with a worker nobody
else erases its users.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from state.erasure import ErasedUsers
from stream.brokers import reach
from stream.contract.aliases import USER_ERASED
from stream.contract.control import ErasureConfirmed, decode_erasure
from stream.contract.event import Event, encode_event
from stream.contract.times import FIRST_MS, time_ms
from stream.engine.asking import patiently, watermarks
from stream.errors import ProduceError, ReadError, StreamError, TopicError
from stream.settings import Settings

logger = logging.getLogger(__name__)

_ASK_S = 20.0
_FETCH_RECORDS = 5_000
_SILENCE_S = 60.0


class ErasureLog:
    """Follows the erasures topic. Blocking, for one thread at a time.

    Confirmations whose record the events topic has lost by retention are left out: the events before it are gone too.
    So are those at offsets that the topic never had: it was made anew, and what they speak of is not in it.

    Args:
        settings: the cluster and the topics.
        past: what is read is older than all that the events topic ever held (stream.replay.backfill): every
            confirmation counts then.
    """

    def __init__(self, settings: Settings, *, past: bool = False) -> None:
        self._settings = settings
        self._past = past
        self._next: dict[int, int] = {}
        self._ends: dict[int, tuple[int, int]] = {}
        self._foreign = 0
        self.users = ErasedUsers()
        """The erasures known so far."""

    def catch_up(self) -> ErasedUsers:
        """Read on to the present end; what was read before is not read again.

        Raises:
            StreamError: the topic does not answer or does not end, or the broker refuses.
            ContractError: a record there is no confirmation.
        """
        consumer = Consumer(
            self._settings.client_properties(
                {
                    "group.id": "driftline-erasures",  # never joined, nothing is committed
                    "enable.auto.commit": False,
                    "isolation.level": "read_committed",
                    "enable.partition.eof": True,
                    "auto.offset.reset": "earliest",
                    "fetch.wait.max.ms": 10,
                }
            )
        )
        self._ends.clear()
        self._foreign = 0
        try:
            self._read(consumer)
        except KafkaException as error:
            raise StreamError(
                f"cannot read {self._settings.topics.erasures}: {error.args[0].str()}. See to the broker or the rights."
            ) from None
        finally:
            consumer.close()
        if self._foreign:
            logger.warning(
                "%d confirmations on %s name offsets that %s does not have: that topic was made anew, or lost its end. "
                "They are ignored; make the erasures topic anew too when you make the events topic anew.",
                self._foreign,
                self._settings.topics.erasures,
                self._settings.topics.events,
            )
        return self.users

    def _read(self, consumer: Consumer) -> None:
        topic = self._settings.topics.erasures
        found = patiently(lambda: consumer.list_topics(topic, _ASK_S)).topics[topic]
        waiting = set(found.partitions)
        consumer.assign([TopicPartition(topic, n, self._next.get(n, OFFSET_BEGINNING)) for n in waiting])
        heard_s = time.monotonic()
        while waiting:
            messages = consumer.consume(_FETCH_RECORDS, 0.2)
            for message in messages:
                error, number = message.error(), message.partition() or 0
                if error is None:
                    self._note(consumer, message)
                    self._next[number] = (message.offset() or 0) + 1
                elif error.code() == KafkaError._PARTITION_EOF:
                    waiting.discard(number)
                else:
                    raise KafkaException(error)
            if messages:
                heard_s = time.monotonic()
            elif time.monotonic() - heard_s > _SILENCE_S:
                raise StreamError(f"{topic} gave nothing for {_SILENCE_S:.0f} s before its end. Check the brokers.")

    def _note(self, consumer: Consumer, message: Message) -> None:
        value = message.value()
        if value is None:
            return
        confirmed = decode_erasure(value)
        source = confirmed.source
        if source.topic != self._settings.topics.events:
            return  # erasures of several logs may share a topic
        if not self._past:
            if source.partition not in self._ends:
                self._ends[source.partition] = watermarks(consumer, source.topic, source.partition)
            low, high = self._ends[source.partition]
            if source.offset < low:
                return
            if source.offset >= high:
                self._foreign += 1
                return
        self.users.add(source.partition, confirmed.user_hash, source.offset, _requested_ms(confirmed))


def _requested_ms(confirmed: ErasureConfirmed) -> int:
    """When the erasure was asked for. One confirmation that cannot be read must not stop every worker: then it holds
    by its place in the log alone."""
    try:
        return time_ms(confirmed.requested_at)
    except ValueError as error:
        logger.warning("the erasure of user %s (hash) has no time: %s", confirmed.user_hash, error)
        return FIRST_MS


@dataclass(frozen=True)
class Requested:
    """A `user_erased` on the events topic, and its confirmation once there is one."""

    user_hash: str
    partition: int
    offset: int
    confirmed_at: str | None = None

    def answered_by(self, confirmed: ErasureConfirmed) -> bool:
        """Whether the confirmation is of this request or a later one."""
        source = confirmed.source
        return confirmed.user_hash == self.user_hash and (source.partition, source.offset >= self.offset) == (
            self.partition,
            True,
        )


class Erasing:
    """Asks for erasures and waits for their confirmation.

    Args:
        settings: the cluster and the topics.

    Raises:
        TopicError: the events or the erasures topic is missing.
        BrokerError: no broker.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        known = reach(settings.client_properties()).partitions
        for topic in (settings.topics.events, settings.topics.erasures):
            if topic not in known:
                raise TopicError(f"topic {topic} is missing. Create it: driftline topics create")
        self._partitions = known[settings.topics.events]
        self._consumer = self._at_the_end(known[settings.topics.erasures])

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close()

    def _at_the_end(self, partitions: int) -> Consumer:
        """A reader of the confirmations that come from now on."""
        topic = self._settings.topics.erasures
        consumer = Consumer(
            self._settings.client_properties(
                {
                    "group.id": "driftline-erasures",
                    "enable.auto.commit": False,
                    "isolation.level": "read_committed",
                    "fetch.wait.max.ms": 20,
                }
            )
        )
        consumer.assign(
            [TopicPartition(topic, n, watermarks(consumer, topic, n, _ASK_S)[1]) for n in range(partitions)]
        )
        return consumer

    def request(self, user: str, tenant: str, hashed: Sequence[str], *, everywhere: bool = False) -> list[Requested]:
        """Send `user_erased` for a user.

        Args:
            user: the user_id of the user's events.
            tenant: whose user it is; "" for none.
            hashed: hashes of the keys of the user's states, which the confirmations will name.
            everywhere: to each partition, not only to the user's own.

        Raises:
            ProduceError: the broker did not take it.
        """
        settings = self._settings
        now_ms = time.time_ns() // 1_000_000
        event = Event(
            event_id=f"erase-{uuid.uuid4()}",
            event_type=USER_ERASED,
            occurred_at=now_ms,
            user_id=user,
            tenant=tenant or None,
        )
        requested: list[Requested] = []
        refused: list[KafkaError] = []

        def acknowledged(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                refused.append(error)
            else:
                requested.extend(Requested(one, message.partition() or 0, message.offset() or 0) for one in hashed)

        producer = Producer(
            settings.client_properties({"partitioner": "murmur2_random", "enable.idempotence": True, "linger.ms": 0})
        )
        for number in range(self._partitions) if everywhere else (-1,):
            producer.produce(settings.topics.events, encode_event(event), event.key, number, on_delivery=acknowledged)
        if producer.flush(_ASK_S) or refused:
            why = refused[0].str() if refused else f"no acknowledgement within {_ASK_S:g} s"
            raise ProduceError(
                f"the broker did not take the erasure: {why}. See to the broker and run this again: an erasure "
                "asked for twice harms nobody."
            )
        return requested

    def wait(self, requested: Sequence[Requested], seconds: float) -> list[Requested]:
        """The requests again, with their confirmation where it came within `seconds`.

        Raises:
            ReadError: the erasures topic cannot be read.
        """
        done = list(requested)
        end_s = time.monotonic() + seconds
        while any(one.confirmed_at is None for one in done) and (left_s := end_s - time.monotonic()) > 0:
            message = self._consumer.poll(min(left_s, 0.2))
            if message is None:
                continue
            error = message.error()
            if error is not None:
                if error.fatal() or not error.retriable():
                    raise ReadError(f"cannot read {self._settings.topics.erasures}: {error.str()}. See to the broker.")
                continue
            value = message.value()
            if value is not None:
                confirmed = decode_erasure(value)
                done = [
                    replace(one, confirmed_at=confirmed.erased_at) if one.answered_by(confirmed) else one
                    for one in done
                ]
        return done
