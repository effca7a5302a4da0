"""Was every event counted once? Counted from the topics alone, on any cluster.

    events topic          valid events per user, less those sent twice          -> what a state should hold
    recommendations topic the last list of each user: `events_applied`, source  -> what it does hold

Only the log and the lists are read, as a reader of committed data sees them; no worker is asked.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from state.keys import key_of
from stream.contract.event import EventDecoder
from stream.contract.recommendation import Recommendation, decode_recommendation
from stream.engine.asking import watermarks
from stream.errors import EventError, RefusedError, StreamError
from stream.settings import Settings

_ASK_S = 20.0
_FETCH_RECORDS = 5_000
_SILENCE_S = 60.0


class Finding(msgspec.Struct, frozen=True):
    """One user whose list does not agree with the log."""

    user_id: str
    expected_events: int
    applied_events: int
    partition: int
    last_offset: int


class AuditReport(msgspec.Struct):
    """What the topics say. `exact` is the verdict."""

    records: int = 0
    """Records of the events topic."""
    events: int = 0
    """Valid events, each id of a user once."""
    users: int = 0
    duplicates: int = 0
    """Events whose id their user had sent before."""
    rekeyed: int = 0
    """Events whose key was not their user; they come again under their own key."""
    dead_letters: dict[str, int] = msgspec.field(default_factory=dict)
    """Unusable records by reason."""
    lists: int = 0
    """Records of the recommendations topic that a reader of committed data sees."""
    lost_events: int = 0
    doubled_events: int = 0
    doubled_lists: int = 0
    """Lists whose recommendation_id had been seen before."""
    missing_users: int = 0
    """Users with events and no list."""
    stale_users: int = 0
    """Users whose last list was not made at their last event."""
    misplaced_lists: int = 0
    """Lists on another partition than the event they were made at."""
    log_is_whole: bool = True
    """False when retention has removed the log's beginning: then users may have more events than it shows."""
    examples: list[Finding] = msgspec.field(default_factory=list)

    @property
    def exact(self) -> bool:
        """Every event counted once and every user's last list the right one."""
        return self.log_is_whole and not (
            self.lost_events
            or self.doubled_events
            or self.doubled_lists
            or self.missing_users
            or self.stale_users
            or self.misplaced_lists
        )


class _User:
    __slots__ = ("events", "last_offset", "partition", "seen")

    def __init__(self) -> None:
        self.events = 0
        self.seen: set[int] = set()
        self.partition = -1
        self.last_offset = -1


def audit(settings: Settings, *, examples: int = 10, tell: Callable[[int, int], None] = lambda *_: None) -> AuditReport:
    """Count the events topic against the recommendations topic, both to their present end.

    Run it when the workers have caught up: an event that no worker has taken yet counts as lost.

    Args:
        settings: the cluster and the topics.
        examples: how many disagreeing users to name.
        tell: called with (records read, records to read).

    Raises:
        StreamError: the topics stop answering.
        RefusedError: a topic is missing.
    """
    report = AuditReport()
    users = _read_events(settings, report, tell)
    _read_lists(settings, report, users, examples, tell)
    return report


def read_topic(settings: Settings, topic: str, tell: Callable[[int, int], None] = lambda *_: None) -> Iterator[Message]:
    """All committed records of a topic up to its present end, in offset order within each partition.

    Raises:
        StreamError, RefusedError: see `audit`.
    """
    consumer = Consumer(
        settings.client_properties(
            {
                "group.id": "driftline-audit",  # never joined, nothing is committed
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 10,
            }
        )
    )
    try:
        yield from _read_all(consumer, topic, tell)
    finally:
        consumer.close()


def _read_all(consumer: Consumer, topic: str, tell: Callable[[int, int], None]) -> Iterator[Message]:
    found = consumer.list_topics(topic, _ASK_S).topics[topic]
    if found.error is not None:
        raise RefusedError(f"topic {topic}: {found.error}. Create it with driftline topics create.")
    starts: list[TopicPartition] = []
    remaining = 0
    for number in found.partitions:
        low, high = watermarks(consumer, topic, number)
        if high > low:
            starts.append(TopicPartition(topic, number, low))
            remaining += high - low
    open_partitions = {start.partition for start in starts}
    consumer.assign(starts)
    read, heard_s = 0, time.monotonic()
    while open_partitions:
        messages = consumer.consume(_FETCH_RECORDS, 0.2)
        for message in messages:
            error = message.error()
            if error is None:
                read += 1
                yield message
            elif error.code() == KafkaError._PARTITION_EOF:
                open_partitions.discard(message.partition() or 0)
            else:
                raise KafkaException(error)
        if messages:
            heard_s = time.monotonic()
            tell(read, remaining)
        elif time.monotonic() - heard_s > _SILENCE_S:
            raise StreamError(f"{topic} gave nothing for {_SILENCE_S:.0f} s before its end. Check the brokers.")


def _read_events(settings: Settings, report: AuditReport, tell: Callable[[int, int], None]) -> dict[bytes, _User]:
    decode = EventDecoder(settings.events.max_bytes, settings.events.max_future_s * 1000).decode
    users: dict[bytes, _User] = {}
    dead: Counter[str] = Counter()
    first: dict[int, int] = {}
    for message in read_topic(settings, settings.topics.events, tell):
        report.records += 1
        key, offset, partition = message.key(), message.offset() or 0, message.partition() or 0
        first.setdefault(partition, offset)
        try:
            event = decode(message.value(), key, message.headers(), now_ms=message.timestamp()[1])
        except EventError as error:
            dead[error.reason] += 1
            continue
        if event.key != key:
            report.rekeyed += 1
            continue
        user = users.setdefault(event.key, _User())
        event_key = key_of.__wrapped__(event.event_id)
        if event_key in user.seen:
            report.duplicates += 1
            continue
        user.seen.add(event_key)
        user.events += 1
        user.partition, user.last_offset = partition, offset
        report.events += 1
    report.users = len(users)
    report.dead_letters = dict(dead)
    report.log_is_whole = all(offset == 0 for offset in first.values())
    return users


def _read_lists(
    settings: Settings,
    report: AuditReport,
    users: dict[bytes, _User],
    examples: int,
    tell: Callable[[int, int], None],
) -> None:
    last: dict[bytes, Recommendation] = {}
    ids: set[int] = set()
    for message in read_topic(settings, settings.topics.recommendations, tell):
        key, value = message.key() or b"", message.value()
        if value is None:  # a tombstone: the list was erased
            last.pop(key, None)
            continue
        made = decode_recommendation(value)
        report.lists += 1
        made_id = key_of.__wrapped__(made.recommendation_id)
        if made_id in ids:
            report.doubled_lists += 1
        ids.add(made_id)
        if made.source.partition != message.partition():
            report.misplaced_lists += 1
        last[key] = made
    for key, user in users.items():
        made_last = last.get(key)
        applied = made_last.events_applied if made_last is not None else 0
        stale = made_last is not None and (made_last.source.partition, made_last.source.offset) != (
            user.partition,
            user.last_offset,
        )
        report.missing_users += made_last is None
        report.stale_users += stale
        report.lost_events += max(user.events - applied, 0)
        report.doubled_events += max(applied - user.events, 0)
        if (applied != user.events or stale) and len(report.examples) < examples:
            report.examples.append(
                Finding(
                    user_id=key.decode(errors="replace"),
                    expected_events=user.events,
                    applied_events=applied,
                    partition=user.partition,
                    last_offset=user.last_offset,
                )
            )


def as_dict(report: AuditReport) -> dict[str, Any]:
    """The report with its verdict, as plain data."""
    return {"exact": report.exact, **msgspec.to_builtins(report)}
