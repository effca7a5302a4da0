"""event -> state -> model -> list: what the interest agent does with the chunks of a fetch.

    record ──decode──> Event ──┬─ cannot be used ────────────> dead-letter topic
                               ├─ key is not its user ───────> rekey topic
                               └─> Interaction ──> Recommender ──> states (changelog), lists (output topic)

Everything goes into the record's chunk, and so into one transaction.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from model.ranking.lists import UserList
from model.recommender import Portion, Recommender
from state.codec import decode_state, encode_state
from state.interaction import Interaction
from state.interest import InterestState
from state.keys import event_key, key_of
from state.trend import Trend
from state.weights import EVENT_TYPES, TYPE_CODES
from stream.contract.event import Event, EventDecoder
from stream.contract.recommendation import (
    ModelRef,
    Recommendation,
    Source,
    encode_recommendation,
    recommendation_id,
)
from stream.contract.times import iso_utc
from stream.dead_letter import headers_of, send_dead_letter
from stream.engine import Chunk
from stream.engine.partitioner import partition_of
from stream.errors import EventError
from stream.metrics import Metrics
from stream.settings import Settings

logger = logging.getLogger(__name__)

# A larger order says no more of the user's taste, and one broken quantity must not outweigh a lifetime.
_MAX_QUANTITY = 10.0
_WARN_EVERY_S = 60.0


class InterestAgent:
    """Turns chunks of the events topic into states and lists. Keeps nothing of a user between chunks.

    Args:
        settings: all settings.
        recommender: the model and its ranking.
        metrics: counters.
        now_ms: the clock, epoch ms: stamps lists, and stands in for records without a timestamp.
    """

    def __init__(
        self,
        settings: Settings,
        recommender: Recommender,
        metrics: Metrics,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._topics = settings.topics
        self._recommender = recommender
        self._metrics = metrics
        self._now_ms = now_ms
        self._decode = EventDecoder(settings.events.max_bytes, settings.events.max_future_s * 1000).decode
        self._rekeys = settings.events.mismatched_key == "rekey"
        self._every_event = settings.worker.lists == "event"
        self._weights = {TYPE_CODES[name]: weight for name, weight in settings.event_weights().items()}
        ranking = recommender.ranking_settings
        self._trend = ranking.popularity_half_life_s, ranking.trend_refresh_events
        artifact = recommender.artifact
        self._categories = {
            key_of(item): category for item, category in zip(artifact.item_ids, artifact.item_categories, strict=True)
        }
        self._model = ModelRef(name=artifact.name, version=artifact.version)
        self._warned_s = 0.0
        metrics.model.labels(self._model.name, self._model.version).set(1)

    def process(self, chunks: Sequence[Chunk], partitions: int) -> None:
        """Collect what `chunks`, of one fetch, make of states and lists.

        `partitions`: how many the events topic has.
        """
        started_s = time.thread_time()
        read = [self._read(chunk, partitions) for chunk in chunks]
        decoded_s = time.thread_time()

        portions = [
            Portion(batch, self._states(chunk, batch), self._trend_of(chunk))
            for chunk, (batch, _) in zip(chunks, read, strict=True)
        ]
        loaded_s = time.thread_time()
        spent = self._recommender.process(portions, every_event=self._every_event)
        processed_s = time.thread_time()

        for chunk, portion in zip(chunks, portions, strict=True):
            for key, state in portion.states.items():
                chunk.put(key, encode_state(state))
            for key, value in portion.trend.drain():
                chunk.put(key, value)
        stored_s = time.thread_time()
        for chunk, portion, (_, events) in zip(chunks, portions, read, strict=True):
            self._send_lists(chunk, portion.lists, events)
        sent_s = time.thread_time()

        self._count(chunks, portions)
        cpu = self._metrics.cpu
        cpu.labels("decode").inc(decoded_s - started_s)
        cpu.labels("state").inc(loaded_s - decoded_s + stored_s - processed_s + spent.state_s)
        cpu.labels("model").inc(spent.model_s)
        cpu.labels("rank").inc(max(processed_s - loaded_s - spent.state_s - spent.model_s, 0.0))
        cpu.labels("encode").inc(sent_s - stored_s)

    # ------------------------------------------------------------------ in

    def _read(self, chunk: Chunk, partitions: int) -> tuple[list[tuple[bytes, Interaction]], dict[int, Event]]:
        """The usable events of the chunk, and each by its offset."""
        batch: list[tuple[bytes, Interaction]] = []
        events: dict[int, Event] = {}
        misplaced = 0
        number = chunk.partition.number
        for record in chunk.records:
            key = record.key()
            try:
                event = self._decode(record.value(), key, headers_of(record), now_ms=self._received_ms(record))
                user = event.key
                if user != key:
                    self._stray(chunk, record, event)
                    continue
            except EventError as error:
                send_dead_letter(chunk, self._topics.dead_letters, record, error, "decode")
                self._metrics.dead_letters.labels("decode", error.reason).inc()
                self._metrics.events.labels("unknown", "dead_letter").inc()
                continue
            if partition_of(user, partitions) != number:
                misplaced += 1
            offset = record.offset() or 0
            events[offset] = event
            batch.append((user, self._interaction(event, offset)))
        if misplaced:
            self._warn_misplaced(misplaced, number)
        return batch, events

    def _received_ms(self, record: Message) -> int:
        """When the record came, ms. Of the log, not of this machine: a replay must judge as the live run did."""
        kind, timestamp_ms = record.timestamp()
        return self._now_ms() if kind == TIMESTAMP_NOT_AVAILABLE else int(timestamp_ms)

    def _stray(self, chunk: Chunk, record: Message, event: Event) -> None:
        """An event whose key is not its user: its state lives elsewhere.

        Raises:
            EventError: the settings refuse such events.
        """
        if not self._rekeys:
            raise EventError(
                "mismatched_key", "the record's key is not its user_id (or anonymous_id): set it so in the producer"
            )
        chunk.send(self._topics.rekey, record.value(), record.key(), headers=headers_of(record) or None)
        self._metrics.events.labels(event.event_type, "rekeyed").inc()

    def _interaction(self, event: Event, offset: int) -> Interaction:
        code = TYPE_CODES[event.event_type]
        weight = self._weights[code]
        categories = self._categories
        if event.items:
            lines = event.lines()
            keys = tuple([key_of(line.item_id) for line in lines])
            names = tuple([line.category or categories.get(key, "") for line, key in zip(lines, keys, strict=True)])
            quantity = lines[0].quantity if len(lines) == 1 else None
        elif event.item_id:  # nearly all events: no line is made for the one item
            key = key_of(event.item_id)
            keys, names = (key,), (event.category or categories.get(key, ""),)
            quantity = event.quantity
        else:
            keys, names, quantity = (), (), None
        if quantity is not None:
            weight *= min(quantity, _MAX_QUANTITY)
        # After decoding, occurred_at is a number of ms.
        return Interaction(event_key(event.event_id), code, event.occurred_at, keys, names, weight, offset)  # type: ignore[arg-type]

    def _states(self, chunk: Chunk, batch: list[tuple[bytes, Interaction]]) -> dict[bytes, InterestState]:
        """The states of the batch's known users; the recommender adds new ones."""
        users = list({user for user, _ in batch})
        return {
            user: decode_state(value)
            for user, value in zip(users, chunk.get_many(users), strict=True)
            if value is not None
        }

    def _trend_of(self, chunk: Chunk) -> Trend:
        trend = chunk.memo.get("trend")
        if trend is None:
            trend = chunk.memo["trend"] = Trend.load(chunk.get, *self._trend)
        return trend

    # ------------------------------------------------------------------ out

    def _send_lists(self, chunk: Chunk, lists: list[UserList], events: dict[int, Event]) -> None:
        if not lists:
            return
        number = chunk.partition.number
        topic = self._topics.recommendations
        source_topic = chunk.partition.topic
        generated_at = iso_utc(self._now_ms())
        for made in lists:
            value = encode_recommendation(
                Recommendation(
                    recommendation_id=recommendation_id(made.user, number, made.offset),
                    user_id=events[made.offset].subject,
                    generated_at=generated_at,
                    trigger_event_id=events[made.offset].event_id,
                    events_applied=made.events_applied,
                    source=Source(source_topic, number, made.offset),
                    model=self._model,
                    strategy=made.strategy,
                    interests=made.interests,
                    items=made.items,
                )
            )
            # Same partition as the source: all that belongs to a user stays together, wherever its producer put it.
            chunk.send(topic, value, made.user, number)

    # ------------------------------------------------------------------ count

    def _count(self, chunks: Sequence[Chunk], portions: Sequence[Portion]) -> None:
        metrics = self._metrics
        outcomes = Counter(
            (interaction.type, "duplicate" if index in portion.duplicates else "applied")
            for portion in portions
            for index, (_, interaction) in enumerate(portion.batch)
        )
        for (code, outcome), count in outcomes.items():
            metrics.events.labels(EVENT_TYPES[code], outcome).inc(count)
            if outcome == "duplicate":
                metrics.duplicates.inc(count)
        conflicts = sum(len(portion.conflicts) for portion in portions)
        if conflicts:
            metrics.conflicts.inc(conflicts)
        for strategy, count in Counter(made.strategy for portion in portions for made in portion.lists).items():
            metrics.lists.labels(strategy).inc(count)
        now_ms = self._now_ms()
        for chunk, portion in zip(chunks, portions, strict=True):
            if portion.lists:
                metrics.delay.observe(max(now_ms - self._received_ms(chunk.records[0]), 0) / 1000.0)

    def _warn_misplaced(self, count: int, number: int) -> None:
        self._metrics.misplaced.inc(count)
        now_s = time.monotonic()
        if now_s - self._warned_s > _WARN_EVERY_S:
            self._warned_s = now_s
            logger.warning(
                "%d events on partition %d of %s belong to another by their key. Their producer does not use "
                "Kafka's default partitioner (in librdkafka: partitioner=murmur2_random). They are counted and used "
                "here, but a user whose events are on two partitions has two states: set the partitioner, or send "
                "these events to %s, which gives each its place.",
                count,
                number,
                self._topics.events,
                self._topics.rekey,
            )
