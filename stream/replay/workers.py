"""One replay on all cores: a parent that reads the log, and processes that share its partitions.

    Log ──> Places ──┬─ records of its partitions ──> process 1: Share
    (parent, once)   ├─ ...                       ──> process 2: Share
                     └─ counts, errors <───────────── ...

A process that loses its parent stops at its last commit; so does one that is told to stop. Run again, the replay
reads the log from its beginning (a topic from where the states are) and passes over what they know.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import multiprocessing
import queue
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Protocol

import msgspec

from model.errors import ArtifactError
from state.errors import DriftlineError
from stream.errors import RefusedError, ReplayError
from stream.replay.pace import Pace
from stream.replay.places import Places
from stream.replay.process import Share
from stream.replay.record import LogRecord
from stream.replay.rows import Row

_FRAMES_WAITING = 64
"""Blocks of the log that may wait for a process: it must not starve while another is fed."""
_TELL_EVERY_S = 0.5
_PACED_ROWS = 64
_COLLECT_EVERY = 200_000


ENDS = ("applied", "duplicate", "late", "dead_letter", "erased", "rekeyed")
"""What becomes of a record: one of these, as `driftline_events` counts them."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What every process of a replay needs to know beside the settings."""

    partitions: int
    chunk_records: int = 8192
    work: str
    """The work folder."""
    out: str | None
    """Folder of what is sent; None: it is not kept."""
    first_offset: int = 0
    """Of each partition, for rows of files."""
    keeps_places: bool = False
    """The log is one topic, whose rows stay where they are."""
    now_ms: int
    """When rows without a record's timestamp came, ms since 1970: when the replay was first begun."""
    share: tuple[int, int] = (0, 1)
    """(k, n): of the partitions those with number % n == k. Others replay the rest."""


class Lane(Protocol):
    """A share, here or in another process."""

    numbers: frozenset[int]

    def next_offsets(self) -> dict[int, int]:
        """See Share. To be asked before the first `send`."""

    def send(self, records: Mapping[int, list[LogRecord]]) -> None:
        """The next records of its partitions."""

    def counts(self) -> Counter[str]:
        """See Share; of another process as it last told."""

    def finish(self) -> None:
        """The log has ended."""

    def wait(self) -> None:
        """After `finish`: until all is kept."""

    def close(self) -> None:
        """Stop where it is, and release everything."""


class LocalLane:
    """A share in this process."""

    def __init__(self, share: Share, numbers: Iterable[int]) -> None:
        self._share = share
        self.numbers = frozenset(numbers)
        self.next_offsets, self.counts = share.next_offsets, share.counts
        self.finish, self.close = share.finish, share.close

    def send(self, records: Mapping[int, list[LogRecord]]) -> None:
        """See Lane."""
        for number, run in records.items():
            self._share.take(number, run)

    def wait(self) -> None:
        """See Lane."""


class _Told(msgspec.Struct, omit_defaults=True):
    """What a process tells its parent. The first has the offsets, the last says that it is done or why it failed."""

    counts: dict[str, int] = {}
    next_offsets: dict[int, int] | None = None
    done: bool = False
    failed: str = ""
    refused: bool = False
    """It failed before it began: a model that is not there, a broker that does not answer."""


_encode = msgspec.msgpack.Encoder().encode
_decode_records = msgspec.msgpack.Decoder(dict[int, list[LogRecord]]).decode
_decode_told = msgspec.msgpack.Decoder(_Told).decode
_FINISH = b""  # no block of records is empty


class ProcessLane:
    """A share in a process of its own.

    Args:
        make: makes the share, in that process; what can be pickled.
        numbers: its partitions.
    """

    def __init__(self, make: Callable[[Sequence[int]], Share], numbers: Iterable[int]) -> None:
        self.numbers = frozenset(numbers)
        context = multiprocessing.get_context("spawn")  # a fork would copy librdkafka's and torch's threads half
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_run_share, args=(make, sorted(self.numbers), theirs), daemon=True)
        self._process.start()
        atexit.register(self._process.kill)  # where nobody closes: Python's own SIGTERM it ignores, and is waited for
        theirs.close()
        self._told = _Told()
        self._frames: queue.Queue[bytes | None] = queue.Queue(_FRAMES_WAITING)
        self._sender = threading.Thread(target=self._send_frames, daemon=True)
        self._sender.start()

    def _send_frames(self) -> None:
        gone = False
        while (frame := self._frames.get()) is not None:
            try:
                if not gone:
                    self._pipe.send_bytes(frame)
            except OSError:  # it has ended; why, it told, or its exit code does: see _hear
                gone = True

    def next_offsets(self) -> dict[int, int]:
        """See Lane."""
        while self._told.next_offsets is None:
            self._hear(None)
        return self._told.next_offsets

    def send(self, records: Mapping[int, list[LogRecord]]) -> None:
        """See Lane."""
        frame = _encode(records)
        while True:
            self._hear(0)
            try:
                self._frames.put(frame, timeout=1.0)
                return
            except queue.Full:
                continue

    def counts(self) -> Counter[str]:
        """See Lane."""
        self._hear(0)
        return Counter(self._told.counts)

    def finish(self) -> None:
        """See Lane."""
        self._frames.put(_FINISH)

    def wait(self) -> None:
        """See Lane."""
        while not self._told.done:
            self._hear(None)

    def close(self) -> None:
        """See Lane."""
        self._frames.put(None)
        self._sender.join()
        self._pipe.close()
        self._process.join()

    def _hear(self, wait_s: float | None) -> None:
        """Take in what the process has told; None: wait for something.

        Raises:
            ReplayError: it failed.
            RefusedError: it was refused before it began.
        """
        if self._told.done:
            return
        while self._pipe.poll(wait_s):
            try:
                told = _decode_told(self._pipe.recv_bytes())
            except (EOFError, OSError):
                self._process.join()
                raise ReplayError(
                    f"a process of the replay ended with exit code {self._process.exitcode} and told nothing: was it "
                    "killed, or out of memory? Run again: the replay goes on where it stopped."
                ) from None
            if told.failed:
                raise (RefusedError if told.refused else ReplayError)(told.failed)
            offsets = self._told.next_offsets if told.next_offsets is None else told.next_offsets
            self._told = told
            self._told.next_offsets = offsets
            if told.done:  # what follows is its end
                return
            wait_s = 0


def _run_share(make: Callable[[Sequence[int]], Share], numbers: Sequence[int], pipe: Connection) -> None:
    """The life of a process: until the log ends, or its parent stops or is gone."""
    for told in (signal.SIGINT, signal.SIGTERM):  # both may reach all of the group; the parent decides
        signal.signal(told, signal.SIG_IGN)
    try:
        share = make(numbers)
        try:
            pipe.send_bytes(_encode(_Told(dict(share.counts()), share.next_offsets())))
            told_s = time.monotonic()
            while True:
                try:
                    frame = pipe.recv_bytes()
                except (EOFError, ConnectionResetError):  # the latter where the parent has not heard all we told
                    return  # told to stop, or left alone
                if frame == _FINISH:
                    share.finish()
                    pipe.send_bytes(_encode(_Told(dict(share.counts()), done=True)))
                    return
                for number, run in _decode_records(frame).items():
                    share.take(number, run)
                if time.monotonic() - told_s > _TELL_EVERY_S:
                    told_s = time.monotonic()
                    pipe.send_bytes(_encode(_Told(dict(share.counts()))))
        finally:
            share.close()
    except ConnectionError:  # the parent is gone; what was committed stands
        return
    except DriftlineError as error:
        with contextlib.suppress(ConnectionError):
            refused = isinstance(error, RefusedError | ArtifactError)
            pipe.send_bytes(_encode(_Told(failed=str(error), refused=refused)))


@dataclass
class Outcome:
    """What came of a replay. counts: of all its runs, this one included; before: records among them that earlier runs
    replayed; records: taken from the log in this run, those that are known and those of other shares included."""

    counts: Counter[str] = field(default_factory=Counter)
    before: int = 0
    records: int = 0
    seconds: float = 0.0
    newest_ms: int = -1
    """The newest event time, ms since 1970; -1: none."""
    stopped: bool = False
    """Before the end of the log: run again, it goes on."""

    @property
    def replayed(self) -> int:
        """Records that this run replayed and kept."""
        return sum(self.counts[kind] for kind in ENDS) - self.before

    @property
    def events_per_s(self) -> float:
        """Of this run."""
        return self.replayed / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Watching:
    """What a replay asks and tells meanwhile."""

    pace: Pace | None = None
    """None: as fast as it goes."""
    on_progress: Callable[[Outcome], None] = lambda _: None
    """Told now and then."""
    stopping: Callable[[], bool] = lambda: False
    """Asked between blocks."""


def run(
    log: Iterable[list[Row]], names: Sequence[str], plan: Plan, shares: Sequence[Lane], watching: Watching
) -> Outcome:
    """Hand the rows of `log` to the shares until it ends or is to stop.

    names: of the log's files, as `Row.file` numbers them; may grow meanwhile.

    Raises:
        ReplayError: see Share, Log.
    """
    places = Places(plan.partitions, plan.first_offset, keeps_places=plan.keeps_places, now_ms=plan.now_ms)
    outcome = Outcome()
    for lane in shares:  # until all are there, and have told what they know
        lane.next_offsets()
    began_s = told_s = time.monotonic()
    wanted = frozenset().union(*(lane.numbers for lane in shares))
    known = sum((lane.counts() for lane in shares), Counter[str]())
    outcome.before = sum(known[kind] for kind in ENDS)

    def tell() -> None:
        outcome.seconds = time.monotonic() - began_s
        outcome.counts = Counter()
        for lane in shares:
            outcome.counts.update(lane.counts())
        watching.on_progress(outcome)

    for rows in _uncollected(_paced(log, watching.pace)):
        if watching.stopping():
            outcome.stopped = True
            break
        outcome.records += len(rows)
        outcome.newest_ms = max(outcome.newest_ms, max(row.time_ms for row in rows))
        found = places.records(rows, names, wanted)
        for lane in shares:
            own = {number: run for number, run in found.items() if number in lane.numbers}
            if own:
                lane.send(own)
        if time.monotonic() - told_s > _TELL_EVERY_S:
            told_s = time.monotonic()
            tell()
    if not outcome.stopped:
        if not plan.keeps_places:
            _check_reached(places, shares)
        for lane in shares:
            lane.finish()
        for lane in shares:
            lane.wait()
    tell()
    return outcome


def _check_reached(places: Places, shares: Sequence[Lane]) -> None:
    """Raises ReplayError where a log of files has ended before the place that an earlier run had come to."""
    for lane in shares:
        for number, reached in lane.next_offsets().items():
            if missing := max(reached - places.next_offset[number], 0):
                raise ReplayError(
                    f"the log has {missing} rows less than this replay read of partition {number} before: begin anew "
                    "with --fresh, or replay the log as it was."
                )


def _uncollected(log: Iterable[list[Row]]) -> Iterator[list[Row]]:
    """The log, read with fewer collections of garbage: rows make none in cycles, and looking is a third of reading."""
    before = gc.get_threshold()
    gc.set_threshold(_COLLECT_EVERY, *before[1:])
    try:
        yield from log
    finally:
        gc.set_threshold(*before)


def _paced(log: Iterable[list[Row]], pace: Pace | None) -> Iterable[list[Row]]:
    """The blocks of the log, smaller and when they are due."""
    if pace is None:
        yield from log
        return
    for rows in log:
        size = len(rows) if pace.speed is None else _PACED_ROWS  # small frames would let processes starve
        for at in range(0, len(rows), size):
            block = rows[at : at + size]
            pace.wait(block[0].time_ms)
            yield block
