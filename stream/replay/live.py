"""A log produced onto the live events topic, once each row, however often it is killed and run again.

    rows ──(those that are done are passed over, paced)──> transaction: events, and how far the log is done
                                                                        (offsets of driftline-replay-ID)

How far the log is done stands in Kafka, committed with the events themselves: of files the number of their rows, as the
offset of partition 0 of the events topic; of topics their own offsets. The group is the replay's own. Kafka forgets it
when it was unused for offsets.retention.minutes (7 days unless set otherwise): a replay must go on before that, and one
that left a marker says so where it did not.

The embedded broker isolates no transactions: there each commit is a flush and then the offsets, and a killed replay
sends the rows since its last commit again.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from stream.brokers import reach
from stream.engine.asking import patiently
from stream.errors import ReplayError, TopicError
from stream.produce import producer_properties
from stream.replay import guard
from stream.replay.pace import Pace
from stream.replay.rows import Row
from stream.settings import Settings

_ROWS = 10_000
"""Of one transaction, at most: a commit costs some 10 ms."""
_GATHER_S = 0.1
"""Paced rows that are due within so long go together."""
_AT_ONCE = 256
"""Rows between two looks at a pause, where they are not paced."""
_ASK_S = 30.0
_RETRY_S = 60.0
_RETRY_PAUSE_S = 0.1
_MAX_ABORTS_IN_A_ROW = 5

logger = logging.getLogger(__name__)

Place = tuple[str, int]


@dataclass
class LiveCounts:
    """What a run did. exactly_once: False on the embedded broker."""

    sent: int = 0
    before: int = 0
    """Rows that earlier runs had sent."""
    seconds: float = 0.0
    newest_ms: int = -1
    """The newest event time, ms since 1970; -1: none."""
    stopped: bool = False
    """Before the end of the log: run again, it goes on."""
    exactly_once: bool = True


def group_of(replay_id: str) -> str:
    """The group whose offsets say how far a replay is done, and the id of its transactions."""
    return f"driftline-replay-{replay_id}"


def replay_live(
    settings: Settings,
    log: Iterable[list[Row]],
    names: Sequence[str],
    *,
    replay_id: str,
    marker: Path | None = None,
    pace: Pace | None = None,
    on_progress: Callable[[LiveCounts], None] = lambda _: None,
    stopping: Callable[[], bool] = lambda: False,
) -> LiveCounts:
    """Produce the rows of `log` onto the events topic, in order, keyed by user to murmur2's partition.

    Args:
        settings: the live ones.
        log: all rows, from the first on, also of a run that goes on; pseudonyms are its business.
        names: of its files and topics, as `Row.file` numbers them.
        replay_id: tells this replay from others; the same for a run that goes on.
        marker: a file that is made when rows were sent, to know by if Kafka has forgotten it; None: nobody would know.
        pace: when events are due; None: as fast as it goes.
        on_progress: told after each commit.
        stopping: asked between transactions; give it to the pace, too.

    Raises:
        BrokerError: no broker answers.
        RefusedError: the log is the events topic itself, or the replay's group the live one.
        TopicError: the events topic is missing.
        ReplayError: the log is not what it was, Kafka has forgotten how far it was done, or the broker does not take
            it: run again, it goes on.
    """
    events = settings.topics.events
    cluster = reach(settings.client_properties())
    if events not in cluster.partitions:
        raise TopicError(f"topic {events} is missing. Create it: driftline topics create")
    topics = [name for name in names if name in cluster.partitions]
    guard.check(settings, "live", writes=[events], commits=[group_of(replay_id)], reads=topics)
    places = [(name, number) for name in topics for number in range(cluster.partitions[name])]
    counts = LiveCounts(exactly_once=not cluster.embedded)
    began_s = time.monotonic()
    with contextlib.closing(_Sender(settings, replay_id, transactional=not cluster.embedded)) as sender:
        done = _Done(sender.committed([(events, 0), *places]), (events, 0), names)
        if marker is not None and marker.exists() and not done.any_before:
            raise ReplayError(
                f"an earlier run sent rows to {events}, but Kafka has forgotten how many (group "
                f"{group_of(replay_id)}, offsets.retention.minutes). See what is there; then begin anew with --fresh, "
                "from where it stopped (--from)."
            )
        for rows in _gathered(_cut(log, done, counts, pace), pace):
            counts.stopped = stopping()
            if counts.stopped:
                break
            sender.send(rows, done.offsets(rows))
            if marker is not None and not counts.sent:
                marker.touch()
            counts.sent += len(rows)
            counts.newest_ms = max(counts.newest_ms, max(row.time_ms for row in rows))
            counts.seconds = time.monotonic() - began_s
            on_progress(counts)
    return counts


def _cut(log: Iterable[list[Row]], done: _Done, counts: LiveCounts, pace: Pace | None) -> Iterator[list[Row]]:
    """The rows that are left to do, as many as are due together."""
    size = 1 if pace is not None and pace.speed is not None else _AT_ONCE
    for block in log:
        rows = done.left(block)
        counts.before += len(block) - len(rows)
        for at in range(0, len(rows), size):
            yield rows[at : at + size]


def _gathered(due_together: Iterable[list[Row]], pace: Pace | None) -> Iterator[list[Row]]:
    """When they are due, as many as go into one transaction. None is held back while a later one is waited for."""
    gathered: list[Row] = []
    began_s = 0.0
    for rows in due_together:
        if pace is not None:
            if gathered and (pace.due_s(rows[0].time_ms) > _GATHER_S or time.monotonic() - began_s > _GATHER_S):
                yield gathered
                gathered = []
            pace.wait(rows[0].time_ms)
        if not gathered:
            began_s = time.monotonic()
        gathered += rows
        if len(gathered) >= _ROWS:
            yield gathered
            gathered = []
    if gathered:
        yield gathered


class _Done:
    """How far a log is done.

    Args:
        committed: what was committed of each place.
        files: the place whose offset is the number of rows of files.
        names: of the log's files and topics.
    """

    def __init__(self, committed: dict[Place, TopicPartition], files: Place, names: Sequence[str]) -> None:
        self._files, self._names = files, names
        self._before = {place: max(at.offset, 0) for place, at in committed.items()}
        self._digest = committed[files].metadata or ""
        self._next = dict(self._before)
        self._changed: dict[Place, Row] = {}
        self._seen = 0  # rows of files that the log gave

    @property
    def any_before(self) -> bool:
        """Whether earlier runs did anything."""
        return any(self._before.values())

    def left(self, rows: list[Row]) -> list[Row]:
        """Those that no earlier run did. Raises ReplayError when the log is not what it was."""
        left = []
        files_before = self._before[self._files]
        for row in rows:
            if row.partition >= 0:
                if row.offset >= self._before[self._names[row.file], row.partition]:
                    left.append(row)
                continue
            self._seen += 1
            if self._seen > files_before:
                left.append(row)
            elif self._seen == files_before and self._digest not in ("", _digest(row)):
                raise ReplayError(
                    f"{self._names[row.file]}, row {row.number}: is not what this replay sent there before. The log "
                    "has changed: replay it as it was, or as another replay."
                )
        return left

    def offsets(self, rows: list[Row]) -> list[TopicPartition]:
        """What to commit with these rows, the next ones."""
        last: dict[Place, Row] = {}
        for row in rows:
            if row.partition >= 0:
                place = self._names[row.file], row.partition
                self._next[place] = row.offset + 1
            else:
                place = self._files
                self._next[place] += 1
            last[place] = row
        return [
            TopicPartition(*place, self._next[place], metadata=_digest(row) if place == self._files else "")
            for place, row in last.items()
        ]


def _digest(row: Row) -> str:
    return blake2b(row.key + b"\0" + (row.value or b""), digest_size=8).hexdigest()


class _Sender:
    """Sends rows, and with them commits how far the log is done.

    Raises:
        ReplayError: the broker refuses transactions.
    """

    def __init__(self, settings: Settings, replay_id: str, *, transactional: bool) -> None:
        self._topic, self._transactional = settings.topics.events, transactional
        self._failed: list[KafkaError] = []
        group = group_of(replay_id)
        more: dict[str, Any] = {"delivery.report.only.error": True, "on_delivery": self._note}
        if transactional:
            more |= {"transactional.id": group, "transaction.timeout.ms": settings.worker.transaction_timeout_ms}
        self._producer = Producer(settings.client_properties({**producer_properties(settings), **more}))
        # read_committed asks for *stable* offsets: none of a run just killed that may yet be aborted.
        reader = {"group.id": group, "enable.auto.commit": False, "isolation.level": "read_committed"}
        self._consumer = Consumer(settings.client_properties(reader))
        if transactional:
            try:
                _retrying(self._producer.init_transactions, _ASK_S)  # ends what a killed run left open
            except KafkaException as error:
                raise _refused(error.args[0]) from None

    def committed(self, places: list[Place]) -> dict[Place, TopicPartition]:
        """What was committed of each place. Raises ReplayError."""
        try:
            found = patiently(lambda: self._consumer.committed([TopicPartition(*place) for place in places], _ASK_S))
            for at in found:
                if at.error is not None:
                    raise KafkaException(at.error)
        except KafkaException as error:
            raise _refused(error.args[0]) from None
        return {(at.topic, at.partition): at for at in found}

    def send(self, rows: list[Row], offsets: list[TopicPartition]) -> None:
        """Send rows, all or none, and commit these offsets with them. Raises ReplayError."""
        for attempt in range(1, _MAX_ABORTS_IN_A_ROW + 1):
            self._failed.clear()
            try:
                self._transact(rows, offsets)
                return
            except KafkaException as exc:
                error = exc.args[0]
                if self._transactional and not error.fatal():
                    self._abort()
                if not error.txn_requires_abort() or attempt == _MAX_ABORTS_IN_A_ROW:
                    raise _refused(self._failed[0] if self._failed else error) from None
                logger.warning("transaction aborted: %s", error)

    def _abort(self) -> None:
        try:
            _retrying(self._producer.abort_transaction, _ASK_S)
        except KafkaException as error:
            raise _refused(error.args[0]) from None

    def _transact(self, rows: list[Row], offsets: list[TopicPartition]) -> None:
        if self._transactional:
            self._producer.begin_transaction()
        try:
            for row in rows:
                self._produce(row)
        except KafkaException as exc:
            if self._transactional and exc.args[0].code() == KafkaError._STATE:
                # It failed in the background; only its commit tells how, and whether to abort.
                self._producer.commit_transaction(_ASK_S)
            raise
        if self._transactional:
            metadata = self._consumer.consumer_group_metadata()
            _retrying(self._producer.send_offsets_to_transaction, offsets, metadata, _ASK_S)
            _retrying(self._producer.commit_transaction, _ASK_S)
        else:
            left = self._producer.flush(_ASK_S)
            if left or self._failed:
                raise KafkaException(self._failed[0] if self._failed else KafkaError(KafkaError._TIMED_OUT))
            patiently(lambda: self._consumer.commit(offsets=offsets, asynchronous=False))

    def _produce(self, row: Row) -> None:
        headers = list(row.headers) or None
        end_s = time.monotonic() + _ASK_S
        while True:
            try:
                self._producer.produce(self._topic, row.value, row.key or None, headers=headers)
                return
            except BufferError:  # more on the way than the client holds: wait for some to arrive
                if time.monotonic() > end_s:
                    raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from None
                self._producer.poll(0.1)

    def _note(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._failed.append(error)

    def close(self) -> None:
        """Release the clients; a transaction that is open is given up, so that nobody waits for its timeout."""
        self._consumer.close()
        self._producer.purge()
        if self._transactional:
            with contextlib.suppress(KafkaException):  # that none is open, mostly
                self._producer.abort_transaction(_ASK_S)


def _retrying(call: Callable[..., Any], *args: Any) -> None:
    """Raises KafkaException when it fails for another reason than one that passes, or for too long."""
    end_s = time.monotonic() + _RETRY_S
    while True:
        try:
            call(*args)
            return
        except KafkaException as exc:
            error = exc.args[0]
            if not error.retriable() or error.txn_requires_abort() or time.monotonic() > end_s:
                raise
            logger.warning("again, after: %s", error)
            time.sleep(_RETRY_PAUSE_S)


def _refused(error: KafkaError) -> ReplayError:
    return ReplayError(
        f"the broker does not take the replay: {error.str()}. Is another run of it going on? See to the broker, then "
        "run it again: it goes on where it stopped."
    )
