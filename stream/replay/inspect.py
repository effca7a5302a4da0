"""What a log holds, and what would become of it, without running anything.

rows of the log ──> counts, first events ──> late? seen before? as a worker would judge them
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import msgspec

from state.clock import Watermark
from stream.contract.event import Event, EventDecoder
from stream.contract.times import iso_utc
from stream.engine.partitioner import partition_of
from stream.errors import EventError, ProduceError
from stream.event_file import BadRow
from stream.event_table import sources_of
from stream.late import EventClock
from stream.pseudonym import Pseudonyms
from stream.replay.log import FileSource, Log, LogSpec, open_log
from stream.replay.rows import Row
from stream.settings import Settings

_FILES_TOLD = 20
_EVENTS_TOLD = 5
_EXAMPLES = 5
MAX_KNOWN = 2_000_000
"""Users, items and ids of events that are told apart, each; of more only the first are: some 150 MB each."""


class Known:
    """Different things, counted exactly up to MAX_KNOWN of them."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def is_new(self, thing: Any) -> bool:
        """Whether it was not seen before; of things beyond the bound always False."""
        mark = hash(thing)
        if mark in self._seen or self.full:
            return False
        self._seen.add(mark)
        return True

    @property
    def full(self) -> bool:
        """Whether the bound is reached: then there may be more."""
        return len(self._seen) >= MAX_KNOWN

    def __len__(self) -> int:
        return len(self._seen)


@dataclass
class _Judged:
    """What a worker would make of the rows so far."""

    settings: Settings
    partitions: int
    now_ms: int
    types: Counter[str] = field(default_factory=Counter)
    users: Known = field(default_factory=Known)
    items: Known = field(default_factory=Known)
    ids: Known = field(default_factory=Known)
    first_ms: int | None = None
    last_ms: int | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    late: int = 0
    latest_by_ms: int = 0
    duplicates: int = 0
    repeats_looked_for: int = 0
    first: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        events = self.settings.events
        self._decoder = EventDecoder(events.max_bytes, max_future_ms=None)
        self._clock = EventClock(events)
        self._grace_ms = events.grace_s * 1000
        self._watermarks: dict[int, Watermark] = {}

    def take(self, row: Row, file: str) -> None:
        """Raises EventError where a worker would make a dead letter of it."""
        event = self._decoder.decode(row.value, row.key, row.headers, now_ms=self.now_ms)
        at_ms = self._clock.time_ms(event, row.record_ms if row.record_ms >= 0 else self.now_ms)
        where = f"{file}:{row.number}"
        number = row.partition if row.partition >= 0 else partition_of(row.key, self.partitions)
        watermark = self._watermarks.setdefault(number, Watermark())
        late_by_ms = watermark.late_by_ms(at_ms, self._grace_ms)
        if late_by_ms:
            self.late += 1
            self.latest_by_ms = max(self.latest_by_ms, late_by_ms)
            self._example("late", f"{where}: {iso_utc(at_ms)} is {late_by_ms / 1000:g} s behind partition {number}")
        if not self.ids.full:
            self.repeats_looked_for += 1
            if not self.ids.is_new((row.key, event.event_id)):
                self.duplicates += 1
                self._example("duplicate_ids", f"{where}: {event.event_id}")
        self._count(event, row, at_ms)

    def _count(self, event: Event, row: Row, at_ms: int) -> None:
        self.types[event.event_type] += 1
        self.users.is_new(row.key)
        for line in event.lines():
            self.items.is_new(line.item_id)
        self.first_ms = at_ms if self.first_ms is None else min(self.first_ms, at_ms)
        self.last_ms = at_ms if self.last_ms is None else max(self.last_ms, at_ms)
        if len(self.events) < _EVENTS_TOLD:
            self.events.append(msgspec.to_builtins(event))

    def _example(self, of: str, text: str) -> None:
        told = self.first.setdefault(of, [])
        if len(told) < _EXAMPLES:
            told.append(text)


def inspect(
    spec: LogSpec,
    settings: Settings,
    *,
    partitions: int | None = None,
    now_ms: int | None = None,
    pseudonyms: Pseudonyms | None = None,
) -> dict[str, Any]:
    """What is in a log; reads all of it, up to `spec.limit`.

    partitions: as the events topic has, for what is late; None: by the settings. now_ms, pseudonyms: see `open_log`.

    Returns:
        Plain data: `files`, `rows`, `events`, `rejected`, `late` and so on, as `driftline replay inspect` shows them.

    Raises:
        RefusedError, ReplayError: see `open_log` and `Log.blocks`.
    """
    rejected: dict[str, list[str]] = {}
    begun_ms = int(time.time() * 1000) if now_ms is None else now_ms
    log = open_log(spec, settings, now_ms=begun_ms, pseudonyms=pseudonyms)
    judged = _Judged(settings, partitions or settings.topics.partitions, begun_ms)
    dead: Counter[str] = Counter()
    for rows in log.blocks():
        for row in rows:
            try:
                judged.take(row, log.files[row.file])
            except EventError as error:
                dead[error.reason] += 1
                told = rejected.setdefault(error.reason, [])
                if len(told) < _EXAMPLES:
                    told.append(str(BadRow(log.files[row.file], row.number, str(error))))
    return {"order": spec.order} | _found(log, judged, dead, rejected)


def _found(log: Log, judged: _Judged, dead: Counter[str], rejected: dict[str, list[str]]) -> dict[str, Any]:
    counts, first = log.counts, log.first
    for name, count in counts.items():
        if name.startswith("bad."):
            reason = name.removeprefix("bad.")
            dead[reason] += count
            rejected[reason] = [*first[name], *rejected.get(reason, ())][:_EXAMPLES]
    files = [_layout(source) for source in log.sources[:_FILES_TOLD] if isinstance(source, FileSource)]
    applied = judged.types.total()
    return {
        "files": files,
        "files_in_all": len(log.files),
        "rows": {
            "read": counts["read"],
            "outside_bounds": counts["outside"],
            "events": applied,
            "users": len(judged.users),
            "items": len(judged.items),
            "counted_up_to": MAX_KNOWN if judged.users.full or judged.items.full else None,
            "types": dict(judged.types.most_common()),
            "first_time": None if judged.first_ms is None else iso_utc(judged.first_ms),
            "last_time": None if judged.last_ms is None else iso_utc(judged.last_ms),
        },
        "events": judged.events,
        "rejected": {reason: {"count": n, "first": rejected[reason]} for reason, n in dead.most_common()},
        "late": {
            "count": judged.late,
            "share": judged.late / applied if applied else 0.0,
            "by_at_most_s": judged.latest_by_ms / 1000,
            "grace_s": judged.settings.events.grace_s,
            "policy": judged.settings.events.late_policy,
            "partitions": judged.partitions,
            "first": judged.first.get("late", []),
        },
        "unsorted": {
            "count": counts["unsorted"],
            "largest_step_back_s": log.largest_step_back_ms / 1000,
            "first": first.get("unsorted", []),
        },
        "duplicate_ids": {
            "count": judged.duplicates,
            "among_rows": judged.repeats_looked_for,
            "first": judged.first.get("duplicate_ids", []),
        },
        "mixed_zones": {"files": counts["mixed_zones"], "first": first.get("mixed_zones", [])},
        "duplicate_files": {"files": counts["duplicate_files"], "first": first.get("duplicate_files", [])},
    }


def _layout(source: FileSource) -> dict[str, Any]:
    try:
        preset, reading, columns = source.layout()
    except ProduceError as error:
        return {"file": source.name, "bytes": source.size, "problem": str(error)}
    mapping = dict(reading.columns)
    if columns and reading.kind != "jsonl":
        mapping = sources_of(reading, columns, source.name)
    return {
        "file": source.name,
        "bytes": source.size,
        "kind": reading.kind,
        "preset": preset,
        "columns": list(columns),
        "mapping": mapping,
        "left_out": [column for column in columns if reading.mapped_only and column not in mapping.values()],
        "event_type": reading.event_type,
        "types": dict(reading.types),
        "constants": dict(reading.constants),
        "time_unit": reading.time_unit,
    }
