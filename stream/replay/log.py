"""A log as one run of rows: its files and topics one after the other, or merged by the time of their events.

files ──> values ──(as produced; what is no event is left out and said)──> rows ──┐
topic ──> records ────────────────────────────────────────────────────────> rows ──┴─(order, bounds)──> blocks
"""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple

import msgspec

from state.keys import SEPARATOR
from stream.contract.aliases import FIELD_ALIASES
from stream.contract.event import Event
from stream.contract.times import iso_utc
from stream.errors import EventError, ProduceError, RefusedError, ReplayError
from stream.event_file import BROKEN, FORMATS, BadRow, EventFile, RecordMaker
from stream.event_table import Reading, sources_of
from stream.pseudonym import Pseudonyms
from stream.reading import End, Start
from stream.replay.files import LogFile, digest_of, find_files, head_of
from stream.replay.merge import Run, merge
from stream.replay.presets import NONE, preset_of, reading_of
from stream.replay.rows import Row, Source
from stream.replay.sort import by_time
from stream.replay.topic_range import TopicRange
from stream.settings import Settings

_CHECKED = 20
_SEPARATOR = SEPARATOR.encode()
_TOLD = 5
"""Examples that are kept of each thing that is only counted."""
_NEEDED = {"occurred_at": ("occurred_at",), "a user": ("user_id", "anonymous_id"), "event_type": ("event_type",)}
TOPIC = "topic:"
"""Begins a source that is a topic."""


class LogSpec(msgspec.Struct, frozen=True):
    """What to read, and how. What of a replay's results depends on its log is all here."""

    sources: tuple[str, ...]
    """Each a path, a folder, a pattern, an address such as s3://bucket/prefix, - for standard input, or topic:NAME."""
    preset: str | None = None
    """The layout of files, one of stream.replay.presets, or "none"; None: told by content, unless `columns` says."""
    columns: dict[str, str] = {}
    """Our field -> its column in files."""
    types: dict[str, str] = {}
    """Their event type -> ours."""
    constants: dict[str, Any] = {}
    """Our field -> its value where a row has none."""
    event_type: str | None = None
    """Of rows that have none."""
    time_unit: str | None = None
    """Of numbers that are times, one of stream.event_table.TIME_UNITS; None: told by their size."""
    order: Literal["log", "time", "sorted"] = "log"
    """log: sources as they are given and files by name; time: all merged by the times of their events, each being
    nearly in order itself; sorted: files in no order, such as those by user, sorted by time (stream.replay.sort)."""
    start: int | None = None
    """The first time wanted, ms since 1970, by the event's own time."""
    end: int | None = None
    """The first time no longer wanted."""
    recent_ms: int | None = None
    """Instead of `start`, or of `first` where all sources are topics: so long before the replay was begun. A replay
    that goes on has the same bound."""
    first: str = "earliest"
    """Where topics are begun, as stream.reading.Start has it: earliest, offset=N or ts=TIME of records."""
    last: str = "latest"
    """Where they end, as stream.reading.End has it: latest, offset=N or ts=TIME."""
    limit: int | None = None
    """Rows at most; of a topic the oldest by the times of their events."""
    users: frozenset[str] | None = None
    """Only these users, as the log names them."""
    bad: Literal["skip", "stop"] = "skip"
    """What is no event, or no whole file: leave it out, or stop there."""


class Tally:
    """What was found wrong with a log, counted and with the first examples; says bad rows, or stops at the first."""

    def __init__(self, bad: str, on_bad: Callable[[BadRow], None]) -> None:
        self.counts: Counter[str] = Counter()
        self.first: dict[str, list[str]] = {}
        self.largest_step_back_ms = 0
        self._stops, self._on_bad = bad == "stop", on_bad

    def bad(self, file: str, row: int, reason: str, problem: str) -> None:
        """A row, or with row 0 a file, that is left out. Raises ReplayError where that is to stop the run."""
        found = BadRow(file, row, problem)
        if self._stops:
            raise ReplayError(f"{str(found).rstrip('.')}. Mend it and run again, or leave it out with --bad skip.")
        self.note(f"bad.{reason}", str(found))
        self._on_bad(found)

    def note(self, what: str, text: str) -> None:
        """Something to count that takes nothing away."""
        self.counts[what] += 1
        told = self.first.setdefault(what, [])
        if len(told) < _TOLD:
            told.append(text)

    def unsorted(self, file: str, row: int, step_back_ms: int, at_ms: int) -> None:
        """A row that is older than the one before it."""
        self.largest_step_back_ms = max(self.largest_step_back_ms, step_back_ms)
        if self.counts["unsorted"] >= _TOLD:  # a file by user has half of its rows so
            self.counts["unsorted"] += 1
            return
        self.note("unsorted", f"{file}:{row}: {iso_utc(at_ms)} is {step_back_ms / 1000:g} s before the row before it")


class FileSource:
    """The rows of one file: a `Source`.

    Args:
        file: where it is.
        index: of the file among those of the log.
        spec: how to read it.
        maker: makes records of its rows.
        tally: told what is wrong with it.
        now_ms: when the replay began: events that are later than that, ms since 1970, by more than
            events.max_future_s, are refused, as the worker would refuse them.
    """

    def __init__(self, file: LogFile, index: int, spec: LogSpec, maker: RecordMaker, tally: Tally, now_ms: int) -> None:
        self.name = file.name
        self.files = [file.name]
        self.size = file.size
        """In bytes, when the replay began: the file may be gone when it was read."""
        self._file, self._index, self._spec = file, index, spec
        self._maker, self._tally, self._now_ms = maker, tally, now_ms
        self._rows: EventFile | None = None

    @property
    def share_done(self) -> float:
        """How much is read, 0 to 1."""
        return self._rows.share_done if self._rows is not None else 0.0

    def layout(self) -> Layout:
        """How its rows are read. Raises ProduceError when its columns do not do, or it cannot be read."""
        return find_layout(self._file, self._spec)

    def first_ms(self) -> int:
        """The time of its first event, ms since 1970; 0 where there is none, or the file cannot be read."""
        with contextlib.suppress(ProduceError, RefusedError):  # reading it says what is wrong
            for _, value in self._open():
                with contextlib.suppress(EventError):
                    if isinstance(value, bytes):
                        return self._maker.record(value, self._now_ms)[2].occurred_at_ms
        return 0

    def blocks(self, since: Mapping[int, int]) -> Iterator[list[Row]]:  # noqa: ARG002 - files begin at their beginning
        """See Source."""
        name, index, tally, now_ms = self.name, self._index, self._tally, self._now_ms
        record = self._maker.record
        new = tuple.__new__  # half a microsecond less than Row(...), of three a row
        zones = Zones(name, tally)
        number, newest_ms = 0, 0
        try:
            self._rows = self._open()
            for numbers, values in self._rows.blocks():
                zones.look(numbers, values)
                rows = []
                for number, value in zip(numbers, values, strict=True):
                    try:
                        if isinstance(value, EventError):
                            raise value
                        key, sent, event = record(value, now_ms)
                    except EventError as error:
                        tally.bad(name, number, error.reason, f"{error} ({error.reason})")
                        continue
                    at_ms: int = event.occurred_at  # type: ignore[assignment]  # after decoding, a number of ms
                    if at_ms < newest_ms:
                        tally.unsorted(name, number, newest_ms - at_ms, at_ms)
                    newest_ms = at_ms
                    rows.append(new(Row, (sent, key, at_ms, number, index, -1, -1, -1, ())))
                tally.counts["read"] += len(values)
                yield rows
        except (ProduceError, RefusedError) as error:
            reason = "file" if number == 0 else "rest_of_file"
            where = "" if number == 0 else f"left off after row {number}: "
            tally.bad(name, 0, reason, f"{where}{error}")

    def _open(self) -> EventFile:
        file, reading = self._file, self.layout().reading
        # A path may tell more than events have, such as the day.
        wanted = {*Event.__struct_fields__, *reading.columns.values()}
        parts = {name: value for name, value in (file.parts or {}).items() if name in wanted}
        return EventFile(file.path, reading, name=file.name, place=file.place, parts=parts)


class Zones:
    """Looks for files in which some times name a zone and others do not: one of the two is not what it seems.

    Times are looked for in JSON, under all names that they may have.
    """

    _TIME = rb'"(?:' + "|".join(FIELD_ALIASES["occurred_at"]).encode() + rb')"\s*:\s*"\d{4}-\d\d-\d\d[T ]\d\d[^"Zz+-]*'
    _KINDS = (re.compile(_TIME + rb"[Zz+-]"), re.compile(_TIME + rb'"'))
    # Most logs have times in numbers: it is enough to look for others in one row of so many.
    _EVERY = 128

    def __init__(self, file: str, tally: Tally) -> None:
        self._file, self._tally = file, tally
        self._found: list[int | None] = [None, None]

    def look(self, numbers: list[int], values: list[bytes | EventError]) -> None:
        """At a block of rows."""
        if None not in self._found or not any(self._has_text(value) for value in values[:: self._EVERY]):
            return
        lines = b"\n".join([value if isinstance(value, bytes) else b"" for value in values])
        for k, kind in enumerate(self._KINDS):
            if self._found[k] is None and (match := kind.search(lines)):
                self._found[k] = numbers[lines.count(b"\n", 0, match.start())]
        zoned, unzoned = self._found
        if zoned is not None and unzoned is not None:
            self._tally.note(
                "mixed_zones",
                f"{self._file}: the time of row {zoned} names a zone; that of row {unzoned} does not, and is read as "
                "UTC",
            )

    def _has_text(self, value: bytes | EventError) -> bool:
        return isinstance(value, bytes) and any(kind.search(value) for kind in self._KINDS)


class Layout(NamedTuple):
    """How a file is read."""

    preset: str
    reading: Reading
    columns: tuple[str, ...]
    """Those it has; of JSON lines the members of the first; none where it has no names for them."""


def find_layout(file: LogFile, spec: LogSpec) -> Layout:
    """How a file is read by what `spec` says.

    Raises:
        ProduceError: it lacks a column, or cannot be read.
        RefusedError: there is no such preset.
    """
    try:
        head = head_of(file)
    except (*BROKEN, ValueError) as error:
        raise ProduceError(f"cannot read {file.path}: {error}. Give a whole file.") from None
    preset = spec.preset or (NONE if spec.columns else preset_of(head))
    known = reading_of(preset, head)
    reading = replace(
        known,
        columns={**known.columns, **spec.columns},
        types={**known.types, **spec.types},
        constants={**known.constants, **spec.constants},
        event_type=spec.event_type or known.event_type,
        time_unit=spec.time_unit or known.time_unit,
        kind=known.kind or head.kind,
    )
    if reading.kind is None:
        raise ProduceError(
            f"cannot tell what {file.path} is. Name it {', '.join(FORMATS)}, or say with --preset what it is."
        )
    columns: tuple[str, ...] = ()
    if reading.kind not in ("sequences", "lists"):
        columns = (*(reading.names or head.cells(reading.separator)), *(file.parts or ()))
    if reading.kind in ("csv", "parquet") and (head.lines or head.columns):
        _check_columns(file, reading, columns)
    return Layout(preset, reading, columns)


def _check_columns(file: LogFile, reading: Reading, columns: tuple[str, ...]) -> None:
    """Raises ProduceError where nothing can be an event."""
    has = {*sources_of(reading, columns, file.name), *reading.constants}
    if reading.event_type is not None:
        has.add("event_type")
    for what, fields in _NEEDED.items():
        names = {path.partition(".")[0] for field in fields for path in FIELD_ALIASES[field]}
        if not has & names:
            raise ProduceError(
                f"{file.name} has no column for {what}. It has: {', '.join(columns)}. "
                f"Say which it is: --map {fields[0]}=COLUMN{' or --event-type' if what == 'event_type' else ''}."
            )


class Log:
    """All rows, in the order and within the bounds of a spec.

    Attributes:
        sources: what is read: files, and topics.
        files: names of files and topics, by `Row.file`; may grow while it is read.
    """

    def __init__(
        self,
        spec: LogSpec,
        sources: list[Source],
        files: list[str],
        tally: Tally,
        pseudonyms: Pseudonyms | None = None,
    ) -> None:
        self.sources, self.files = sources, files
        self._spec, self._tally = spec, tally
        name = pseudonyms.of if pseudonyms else str
        self._users = None if spec.users is None else frozenset(name(user).encode() for user in spec.users)

    @property
    def counts(self) -> Counter[str]:
        """Rows by what became of them: read, given, outside (bounds, users), bad.REASON, unsorted; of files
        duplicate_files, mixed_zones."""
        return self._tally.counts

    @property
    def first(self) -> dict[str, list[str]]:
        """The first examples of what was counted, with file and row."""
        return self._tally.first

    @property
    def largest_step_back_ms(self) -> int:
        """By how much a row was older than the one before it, at most; ms."""
        return self._tally.largest_step_back_ms

    @property
    def share_done(self) -> float:
        """How much is read, 0 to 1, by the sizes of files; a topic counts as much as a file does on average."""
        sizes = [getattr(source, "size", 0) for source in self.sources]
        average = sum(sizes) / (len([size for size in sizes if size]) or 1) or 1
        weights = [size or average for size in sizes]
        done = sum(weight * source.share_done for weight, source in zip(weights, self.sources, strict=True))
        return done / sum(weights)

    def blocks(self, since: Mapping[int, int] | None = None) -> Iterator[list[Row]]:
        """The rows, some hundreds or thousands at a time; once only.

        since: see Source.

        Raises:
            ReplayError: it cannot be read on; names file and row, or partition and offset.
        """
        spec, counts = self._spec, self.counts
        left = spec.limit
        runs = self._merged(since or {}) if spec.order == "time" else self._one_by_one(since or {})
        if spec.order == "sorted":
            runs = by_time(runs)
        bounded = (spec.start, spec.end, spec.users) != (None, None, None)
        for run in runs:
            rows = self._within(run) if bounded else run
            counts["outside"] += len(run) - len(rows)
            if left is not None:
                rows = rows[:left]
                left -= len(rows)
            counts["given"] += len(rows)
            if rows:
                yield rows
            if left == 0:
                return

    def _within(self, rows: list[Row]) -> list[Row]:
        """Those in the bounds; what has no time is passed on."""
        start, end, users = self._spec.start, self._spec.end, self._users
        return [
            row
            for row in rows
            if (row.time_ms < 0 or ((start is None or row.time_ms >= start) and (end is None or row.time_ms < end)))
            and (users is None or row.key in users or row.key.rpartition(_SEPARATOR)[2] in users)
        ]

    def _one_by_one(self, since: Mapping[int, int]) -> Iterator[list[Row]]:
        for source in self.sources:
            yield from self._rows_of(source, since)

    def _merged(self, since: Mapping[int, int]) -> Iterator[list[Row]]:
        return merge(
            [
                Run(
                    source.first_ms() if isinstance(source, FileSource) else None,
                    partial(self._rows_of, source, since),
                )
                for source in self.sources
            ]
        )

    def _rows_of(self, source: Source, since: Mapping[int, int]) -> Iterator[list[Row]]:
        """Of a topic the file's number is that among all of the log."""
        if isinstance(source, FileSource):
            yield from source.blocks(since)
            return
        index = self.files.index(source.files[0])
        newest_ms: dict[int, int] = {}
        for rows in source.blocks(since):
            self.counts["read"] += len(rows)
            for row in rows:
                before_ms = newest_ms.get(row.partition, 0)
                if 0 <= row.time_ms < before_ms:
                    where = f"{source.name}[{row.partition}]"
                    self._tally.unsorted(where, row.number, before_ms - row.time_ms, row.time_ms)
                if row.time_ms >= 0:
                    newest_ms[row.partition] = row.time_ms
            yield rows if index == 0 else [row._replace(file=index) for row in rows]


def open_log(
    spec: LogSpec,
    settings: Settings,
    on_bad: Callable[[BadRow], None] = lambda _: None,
    *,
    now_ms: int | None = None,
    pseudonyms: Pseudonyms | None = None,
) -> Log:
    """The log that `spec` describes; nothing of it is read yet but how its files begin.

    on_bad: told of each row that is no event, and with row 0 of each file that is left out, or the rest of it.
    now_ms: when the replay was begun, ms since 1970: later events are refused as the worker would refuse them; None:
    now. pseudonyms: in place of the users' ids of files; `spec.users` are then those.

    Raises:
        RefusedError: there is nothing to read, or its first file cannot be read as the spec says.
        BrokerError, TopicError, ReadError: a topic cannot be read.
    """
    tally = Tally(spec.bad, on_bad)
    maker = RecordMaker(settings.events, pseudonyms)
    begun_ms = int(time.time() * 1000) if now_ms is None else now_ms
    if spec.recent_ms is not None:
        since_ms = begun_ms - spec.recent_ms
        of_topics = all(text.startswith(TOPIC) for text in spec.sources)
        spec = msgspec.structs.replace(spec, **({"first": f"ts={since_ms}"} if of_topics else {"start": since_ms}))
    sources: list[Source] = []
    names: list[str] = []
    once = _Once(tally)
    for text in spec.sources:
        if text.startswith(TOPIC):
            if spec.order == "sorted":
                raise RefusedError(f"{text} is not sorted: its records have their order. Give --order time, or log.")
            sources.append(_topic(text.removeprefix(TOPIC), settings, spec, tally))
            names.append(sources[-1].name)
            continue
        found = [file for file in find_files(text) if once.is_new(file)]
        of_text = []
        for file in found:
            # Names are in ids of events: those of two files must differ.
            named = replace(file, name=str(file.path)) if file.name in names else file
            of_text.append(FileSource(named, len(names), spec, maker, tally, begun_ms))
            names.append(named.name)
        _check_some(of_text, spec)
        sources += of_text
    if not sources:
        raise RefusedError("there is nothing to read. Give a file, a folder, a pattern or topic:NAME.")
    return Log(spec, sources, names, tally, pseudonyms)


def _topic(name: str, settings: Settings, spec: LogSpec, tally: Tally) -> TopicRange:
    return TopicRange(
        settings,
        name,
        Start.parse(spec.first, now_ms=0),
        End.parse(spec.last),
        # Partitions come in another order each time, unless they are merged: which rows a limit takes must not differ.
        by_time=spec.order == "time" or spec.limit is not None,
        bad=spec.bad,
        on_bad=lambda row: tally.bad(row.file, row.row, "gone", row.problem),
    )


class _Once:
    """Finds files that are there twice."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._of_size: dict[int, list[LogFile]] = {}
        self._digests: dict[str, bytes] = {}

    def is_new(self, file: LogFile) -> bool:
        """Whether no file before it is the same. Raises RefusedError when it cannot be read."""
        try:
            if not file.size:
                return True  # an empty file, or standard input
            same_size = self._of_size.setdefault(file.size, [])
            twin = next((other for other in same_size if self._digest(other) == self._digest(file)), None)
        except OSError as error:
            raise RefusedError(f"cannot read {file.path}: {error.strerror or error}. See to its rights.") from None
        if twin is None:
            same_size.append(file)
            return True
        self._tally.note("duplicate_files", f"{file.path}: is the same as {twin.path}, and is left out")
        return False

    def _digest(self, file: LogFile) -> bytes:
        path = str(file.path)
        if path not in self._digests:
            self._digests[path] = digest_of(file)
        return self._digests[path]


def _check_some(files: Sequence[FileSource], spec: LogSpec) -> None:
    """Raises RefusedError where the first file cannot be read as the spec says, nor one of the next few."""
    first: ProduceError | None = None
    for file in files[:_CHECKED]:
        try:
            file.layout()
        except ProduceError as error:
            first = first or error
        else:
            return
        if spec.bad == "stop":
            break
    if first is not None:
        raise RefusedError(str(first))
