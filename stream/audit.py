"""Was every event counted once? Counted from the topics alone, on any cluster.

    events topic           valid events per user, less those sent twice          -> what a state should hold
    recommendations topic  every list: `events_applied`, source                  -> what it did hold
    dead-letter topic      the records that could not be used                    -> each there once
    late topic             the events that came too late to be counted           -> each there once, and late indeed

Only the topics are read, as a reader of committed data sees them; no worker is asked. The recommendations topic is
compacted: on an old log only the last list of each user is left to be counted.
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from state.clock import Watermark
from state.keys import event_key, split_user_key
from stream.brokers import reach
from stream.contract.aliases import USER_ERASED
from stream.contract.control import (
    ERROR_OFFSET,
    ERROR_PARTITION,
    ERROR_TOPIC,
    LATE_BY_MS,
    LATE_GRACE_MS,
    LATE_WATERMARK_MS,
    first_sent_ms,
)
from stream.contract.event import EventDecoder
from stream.contract.recommendation import Recommendation, decode_recommendation
from stream.dead_letter import headers_of
from stream.engine.asking import watermarks
from stream.errors import EventError, RefusedError, StreamError
from stream.late import EventClock, first_record_ms
from stream.pseudonym import pseudonyms_of
from stream.settings import Settings

_FETCH_RECORDS = 5_000
_SILENCE_S = 60.0


class Finding(msgspec.Struct, frozen=True):
    """One user whose list does not agree with the log."""

    user_id: str
    expected_events: int
    applied_events: int
    partition: int
    last_offset: int
    tenant: str = ""


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
    late: int = 0
    """Events that came too late: on the late topic, and counted by no state."""
    erasures: int = 0
    """Requests to erase a user. Whatever the user sent before is in no state and no list any more."""
    erased: int = 0
    """Events that were sent before their user's erasure under a wrong key, and came under their own after it."""
    expired_users: int = 0
    """Users idle for longer than state.expire_after_s whose list is gone."""
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
    unerased_users: int = 0
    """Users with a list although they were erased and have sent nothing since."""
    unlettered: int = 0
    """Unusable records without a dead letter."""
    doubled_letters: int = 0
    """Unusable records with more than one."""
    wrongly_late: int = 0
    """Events on the late topic that were not behind the watermark as it says there, or are on it twice. Counted by
    the present events.correct_skew and future_policy: a log that was taken under others may show some."""
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
            or self.unerased_users
            or self.unlettered
            or self.doubled_letters
            or self.wrongly_late
        )


class _User:
    """What the log says of a user: offsets of the valid events, in order, on the partition they are on."""

    __slots__ = ("erased_ms", "newest_ms", "offsets", "partition", "seen", "starts")

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.offsets: list[int] = []
        self.starts: list[int] = [0]
        """Indexes of `offsets` at which the state began, and began anew: after an erasure, after a long pause."""
        self.seen: dict[int, int] = {}
        """Event key -> which of the states it was counted in, by index of `starts`."""
        self.newest_ms = 0
        """Newest event time of the present state."""
        self.erased_ms = -1
        """Timestamp of the last erasure, ms."""

    def begin_anew(self) -> None:
        if self.starts[-1] < len(self.offsets):
            self.starts.append(len(self.offsets))
        self.newest_ms = 0

    def counts(self, own_key: int, offset: int, at_ms: int) -> bool:
        """Add an event; False when the present state has it already."""
        state = len(self.starts) - 1
        if self.seen.get(own_key) == state:
            return False
        self.seen[own_key] = state
        self.offsets.append(offset)
        self.newest_ms = max(self.newest_ms, at_ms)
        return True

    def expected(self, offset: int) -> int:
        """Events that the state held which a list at `offset` was made of."""
        upto = bisect_right(self.offsets, offset)
        return upto - self.starts[max(bisect_left(self.starts, upto) - 1, 0)]

    @property
    def gone(self) -> bool:
        """Whether the user was erased, and has sent nothing since."""
        return self.starts[-1] == len(self.offsets)


class _Late:
    """What the late topic says: of each event by partition and offset, how it was judged."""

    def __init__(self) -> None:
        self.events: dict[tuple[int, int], tuple[int, int, int]] = {}
        """Partition and offset -> late by, watermark, grace, all in ms."""
        self.doubled = 0
        self.is_whole = True
        """False when retention has removed the topic's beginning."""


class _Log:
    """What the events topic holds."""

    def __init__(self) -> None:
        self.users: dict[bytes, _User] = {}
        self.unusable: set[tuple[int, int]] = set()
        """Partition and offset of each record that must have a dead letter."""
        self.strays: list[tuple[bytes, int]] = []
        """User and event key of each event that must come again under its own key."""
        self.newest_ms: dict[int, int] = {}
        """Partition -> newest event time."""
        self.late: set[tuple[bytes, int]] = set()
        """User and event key of each event that was too late."""


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
    log = _read_events(settings, report, _read_late(settings, tell), tell)
    _read_lists(settings, report, log, examples, tell)
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
        StreamError, RefusedError: see `audit`; BrokerError: no broker answers.
    """
    known = reach(settings.client_properties()).partitions
    if topic not in known:
        raise RefusedError(f"there is no topic {topic}. Create it with driftline topics create.")
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
        yield from _read_all(consumer, topic, known[topic], tell, begins)
    finally:
        consumer.close()


def _read_all(
    consumer: Consumer,
    topic: str,
    partitions: int,
    tell: Callable[[int, int], None],
    begins: Callable[[int, int], None],
) -> Iterator[Message]:
    starts: list[TopicPartition] = []
    remaining = 0
    for number in range(partitions):
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


def _read_late(settings: Settings, tell: Callable[[int, int], None]) -> _Late:
    late = _Late()
    lows: dict[int, int] = {}
    for message in read_topic(settings, settings.topics.late, tell, lows.__setitem__):
        headers = dict(headers_of(message))
        if headers.get(ERROR_TOPIC) == settings.topics.events.encode():
            partition, offset, *judged = [
                int(headers.get(name) or b"-1")
                for name in (ERROR_PARTITION, ERROR_OFFSET, LATE_BY_MS, LATE_WATERMARK_MS, LATE_GRACE_MS)
            ]
            late.doubled += (partition, offset) in late.events
            late.events[partition, offset] = judged[0], judged[1], judged[2]
    late.is_whole = not any(lows.values())
    return late


def _read_events(settings: Settings, report: AuditReport, late: _Late, tell: Callable[[int, int], None]) -> _Log:
    """The events topic. An event is late where the late topic has it: what the grace was then, its headers say. That
    it was behind the watermark is counted again here."""
    decode = EventDecoder(settings.events.max_bytes, max_future_ms=None).decode
    clock = EventClock(settings.events)
    watermarks: dict[int, Watermark] = {}
    pseudonyms = pseudonyms_of(settings) if settings.events.pseudonyms == "worker" else None
    expire_after_ms = settings.state.expire_after_s * 1000
    rekeys = settings.events.mismatched_key == "rekey"
    log = _Log()
    dead: Counter[str] = Counter()
    lows: dict[int, int] = {}
    for message in read_topic(settings, settings.topics.events, tell, lows.__setitem__):
        report.records += 1
        key, offset, partition = message.key(), message.offset() or 0, message.partition() or 0
        try:
            record_ms = message.timestamp()[1]
            headers = headers_of(message)
            event = decode(message.value(), key, headers, now_ms=record_ms)
            at_ms = clock.time_ms(event, first_record_ms(headers, record_ms))
            if event.key != key and not rekeys:
                raise EventError("mismatched_key", "the key is not the user")
        except EventError as error:
            dead[error.reason] += 1
            log.unusable.add((partition, offset))
            continue
        own_key = event_key(event.event_id)
        misplaced = event.key != key
        user_key = event.key if pseudonyms is None else pseudonyms.applied(event).key
        if misplaced:
            report.rekeyed += 1
            log.strays.append((user_key, own_key))
            continue
        watermark = watermarks.setdefault(partition, Watermark())
        before_ms = watermark.time_ms
        late_by_ms = watermark.late_by_ms(at_ms, 0)
        user = log.users.setdefault(user_key, _User(partition))
        sent_ms = first_sent_ms(headers)
        if sent_ms is not None and sent_ms <= user.erased_ms:
            report.erased += 1
            user.seen[own_key] = -1
            continue
        if event.event_type == USER_ERASED:
            report.erasures += 1
            user.seen[own_key] = -1
            user.erased_ms = record_ms
            user.begin_anew()
            continue
        judged = late.events.pop((partition, offset), None)
        if judged is not None or (not late.is_whole and late_by_ms > settings.events.grace_s * 1000):
            report.late += 1
            log.late.add((user_key, own_key))
            report.wrongly_late += judged is not None and (
                judged[:2] != (late_by_ms, before_ms) or late_by_ms <= judged[2]
            )
            continue
        if expire_after_ms and user.newest_ms < watermark.time_ms - expire_after_ms:
            user.begin_anew()
        if user.counts(own_key, offset, at_ms):
            report.events += 1
        else:
            report.duplicates += 1
    log.newest_ms = {number: watermark.time_ms for number, watermark in watermarks.items()}
    report.users = sum(bool(user.offsets) for user in log.users.values())
    report.dead_letters = dict(dead)
    report.log_is_whole = not any(lows.values())
    for key, stray_key in log.strays:
        owner = log.users.get(key)
        came_back = (owner is not None and stray_key in owner.seen) or (key, stray_key) in log.late
        report.lost_events += not came_back
    # What is left is of a record that the log does not have, or that is no event.
    report.wrongly_late += late.doubled + (len(late.events) if report.log_is_whole else 0)
    return log


def _read_lists(
    settings: Settings,
    report: AuditReport,
    log: _Log,
    examples: int,
    tell: Callable[[int, int], None],
) -> None:
    users = log.users
    expire_after_ms = settings.state.expire_after_s * 1000
    last: dict[bytes, Recommendation] = {}
    ids: set[int] = set()
    for message in read_topic(settings, settings.topics.recommendations, tell):
        key, value = message.key() or b"", message.value()
        if value is None:  # a tombstone: its user was erased, or idle for long
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
            report.wrong_lists += made.events_applied != user.expected(made.source.offset)
        last[key] = made
    report.extra_users = len(last.keys() - users.keys())
    for key, user in users.items():
        made_last = last.get(key)
        if user.gone:
            report.unerased_users += made_last is not None
            continue
        if made_last is None and expire_after_ms:
            newest_ms = log.newest_ms.get(user.partition, 0)
            if user.newest_ms < newest_ms - expire_after_ms:
                report.expired_users += 1
                continue
        expected = user.expected(user.offsets[-1])
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
                    user_id=split_user_key(key)[0],
                    tenant=split_user_key(key)[1],
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
