"""The in-process replay of some partitions: the worker's agent over a log, without a broker.

    LogRecord ──> run of its partition ──> Chunk ──> InterestAgent ──> puts  ──> store, with the place reached
                  (ends at a border)                              └──> sends ──> target

It is what `stream.engine.cycle` is to a worker. A chunk ends where a partition's offset is a multiple of
`chunk_records`, wherever the reading, a kill or another number of processes cut the log: that is why all of these give
the same bytes. Places and outputs stand in the store with the states they belong to, in one write.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

import msgspec
from prometheus_client import CollectorRegistry

from model.artifact import load_artifact
from model.recommender import Portion, Recommender
from state.errors import DriftlineError
from state.store import RocksStore
from stream.agents.interest import InterestAgent
from stream.catalog import ItemsReader
from stream.engine import Chunk
from stream.engine.cycle import Partition
from stream.erasure import ErasureLog
from stream.errors import ReplayError
from stream.metrics import Metrics
from stream.replay.outputs import PartitionFiles
from stream.replay.record import LogRecord
from stream.settings import Settings

PROGRESS_KEY = b"\0replay"
"""Of the record of `Progress` in a store. A user's key never begins with a zero byte."""
_BATCH_RECORDS = 65_536
"""Runs are handed to the agent together from so many records on: a call of the network costs as much for one user as
for some."""
_FLUSH_EVERY_S = 10.0


class Progress(msgspec.Struct, array_like=True):
    """How far the replay of a partition has come, and what came of it."""

    next_offset: int | None = None
    """The first offset that its state does not know; None: nothing was read."""
    digest: bytes = b""
    """Of the last record, to tell the log from another."""
    outputs: dict[str, int] = {}
    """Bytes of its output files by kind."""
    counts: dict[str, int] = {}
    """Records by what became of them, as `driftline_events` counts them, and `lists`."""


class Target(Protocol):
    """Where the puts and sends of one share's chunks go."""

    def open(self, number: int) -> Partition:
        """The partition, with its store as the last commit left it. Raises ReplayError, StoreError."""

    def progress(self, number: int) -> Progress:
        """How far an open partition has come."""

    def commit(self, chunks: Sequence[Chunk], progress: Mapping[int, Progress]) -> None:
        """Keep what the agent made of chunks, at most one a partition, and the progress made with them, by partition.

        Raises:
            ReplayError: it cannot be kept.
        """

    def flush(self) -> None:
        """Let nothing that was committed be lost by a kill."""

    def close(self) -> None:
        """Flush and release everything."""


class FolderTarget:
    """States in stores under a work folder, and what was sent as files under OUT.

    Args:
        settings: names of topics.
        work: stores are WORK/stores/<partition>.db.
        out: OUT; None: nothing but the states is kept.
    """

    def __init__(self, settings: Settings, work: Path, out: Path | None) -> None:
        self._settings, self._work, self._out = settings, work, out
        self._stores: dict[int, RocksStore] = {}
        self._files: dict[int, PartitionFiles] = {}

    def open(self, number: int) -> Partition:
        """See Target."""
        topics = self._settings.topics
        store = self._stores[number] = RocksStore(store_path(self._work, number))
        if self._out is not None:
            with self._keeping():
                self._files[number] = PartitionFiles(self._out, number, topics, self.progress(number).outputs)
        return Partition(topics.events, number, topics.changelog, store, 0)

    def progress(self, number: int) -> Progress:
        """See Target."""
        return read_progress(self._stores[number])

    def commit(self, chunks: Sequence[Chunk], progress: Mapping[int, Progress]) -> None:
        """See Target."""
        for chunk in chunks:
            number = chunk.partition.number
            files = self._files.get(number)
            reached = progress[number]
            with self._keeping():
                if files is not None:
                    files.write(chunk)
                    reached.outputs = files.lengths
                self._stores[number].write([*chunk.puts, (PROGRESS_KEY, encode_progress(reached))], None)

    def flush(self) -> None:
        """See Target."""
        with self._keeping():
            for number, store in self._stores.items():
                if number in self._files:
                    self._files[number].sync()
                store.flush()

    def close(self) -> None:
        """See Target."""
        self.flush()
        with self._keeping():
            for files in self._files.values():
                files.close()
            for store in self._stores.values():
                store.close()
        self._files.clear()
        self._stores.clear()

    @contextlib.contextmanager
    def _keeping(self) -> Iterator[None]:
        """Whatever a disk does to us, a full one above all, as ReplayError."""
        try:
            yield
        except DriftlineError:
            raise
        except Exception as error:  # rocksdict raises bare Exception
            kept = self._work if self._out is None else f"{self._work} or {self._out}"
            raise ReplayError(
                f"{kept} cannot be written: {error}. Mend that (is the disk full?) and run again: the replay goes on "
                "where it stopped."
            ) from error


def store_path(work: Path, number: int) -> Path:
    """Where the states of a partition are."""
    return work / "stores" / f"{number:05d}.db"


def read_progress(store: RocksStore) -> Progress:
    """How far the replay into a store has come. Raises ReplayError when its record cannot be read."""
    (record,) = store.get_many([PROGRESS_KEY])
    try:
        return Progress() if record is None else _decode(record)
    except msgspec.DecodeError as error:
        raise ReplayError(f"how far the replay had come cannot be read ({error}); begin anew with --fresh.") from error


encode_progress = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Progress).decode


class Share:
    """The partitions of one process.

    Args:
        settings: all settings; `worker.lists` says which lists are made.
        target: where states and lists go.
        numbers: the partitions.
        partitions: how many there are in all.
        chunk_records: borders of chunks.
        now_ms: stamps confirmations of erasures, ms since 1970: the same in every run of a replay.
        reads_broker: whether a broker tells of items (the items topic as it is now) and of erased users, whose earlier
            events are left out.
        past: all offsets are before the log's own: see stream.replay.backfill.
        observer: told of every chunk that was processed and is not yet committed, such as stream.replay.judge.

    Raises:
        ArtifactError: the model cannot be used.
        ReplayError, StoreError: what is there of an earlier run cannot be gone on with.
    """

    def __init__(
        self,
        settings: Settings,
        target: Target,
        numbers: Sequence[int],
        partitions: int,
        chunk_records: int,
        now_ms: int,
        *,
        reads_broker: bool = False,
        past: bool = False,
        observer: Callable[[Chunk, Portion], None] = lambda _, __: None,
    ) -> None:
        self._target = target
        self._partitions = partitions
        self._chunk_records = chunk_records
        self._observe = observer
        topics = settings.topics
        self._late, self._dead, self._rekey = topics.late, topics.dead_letters, topics.rekey
        self._recommendations = topics.recommendations
        recommender = Recommender(
            load_artifact(Path(settings.model.path)), settings.state_settings(), settings.ranking_settings()
        )
        erasures, catalog = None, None
        if reads_broker:
            erasures = ErasureLog(settings, past=past)
            erasures.catch_up()
            items = ItemsReader(settings, Metrics(CollectorRegistry()), recommender.pipeline.catalog_changed)
            items.catch_up()
            items.stop()
            catalog = items.catalog
        self._agent = InterestAgent(
            settings,
            recommender,
            Metrics(CollectorRegistry()),
            lambda: now_ms,
            erasures=erasures,
            catalog=catalog,
            stamp_ms=lambda chunk: chunk.memo["watermark"].time_ms,
        )
        try:
            self._open = {number: target.open(number) for number in numbers}
            self._progress = {number: target.progress(number) for number in numbers}
        except DriftlineError:
            target.close()
            raise
        self._pending: dict[int, list[LogRecord]] = {number: [] for number in numbers}
        self._ready: dict[int, list[LogRecord]] = {}
        self._ready_records = 0
        self._flushed_s = time.monotonic()

    def next_offsets(self) -> dict[int, int]:
        """By partition the first offset that is not in its state; partitions of which nothing was read are absent."""
        return {
            number: progress.next_offset
            for number, progress in self._progress.items()
            if progress.next_offset is not None
        }

    def counts(self) -> Counter[str]:
        """What became of all records so far, earlier runs of this replay included."""
        total: Counter[str] = Counter()
        for progress in self._progress.values():
            total.update(progress.counts)
        return total

    def take(self, number: int, records: list[LogRecord]) -> None:
        """The next records of a partition, in order of offsets; those that its state knows are passed over.

        Raises:
            ReplayError: the log is not that which the replay began with.
        """
        reached = self._progress[number]
        if reached.next_offset is not None and records[0].place[1] < reached.next_offset:
            records = _unknown(records, reached)
            if not records:
                return
        size, pending = self._chunk_records, self._pending[number]
        begin = 0
        border = ((pending or records)[0].place[1] // size + 1) * size
        if records[-1].place[1] >= border:
            for at, record in enumerate(records):
                offset = record.place[1]
                if offset >= border:
                    pending += records[begin:at]
                    self._close(number)
                    pending = self._pending[number]
                    begin, border = at, (offset // size + 1) * size
        pending += records[begin:]
        if pending[-1].place[1] == border - 1:
            self._close(number)

    def _close(self, number: int) -> None:
        """The pending run of a partition is whole."""
        run = self._pending[number]
        if not run:
            return
        if number in self._ready:
            self._process()
        self._pending[number] = []
        self._ready[number] = run
        self._ready_records += len(run)
        if self._ready_records >= _BATCH_RECORDS:
            self._process()

    def _process(self) -> None:
        chunks = [Chunk(self._open[number], run, lambda _: None) for number, run in self._ready.items()]
        self._ready = {}
        self._ready_records = 0
        if not chunks:
            return
        portions = self._agent.process(chunks, self._partitions)
        for chunk, portion in zip(chunks, portions, strict=True):
            self._note(chunk, portion)
            self._observe(chunk, portion)
        self._target.commit(chunks, self._progress)
        if time.monotonic() - self._flushed_s > _FLUSH_EVERY_S:
            self._target.flush()
            self._flushed_s = time.monotonic()

    def _note(self, chunk: Chunk, portion: Portion) -> None:
        """What became of each record of a chunk."""
        reached = self._progress[chunk.partition.number]
        last = chunk.records[-1]
        reached.next_offset = last.place[1] + 1
        reached.digest = _digest(last)
        counts = Counter(reached.counts)
        sent = Counter(topic for topic, *_ in chunk.sends)
        found = {
            "late": sent[self._late],
            "dead_letter": sent[self._dead],
            "rekeyed": sent[self._rekey],
            "duplicate": len(portion.duplicates),
            "applied": len(portion.batch) - len(portion.duplicates),
        }
        found["erased"] = len(chunk.records) - sum(found.values())  # events of the erased, and erasures themselves
        found["lists"] = sum(value is not None for topic, value, *_ in chunk.sends if topic == self._recommendations)
        counts.update({name: count for name, count in found.items() if count})
        reached.counts = dict(counts)

    def finish(self) -> None:
        """The log has ended: what is pending is whole, too."""
        for number in self._pending:
            self._close(number)
        self._process()
        self._target.flush()

    def close(self) -> None:
        """Release everything. What is pending is left for the next run: a chunk that is not whole would be another."""
        self._process()
        self._target.close()


def _unknown(records: list[LogRecord], reached: Progress) -> list[LogRecord]:
    """Those after the place reached."""
    next_offset = reached.next_offset or 0
    for at, record in enumerate(records):
        if record.place[1] == next_offset - 1 and _digest(record) != reached.digest:
            raise ReplayError(
                f"{record.log}, row {record.number}: is not what this replay read there before. The log has "
                "changed: begin anew with --fresh, or replay the log as it was."
            )
        if record.place[1] >= next_offset:
            return records[at:]
    return []


def _digest(record: LogRecord) -> bytes:
    return blake2b((record.user or b"") + b"\0" + (record.content or b""), digest_size=8).digest()
