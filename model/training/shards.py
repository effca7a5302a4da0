"""A log that is larger than memory, in shards on disk: all rows of a user in one shard, one shard in memory at a time.

    files --read once--> rows, by a hash of the user --> shard 0 | shard 1 | ... (33 bytes a row, as they came)
    a shard --when it is needed--> duplicates out, sorted by user and time, cut by the protocol --> a Part

What stays in memory is the catalogue (ids and names of the items), one shard, and what is counted of all.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from model.errors import DatasetError
from model.training.dataset import SESSION_GAP_S, Bool, Columns, Dataset, LogReader, cleaned, log_files
from model.training.protocol import Borders, Part, border_places, cut, find_borders
from model.training.settings import TrainSettings
from model.training.source import Source

I64 = npt.NDArray[np.int64]
ROWS_OF_A_SHARD = 1_000_000
"""Some 200 MB while it is learnt."""
_MOST_SHARDS = 500
"""Files that are open at once while the log is read; most systems allow 1024."""
_SAMPLE = 1_000_000
"""Times by which the log is cut."""
_BYTES_OF_A_ROW = 100
"""Of an event as text, to guess the rows of a file before it is read."""
_ROW = np.dtype(
    [("user", "<i8"), ("time_ms", "<i8"), ("event", "<i8"), ("item", "<i4"), ("line", "<i4"), ("type", "u1")]
)


def estimate_rows(paths: Iterable[Path], layout: str | None = None) -> int:
    """About how many rows the files have: those of Parquet know, those of text are taken by their size."""
    rows = 0
    for file, kind in log_files(list(paths), layout):
        size = file.stat().st_size
        if kind == "parquet" and file.suffix.lower() != ".gz":
            try:
                rows += int(pq.read_metadata(file).num_rows)
            except (pa.ArrowInvalid, OSError):
                rows += size // _BYTES_OF_A_ROW  # reading it will say what is wrong
        else:
            packed = 8 if file.suffix.lower() == ".gz" else 1  # as text packs
            rows += size * packed // _BYTES_OF_A_ROW
    return rows


class Shards:
    """Writes a log into shards, then serves them as a Source. The folder is emptied first, and removed by close."""

    def __init__(self, folder: str | Path, shards: int, *, session_gap_s: int = SESSION_GAP_S) -> None:
        self.folder = Path(folder)
        self.files = [self.folder / f"{k:03d}.rows" for k in range(max(1, min(shards, _MOST_SHARDS)))]
        self.session_gap_s = session_gap_s
        self.reader = LogReader(hashed=True)

    def __enter__(self) -> Shards:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def read_files(self, paths: Iterable[Path], layout: str | None = None) -> None:
        """Read the files of a log into shards. Raises DatasetError."""
        self.write(self.reader.read_files(paths, layout))

    def write(self, steps: Iterable[object]) -> None:
        """Write what `self.reader` has read, after each step of an iterator that reads. Raises DatasetError."""
        streams: list[IO[bytes]] = []
        try:
            for file in self.files:
                streams.append(file.open("wb"))  # noqa: PERF401  # those that were opened are closed when one fails
            for _ in steps:
                self._spread(self.reader.take(), streams)
            self._spread(self.reader.take(), streams)
        except OSError as error:
            raise DatasetError(f"{self.folder}: cannot be written ({error}); give it space and rights.") from error
        finally:
            for stream in streams:
                stream.close()

    def _spread(self, rows: Columns, streams: list[IO[bytes]]) -> None:
        if not len(rows.user):
            return
        table = np.empty(len(rows.user), _ROW)
        for name in _ROW.names or ():
            table[name] = getattr(rows, name)
        shard = rows.user % len(streams)
        table = table[np.argsort(shard, kind="stable")]
        ends = np.cumsum(np.bincount(shard, minlength=len(streams)))
        for stream, start, end in zip(streams, np.append(0, ends[:-1]).tolist(), ends.tolist(), strict=True):
            stream.write(table[start:end].tobytes())

    def rows(self, shard: int) -> Columns:
        """The cleaned rows of a shard."""
        table = np.fromfile(self.files[shard], _ROW)
        names = {name: table[name].astype(np.int64) for name in ("user", "item", "time_ms", "event", "line")}
        return cleaned(Columns(type=table["type"], **names))

    def source(self, settings: TrainSettings, *, min_item_events: int = 1, name: str = "log") -> Source:
        """The log as training reads it, after one pass over all shards. Raises DatasetError when nothing is left."""
        digest = hashlib.sha256()
        counts: I64 = np.zeros(len(self.reader.names), np.int64)
        sizes: list[int] = []
        times: list[I64] = []
        ends_ms: list[int] = []
        users = 0
        step = max(1, sum(file.stat().st_size for file in self.files) // _ROW.itemsize // _SAMPLE)
        for shard in range(len(self.files)):
            rows = self.rows(shard)
            items = rows.item >= 0
            counts += np.bincount(rows.item[items], minlength=len(counts))
            users += len(np.unique(rows.user))
            sizes.append(len(rows.user))
            own_ms = rows.time_ms[items]
            times.append(own_ms[::step])
            ends_ms += [int(own_ms.min()), int(own_ms.max())] if len(own_ms) else []
            for column in (rows.user, rows.item, rows.type, rows.time_ms):
                digest.update(np.ascontiguousarray(column).tobytes())
        kept = self.reader.kept_items(counts, min_item_events, name)
        sample = np.concatenate(times)
        borders = find_borders(sample, settings, name, has_time=self.reader.has_time)
        if borders.test_ms and step > 1:
            # To the row: an evaluation cuts the whole log, and may ask nothing that was learnt.
            total = int(counts[kept].sum())
            sample.sort()
            borders = Borders(*(self._time_at(place, total, sample, kept) for place in border_places(total, settings)))
        nothing = Columns(*(np.empty(0, column.dtype) for column in rows))
        catalog = self._dataset(nothing, kept, name)
        digest.update(catalog.catalog_digest())

        def load(shard: int) -> Part:
            return cut(self._dataset(self.rows(shard), kept, name), settings, borders, whole=False)

        fingerprint = {
            "source": name,
            "events": int(counts[kept].sum()),
            "users": users,
            "items": catalog.items,
            "first_time_ms": min(ends_ms) if self.reader.has_time else 0,
            "last_time_ms": max(ends_ms) if self.reader.has_time else 0,
            "shards": len(self.files),
            "sha256": digest.hexdigest(),
        }
        filled = [shard for shard, size in enumerate(sizes) if size]
        return Source(
            [partial(load, shard) for shard in filled], [sizes[shard] for shard in filled], catalog, fingerprint
        )

    def _time_at(self, place: int, items: int, sample: I64, kept: Bool) -> int:
        """The time at a place in the sorted times of all `items` rows of kept items; one pass over the shards.

        sample: i64[any], some of the times, sorted: only those near the place are held in memory.
        """
        near = place * len(sample) // items
        for margin in (len(sample) // 100 + 1, len(sample)):  # the second holds all, should the sample mislead
            low_ms = sample[near - margin] if near >= margin else np.iinfo(np.int64).min
            high_ms = sample[near + margin] if near + margin < len(sample) else np.iinfo(np.int64).max
            earlier, held = 0, []
            for shard in range(len(self.files)):
                rows = self.rows(shard)
                times_ms = rows.time_ms[(rows.item >= 0) & kept[rows.item]]
                earlier += int((times_ms < low_ms).sum())
                held.append(times_ms[(times_ms >= low_ms) & (times_ms <= high_ms)])
            found = np.sort(np.concatenate(held))
            if 0 <= place - earlier < len(found):
                break
        return int(found[place - earlier])

    def _dataset(self, rows: Columns, kept: Bool, name: str) -> Dataset:
        return self.reader.part(rows, kept, session_gap_s=self.session_gap_s, source=name, user_ids=None)
