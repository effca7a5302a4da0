"""Was every event counted once? Counted from the topics alone, on any cluster.

    events topic           valid events per user, less those sent twice          -> what a state should hold
    recommendations topic  every list: `events_applied`, source                  -> what it did hold
    dead-letter topic      the records that could not be used                    -> each there once

Only the topics are read, as a reader of committed data sees them; no worker is asked. The recommendations topic is
compacted: on an old log only the last list of each user is left to be counted.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from state.keys import event_key
from stream.contract.control import ERROR_OFFSET, ERROR_PARTITION, ERROR_TOPIC
from stream.contract.event import EventDecoder
from stream.contract.recommendation import Recommendation, decode_recommendation
from stream.dead_letter import headers_of
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
    wrong_lists: int = 0
    """Lists, the last or an earlier one, that do not hold exactly the events up to their own."""
    misplaced_lists: int = 0
    """Lists on another partition than the event they were made at."""
    extra_users: int = 0
    """Users with a list and no event."""
    unlettered: int = 0
    """Unusable records without a dead letter."""
    doubled_letters: int = 0
    """Unusable records with more than one."""
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
            or self.wrong_lists
            or self.misplaced_lists
            or self.extra_users
            or self.unlettered
            or self.doubled_letters
        )


class _User:
    """What the log says of a user: offsets of the valid events, in order, on the partition they are on."""

    __slots__ = ("offsets", "partition", "seen")

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.offsets: list[int] = []
        self.seen: set[int] = set()


class _Log:
    """What the events topic holds."""

    def __init__(self) -> None:
        self.users: dict[bytes, _User] = {}
        self.unusable: set[tuple[int, int]] = set()
        """Partition and offset of each record that must have a dead letter."""
        self.strays: list[tuple[bytes, int]] = []
        """User and event key of each event that must come again under its own key."""


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
    log = _read_events(settings, report, tell)
    _read_lists(settings, report, log.users, examples, tell)
    _read_dead_letters(settings, report, log.unusable, tell)
    return report


def read_topic(
    settings: Settings,
    topic: str,
    tell: Callable[[int, int], None] = lambda *_: None,
    begins: Callable[[int, int], None] = lambda *_: None,
) -> Iterator[Message]:
    """All committed records of a topic up to its present end, in offset order within each partition.

    Args:
        settings: the cluster.
        topic: its name.
        tell: called with (records read, records to read).
        begins: called with (partition, first offset that retention has left) before the first record.

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
        yield from _read_all(consumer, topic, tell, begins)
    finally:
        consumer.close()


def _read_all(
    consumer: Consumer, topic: str, tell: Callable[[int, int], None], begins: Callable[[int, int], None]
) -> Iterator[Message]:
    found = consumer.list_topics(topic, _ASK_S).topics[topic]
    if found.error is not None:
        raise RefusedError(f"topic {topic}: {found.error}. Create it with driftline topics create.")
    starts: list[TopicPartition] = []
    remaining = 0
    for number in found.partitions:
        low, high = watermarks(consumer, topic, number)
        begins(number, low)
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


def _read_events(settings: Settings, report: AuditReport, tell: Callable[[int, int], None]) -> _Log:
    decode = EventDecoder(settings.events.max_bytes, settings.events.max_future_s * 1000).decode
    rekeys = settings.events.mismatched_key == "rekey"
    log = _Log()
    dead: Counter[str] = Counter()
    lows: dict[int, int] = {}
    for message in read_topic(settings, settings.topics.events, tell, lows.__setitem__):
        report.records += 1
        key, offset, partition = message.key(), message.offset() or 0, message.partition() or 0
        try:
            event = decode(message.value(), key, headers_of(message), now_ms=message.timestamp()[1])
            if event.key != key and not rekeys:
                raise EventError("mismatched_key", "the key is not the user")
        except EventError as error:
            dead[error.reason] += 1
            log.unusable.add((partition, offset))
            continue
        own_key = event_key(event.event_id)
        if event.key != key:
            report.rekeyed += 1
            log.strays.append((event.key, own_key))
            continue
        user = log.users.setdefault(event.key, _User(partition))
        if own_key in user.seen:
            report.duplicates += 1
            continue
        user.seen.add(own_key)
        user.offsets.append(offset)
        report.events += 1
    report.users = len(log.users)
    report.dead_letters = dict(dead)
    report.log_is_whole = not any(lows.values())
    for key, stray_key in log.strays:
        owner = log.users.get(key)
        report.lost_events += owner is None or stray_key not in owner.seen
    return log


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
        made_id = event_key(made.recommendation_id)
        report.doubled_lists += made_id in ids
        ids.add(made_id)
        report.misplaced_lists += made.source.partition != message.partition()
        user = users.get(key)
        if user is not None:
            report.wrong_lists += made.events_applied != bisect_right(user.offsets, made.source.offset)
        last[key] = made
    report.extra_users = len(last.keys() - users.keys())
    for key, user in users.items():
        made_last = last.get(key)
        expected = len(user.offsets)
        applied = made_last.events_applied if made_last is not None else 0
        stale = made_last is not None and (made_last.source.partition, made_last.source.offset) != (
            user.partition,
            user.offsets[-1],
        )
        report.missing_users += made_last is None
        report.stale_users += stale
        report.lost_events += max(expected - applied, 0)
        report.doubled_events += max(applied - expected, 0)
        if (applied != expected or stale) and len(report.examples) < examples:
            report.examples.append(
                Finding(
                    user_id=key.decode(errors="replace"),
                    expected_events=expected,
                    applied_events=applied,
                    partition=user.partition,
                    last_offset=user.offsets[-1],
                )
            )


def _read_dead_letters(
    settings: Settings, report: AuditReport, unusable: set[tuple[int, int]], tell: Callable[[int, int], None]
) -> None:
    letters: Counter[tuple[int, int]] = Counter()
    lows: dict[int, int] = {}
    for message in read_topic(settings, settings.topics.dead_letters, tell, lows.__setitem__):
        headers = dict(headers_of(message))
        if headers.get(ERROR_TOPIC) == settings.topics.events.encode():
            letters[int(headers[ERROR_PARTITION] or b"-1"), int(headers[ERROR_OFFSET] or b"-1")] += 1
    report.doubled_letters = sum(count > 1 for count in letters.values())
    if not any(lows.values()):  # else retention has taken letters, and nobody can tell which
        report.unlettered = len(unusable - letters.keys())


def as_dict(report: AuditReport) -> dict[str, Any]:
    """The report with its verdict, as plain data."""
    return {"exact": report.exact, **msgspec.to_builtins(report)}
