"""What a log is made of, wherever it lies: rows in blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

from stream.contract.event import Headers


class Row(NamedTuple):
    """One event of a log, as the events topic would hold it or does hold it."""

    value: bytes | None
    """The record's value; of a row of a file JSON of the event, never None."""
    key: bytes
    """The record's key; of a row of a file the event's own (`Event.key`)."""
    time_ms: int
    """When it happened as the event says, ms since 1970, UTC: for order, bounds and pace. -1 where a record of a topic
    does not tell: it is passed on, for the agent to dead-letter."""
    number: int
    """Of a file the row, counted from 1 (JSON lines, CSV: the line); of a topic the offset."""
    file: int = 0
    """Which file of its source: an index into `Source.files`."""
    partition: int = -1
    """Of a topic; -1 for files: the place is found by the key."""
    offset: int = -1
    """Of a topic; -1 for files: counted by partition."""
    record_ms: int = -1
    """The record's timestamp in ms; -1 where the log has none."""
    headers: Headers = ()
    """The record's headers."""


class Source(Protocol):
    """Something that rows are read from, in its own order."""

    name: str
    """For messages."""
    files: list[str]
    """Names of its files, or the topic's alone; may grow while it is read."""

    @property
    def share_done(self) -> float:
        """How much is read, 0 to 1; 0 where that cannot be known."""

    def blocks(self, since: Mapping[int, int]) -> Iterator[list[Row]]:
        """The rows, some hundreds or thousands at a time; once only.

        since: of a topic the first offset wanted by partition, where it is later than the range's begin; files ignore
        it.

        Raises:
            ReplayError: it cannot be read on; names file and row, or partition and offset.
        """
