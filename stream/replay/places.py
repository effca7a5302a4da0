"""Where each row stands: a topic's rows have their place, a file's get the one that producing it would give them."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence

from stream.engine.partitioner import partition_of
from stream.replay.record import LogRecord
from stream.replay.rows import Row


class Places:
    """Gives rows their partition, by murmur2 of the key, and their offset, counted by partition.

    Args:
        partitions: as the events topic has, or would have.
        first_offset: of each partition, for rows of files.
        keeps_places: the log is one topic, whose rows stay where they are.
        now_ms: of rows without a record's timestamp: when they came, ms since 1970.
    """

    def __init__(self, partitions: int, first_offset: int, *, keeps_places: bool, now_ms: int) -> None:
        self._partitions = partitions
        self._keeps = keeps_places
        self._now_ms = now_ms
        self.next_offset = [first_offset] * partitions
        """The offset after the last row of each partition."""

    def records(
        self, rows: Iterable[Row], names: Sequence[str], wanted: Container[int]
    ) -> Mapping[int, list[LogRecord]]:
        """The rows in `wanted` partitions as records, by partition. names: of the files."""
        found: dict[int, list[LogRecord]] = {}
        partitions, keeps, now_ms, next_offset = self._partitions, self._keeps, self._now_ms, self.next_offset
        for value, key, _, number, file, partition, offset, record_ms, headers in rows:
            if keeps:
                next_offset[partition] = offset + 1
            else:
                partition = partition_of(key, partitions)
                offset = next_offset[partition]
                next_offset[partition] = offset + 1
            if partition not in wanted:
                continue
            record = LogRecord(
                (partition, offset),
                key,
                value,
                now_ms if record_ms < 0 else record_ms,
                names[file],
                number,
                list(headers) if headers else None,
            )
            run = found.get(partition)
            if run is None:
                found[partition] = [record]
            else:
                run.append(record)
        return found
