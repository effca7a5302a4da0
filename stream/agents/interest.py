"""event -> state -> model -> list: what the interest agent does with the chunks of a fetch.

    record ──decode──> Event ──┬─ cannot be used ────────────> dead-letter topic
                               ├─ key is not its user ───────> rekey topic
                               ├─ older than the grace ──────> late topic
                               └─> Interaction ──> Recommender ──> states (changelog), lists (output topic)

Everything goes into the record's chunk, and so into one transaction.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message
from prometheus_client import CollectorRegistry

from model.ranking.lists import UserList
from model.recommender import Portion, Recommender, Spent
from state.catalog import Catalog
from state.clock import Watermark
from state.codec import decode_state, encode_state
from state.erasure import FORGET_ALL_MS
from state.errors import StateCorruptError
from state.interaction import Interaction
from state.interest import InterestState
from state.keys import event_key, key_of, payload_key, session_key
from state.learnt import LearntItems
from state.names import Names, interest_name
from state.settings import BRAND, CATEGORY
from state.trend import Trend
from state.weights import EVENT_TYPES, TYPE_CODES, kind_of, weigh
from state.window import interest_key
from stream.agents.forget import Forgetter, Forgotten
from stream.agents.rebuild import History, rebuilt
from stream.contract.aliases import USER_ERASED
from stream.contract.control import user_hash, with_first_sent
from stream.contract.event import Event, EventDecoder
from stream.contract.properties import text_of
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
from stream.erasure import ErasureLog
from stream.errors import EventError
from stream.feature_log import FeatureLog
from stream.late import EventClock, first_record_ms, send_late
from stream.metrics import Metrics
from stream.pseudonym import pseudonyms_of
from stream.settings import Settings

logger = logging.getLogger(__name__)

_WARN_EVERY_S = 60.0


class InterestAgent:
    """Turns chunks of the events topic into states and lists. Keeps nothing of a user between chunks.

    Args:
        settings: all settings.
        recommender: the model and its ranking.
        metrics: counters.
        now_ms: the clock, epoch ms: stamps lists, and stands in for records without a timestamp.
        erasures: the erasures topic; None where there is none.
        history: gives the log, for states that cannot be read; None: such a state ends the worker.
        catalog: items' categories, where events name none; nobody changes it during `process`.
        stamp_ms: when the lists of a chunk were made, epoch ms; None: now.
    """

    def __init__(
        self,
        settings: Settings,
        recommender: Recommender,
        metrics: Metrics,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        erasures: ErasureLog | None = None,
        history: History | None = None,
        catalog: Catalog | None = None,
        stamp_ms: Callable[[Chunk], int] | None = None,
    ) -> None:
        self._settings, self._erasures, self._history = settings, erasures, history
        self._catalog = Catalog() if catalog is None else catalog
        self._topics = settings.topics
        self._forgetter = Forgetter(settings, metrics, now_ms, erasures)
        self._pseudonyms = pseudonyms_of(settings) if settings.events.pseudonyms == "worker" else None
        self._recommender = recommender
        self._metrics = metrics
        self._now_ms = now_ms
        self._stamp_ms = stamp_ms or (lambda _: now_ms())
        self._decode = EventDecoder(settings.events.max_bytes, max_future_ms=None).decode
        self._clock = EventClock(settings.events)
        self._grace_ms = settings.events.grace_s * 1000
        self._windows = [(window.name, window.size_s) for window in recommender.state_settings.windows.windows]
        self._admits_late = settings.events.late_policy == "admit"
        self._rekeys = settings.events.mismatched_key == "rekey"
        self._lists = settings.worker.lists
        self._features: FeatureLog | None = None
        if settings.topics.features:
            weights = settings.weight_settings()
            self._features = FeatureLog(settings.topics.features, recommender.state_settings, weights)
        interests = recommender.state_settings.interests
        self._of_category, self._of_brand = CATEGORY in interests, BRAND in interests
        self._of_properties = recommender.state_settings.interest_properties
        self._of_more = interests != (CATEGORY,)
        self._limits_domains = settings.ranking.domains == "event"
        self._weights = settings.weight_settings()
        ranking = recommender.ranking_settings
        self._trend = ranking.popularity_half_life_s, ranking.trend_refresh_events
        artifact = recommender.artifact
        self._categories = {
            key_of(item): category for item, category in zip(artifact.item_ids, artifact.item_categories, strict=True)
        }
        self._model = ModelRef(name=artifact.name, version=artifact.version)
        self._partitions = 0
        self._warned_s = 0.0
        self._warned_late_s = 0.0
        metrics.model.labels(self._model.name, self._model.version).set(1)

    def process(self, chunks: Sequence[Chunk], partitions: int) -> list[Portion]:
        """Collect what `chunks`, of one fetch, make of states and lists; returns it as the model saw it, by chunk.

        `partitions`: how many the events topic has.
        """
        self._partitions = partitions
        started_s = time.thread_time()
        forgets = self._forgetter.begin(chunks)
        read = [self._read(chunk, partitions, forgotten) for chunk, forgotten in zip(chunks, forgets, strict=True)]
        decoded_s = time.thread_time()

        portions = [
            Portion(
                batch,
                self._states(chunk, batch, forgotten),
                self._trend_of(chunk),
                self._names_of(chunk),
                keep_since_ms=forgotten.keep_since_ms,
            )
            for chunk, (batch, _), forgotten in zip(chunks, read, forgets, strict=True)
        ]
        loaded_s = time.thread_time()
        features = None if self._features is None else self._features.reader
        if self._lists == "none":
            spent = Spent()
            self._recommender.updates(portions, "none", spent)
        else:
            spent = self._recommender.process(portions, every_event=self._lists == "event", features=features)
        processed_s = time.thread_time()

        for chunk, portion, forgotten in zip(chunks, portions, forgets, strict=True):
            self._forgetter.end(chunk, portion, forgotten, self._watermark_of(chunk).time_ms)
            for key, state in portion.states.items():
                chunk.put(key, encode_state(state))
            for key, value in portion.trend.drain():
                chunk.put(key, value)
            for key, value in portion.names.drain():
                chunk.put(key, value)
            for key, value in self._learnt_of(chunk).drain():
                chunk.put(key, value)
        stored_s = time.thread_time()
        for chunk, portion, (_, events) in zip(chunks, portions, read, strict=True):
            self._send_lists(chunk, portion.lists, events)
            if self._features is not None:
                self._features.send(chunk, portion)
        sent_s = time.thread_time()

        self._count(chunks, portions)
        cpu = self._metrics.cpu
        cpu.labels("decode").inc(decoded_s - started_s)
        cpu.labels("state").inc(loaded_s - decoded_s + stored_s - processed_s + spent.state_s)
        cpu.labels("model").inc(spent.model_s)
        cpu.labels("rank").inc(max(processed_s - loaded_s - spent.state_s - spent.model_s, 0.0))
        cpu.labels("encode").inc(sent_s - stored_s)
        return portions

    # ------------------------------------------------------------------ in

    def _read(
        self, chunk: Chunk, partitions: int, forgotten: Forgotten
    ) -> tuple[list[tuple[bytes, Interaction]], dict[int, Event]]:
        """The usable events of the chunk, and each by its offset."""
        batch: list[tuple[bytes, Interaction]] = []
        events: dict[int, Event] = {}
        misplaced = 0
        number = chunk.partition.number
        watermark, learnt = self._watermark_of(chunk), self._learnt_of(chunk)
        for record in chunk.records:
            key = record.key()
            try:
                received_ms = self._received_ms(record)
                headers = headers_of(record)
                event = self._decode(record.value(), key, headers, now_ms=received_ms)
                at_ms = self._clock.time_ms(event, first_record_ms(headers, received_ms) if headers else received_ms)
                user = event.key
                if user != key:
                    self._stray(chunk, record, event)
                    continue
                sent_key, sent = user, event
                if self._pseudonyms is not None:
                    event = self._pseudonyms.applied(sent)
                    user = event.key
            except EventError as error:
                send_dead_letter(chunk, self._topics.dead_letters, record, error, "decode")
                self._metrics.dead_letters.labels("decode", error.reason).inc()
                self._metrics.events.labels("unknown", "dead_letter").inc()
                continue
            # Before anything else: the watermark must be the same in a replay, which knows of later erasures.
            late_by_ms = watermark.late_by_ms(at_ms, self._grace_ms)
            offset = record.offset() or 0
            if (offset < forgotten.reach or headers) and any(
                forgotten.covers(name, offset, headers)
                for name in ([user] if self._pseudonyms is None else self._pseudonyms.keys_of(sent))
            ):
                self._metrics.events.labels(event.event_type, "erased").inc()
                continue
            if event.event_type == USER_ERASED:
                for name in [user] if self._pseudonyms is None else self._pseudonyms.keys_of(sent):
                    forgotten.erase(name, offset, received_ms)
                self._metrics.events.labels(event.event_type, "applied").inc()
                continue
            if late_by_ms and not self._takes_late(chunk, record, event, late_by_ms, watermark):
                continue
            if partition_of(sent_key, partitions) != number:
                misplaced += 1
            events[offset] = event
            forgotten.applied(user, watermark.time_ms)
            batch.append((user, self._interaction(event, at_ms, offset, learnt)))
        if misplaced:
            self._warn_misplaced(misplaced, number)
        for key, value in watermark.drain():
            chunk.put(key, value)
        self._clock.count(self._metrics)
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
        headers = with_first_sent(headers_of(record), self._received_ms(record))
        chunk.send(self._topics.rekey, record.value(), record.key(), headers=headers)
        self._metrics.events.labels(event.event_type, "rekeyed").inc()

    def _takes_late(self, chunk: Chunk, record: Message, event: Event, late_by_ms: int, watermark: Watermark) -> bool:
        """Whether a late event is applied all the same; it is sent to the late topic if not."""
        if self._admits_late:
            self._metrics.late_events.labels("admitted").inc()
            return True
        send_late(
            chunk,
            self._topics.late,
            record,
            late_by_ms=late_by_ms,
            watermark_ms=watermark.time_ms,
            grace_ms=self._grace_ms,
            windows=self._windows,
        )
        self._metrics.late_events.labels("late_topic").inc()
        self._metrics.events.labels(event.event_type, "late").inc()
        self._warn_late(chunk.partition.number)
        return False

    def _interaction(self, event: Event, at_ms: int, offset: int, learnt: LearntItems) -> Interaction:
        """What state and model see of `event`; `at_ms`: when it happened, by the log's clock."""
        code = TYPE_CODES[event.event_type]
        value, dwell_ms, session = event.value, event.dwell_ms, event.session_id
        if event.items:
            lines = event.lines()
            keys = tuple([key_of(line.item_id) for line in lines])
            named = list(zip(lines, keys, strict=True))
            names = [self._category(line.category, key, offset, learnt) for line, key in named]
            if self._of_more:
                names = names if self._of_category else []
                for line, key in named:
                    names += self._further(key, line.brand, line.properties)
            # Of several items neither is told of one: the value is that of all together.
            quantity, value = (lines[0].quantity, value) if len(lines) == 1 else (None, None)
        elif event.item_id:  # nearly all events: no line is made for the one item
            key = key_of(event.item_id)
            keys, names = (key,), [self._category(event.category, key, offset, learnt)]
            if self._of_more:
                names = names if self._of_category else []
                names += self._further(key, event.brand, event.properties)
            quantity = event.quantity
        else:
            keys, names, quantity = (), [], None
        names = [name for name in names if name]
        weight = weigh(code, quantity, value, dwell_ms, self._weights)
        return Interaction(
            event_key(event.event_id),
            code if weight >= 0.0 else kind_of(code, weight),
            at_ms,
            keys,
            tuple([interest_key(name) for name in names]),
            weight,
            offset,
            # Of the time as it was sent, a number of ms after decoding: one sent again says the same.
            payload_key(code, event.occurred_at, keys, quantity, event.value, dwell_ms),  # type: ignore[arg-type]
            session_key(session) if session else 0,
            key_of(event.domain) if event.domain else 0,
            tuple(names),
        )

    def _category(self, named: str | None, key: int, offset: int, learnt: LearntItems) -> str:
        """Of an item: what the event says, the catalogue, the model, or earlier events; '' when none of them knows."""
        if not named:
            return self._catalog.category(key) or self._categories.get(key) or learnt.category(key)
        if not self._categories.get(key) and not self._catalog.category(key):
            learnt.learn(offset, key, named)
        return named

    def _further(self, key: int, brand: str | None, properties: dict[str, Any] | None) -> Iterator[str]:
        """Names of an item's interests beside its category, by what the event says of it, else by the catalogue."""
        if self._of_brand and (brand := brand or self._catalog.brand(key)):
            yield interest_name(brand, BRAND)
        if self._of_properties:
            known = self._catalog.properties(key) or ("",) * len(self._of_properties)
            for kind, held in zip(self._of_properties, known, strict=True):
                if value := text_of(properties, kind) or held:
                    yield interest_name(value, kind)

    def _states(
        self, chunk: Chunk, batch: list[tuple[bytes, Interaction]], forgotten: Forgotten
    ) -> dict[bytes, InterestState]:
        """The states of the batch's known users, but those erased before their first event in it; the recommender
        adds new ones."""
        first: dict[bytes, int] = {}
        for (user, _), keep_since_ms in zip(batch, forgotten.keep_since_ms, strict=True):
            first.setdefault(user, keep_since_ms)
        users = [user for user, keep_since_ms in first.items() if keep_since_ms != FORGET_ALL_MS]
        values = chunk.get_many(users)
        try:
            return {user: decode_state(value) for user, value in zip(users, values, strict=True) if value is not None}
        except StateCorruptError:
            return self._mended(chunk, dict(zip(users, values, strict=True)))

    def _mended(self, chunk: Chunk, values: dict[bytes, bytes | None]) -> dict[bytes, InterestState]:
        """The states in `values`, those that cannot be read made anew from the log.

        Raises:
            StateCorruptError: there is such a state, and no history to go by.
        """
        states: dict[bytes, InterestState] = {}
        damaged: set[bytes] = set()
        for user, value in values.items():
            try:
                if value is not None:
                    states[user] = decode_state(value)
            except StateCorruptError as error:
                whose = f"user {user_hash(user)} (hash) on partition {chunk.partition.number}"
                if self._history is None:
                    raise StateCorruptError(f"{whose} of {chunk.partition.changelog}: {error}") from error
                logger.warning("the state of %s cannot be read: %s", whose, error)
                damaged.add(user)
        if damaged and self._history is not None:
            metrics = Metrics(CollectorRegistry())  # thrown away: these events were counted when they came
            reader = InterestAgent(
                self._settings, self._recommender, metrics, self._now_ms, self._erasures, catalog=self._catalog
            )
            states |= rebuilt(
                chunk,
                damaged,
                self._history,
                lambda part, forgotten: reader._read(part, self._partitions, forgotten)[0],
                Forgetter(self._settings, metrics, self._now_ms, self._erasures),
                self._recommender,
            )
            self._metrics.rebuilt.inc(len(damaged))
        return states

    def _trend_of(self, chunk: Chunk) -> Trend:
        trend = chunk.memo.get("trend")
        if trend is None:
            trend = chunk.memo["trend"] = Trend.load(chunk.get, *self._trend)
        return trend

    def _names_of(self, chunk: Chunk) -> Names:
        names = chunk.memo.get("names")
        if names is None:
            names = chunk.memo["names"] = Names.load(chunk.get)
        return names

    def _learnt_of(self, chunk: Chunk) -> LearntItems:
        learnt: LearntItems | None = chunk.memo.get("learnt")
        if learnt is None:
            store = chunk.partition.store  # and not the chunk, whose records would stay in memory
            learnt = LearntItems(self._settings.catalog.learnt_items, lambda key: store.get_many([key])[0])
            chunk.memo["learnt"] = learnt
        return learnt

    def _watermark_of(self, chunk: Chunk) -> Watermark:
        watermark = chunk.memo.get("watermark")
        if watermark is None:
            watermark = chunk.memo["watermark"] = Watermark.load(chunk.get)
        return watermark

    # ------------------------------------------------------------------ out

    def _send_lists(self, chunk: Chunk, lists: list[UserList], events: dict[int, Event]) -> None:
        if not lists:
            return
        number = chunk.partition.number
        topic = self._topics.recommendations
        source_topic = chunk.partition.topic
        generated_at = iso_utc(self._stamp_ms(chunk))
        for made in lists:
            value = encode_recommendation(
                Recommendation(
                    recommendation_id=recommendation_id(made.user, number, made.offset),
                    user_id=events[made.offset].subject,
                    tenant=events[made.offset].tenant or "",
                    domain=(events[made.offset].domain or "") if self._limits_domains else "",
                    generated_at=generated_at,
                    trigger_event_id=events[made.offset].event_id,
                    events_applied=made.events_applied,
                    source=Source(source_topic, number, made.offset),
                    model=self._model,
                    strategy=made.strategy,
                    interests=made.interests,
                    items=made.items,
                    parts=made.parts,
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

    def _warn_late(self, number: int) -> None:
        now_s = time.monotonic()
        if now_s - self._warned_late_s > _WARN_EVERY_S:
            self._warned_late_s = now_s
            logger.warning(
                "Events on partition %d of %s are more than events.grace_s (%d s) behind the newest there: they go to "
                "%s and change no state (driftline tail late). A log that is not in order of time, such as one sorted "
                "by user, wants events.late_policy=admit.",
                number,
                self._topics.events,
                self._grace_ms // 1000,
                self._topics.late,
            )

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
