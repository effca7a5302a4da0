"""A log of files sorted by the time of its events, on disk where it is long.

rows ──(runs that fit into memory, each sorted)──> files of a temporary folder ──(merged)──> rows
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from functools import partial
from operator import attrgetter
from pathlib import Path

import msgspec

from stream.errors import ReplayError
from stream.replay.merge import Run, merge
from stream.replay.rows import Row

# Some 150 MB.
_RUN_ROWS = 250_000
# Of all runs a block is in memory.
_BLOCK_ROWS = 512

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Row]).decode


def by_time(blocks: Iterable[list[Row]], folder: Path | None = None) -> Iterator[list[Row]]:
    """All rows by time; those of one time in the order they came in.

    folder: for what does not fit into memory, packed some 150 bytes a row; None: the system's for temporary files.
    """
    with tempfile.TemporaryDirectory(prefix="driftline-sort-", dir=folder) as made:
        runs: list[Run] = []
        rows: list[Row] = []
        for block in blocks:
            rows += block
            if len(rows) >= _RUN_ROWS:
                try:
                    runs.append(_spilled(rows, Path(made) / str(len(runs))))
                except OSError as error:
                    raise ReplayError(
                        f"the log cannot be sorted in {made}: {error}. Give temporary files a place with room (TMPDIR)."
                    ) from None
                rows = []
        rows.sort(key=attrgetter("time_ms"))
        runs.append(Run(None, partial(_cut, rows)))
        yield from merge(runs)


def _spilled(rows: list[Row], path: Path) -> Run:
    """The rows, sorted, in a file."""
    rows.sort(key=attrgetter("time_ms"))
    with path.open("wb") as file:
        for block in _cut(rows):
            packed = _encode(block)
            file.write(len(packed).to_bytes(8, "big") + packed)
    return Run(rows[0].time_ms, partial(_read, path))


def _read(path: Path) -> Iterator[list[Row]]:
    with path.open("rb") as file:
        while size := file.read(8):
            yield _decode(file.read(int.from_bytes(size, "big")))


def _cut(rows: list[Row]) -> Iterator[list[Row]]:
    return (rows[at : at + _BLOCK_ROWS] for at in range(0, len(rows), _BLOCK_ROWS))
