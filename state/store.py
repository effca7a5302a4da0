"""Where a partition's values live on this machine: a cache of the changelog that may be lost at any time.

A store keeps, with the values, the changelog offset from which the rest must be read (`position`). Values and
position are written in one batch, so whatever a crash leaves behind agrees with itself: an older state and
the place in the changelog where its future begins.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import rocksdict

from state.errors import StoreError

_POSITION = b"\0position"  # no user's key begins with a NUL byte (the event decoder refuses it)
# A store that was away longer may hold what was deleted meanwhile: the changelog keeps its tombstones for two days
# (delete.retention.ms, see stream.topics), and what they deleted must not come back.
_MAX_AWAY_S = 86_400
_WRITE_BUFFER_BYTES = 16 << 20  # a memtable is what a killed process must read again from the changelog


class Store(Protocol):
    """Values of one partition by key. Bytes in, bytes out; one thread at a time writes."""

    @property
    def position(self) -> int:
        """Changelog offset from which records are not yet in this store; 0 for a new one."""

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values of `keys`, in their order; None where there is none."""

    def write(self, puts: Sequence[tuple[bytes, bytes | None]], position: int | None) -> None:
        """Apply `puts` in order (None deletes) and move `position` (None leaves it), all or nothing."""

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every key and value, in key order."""

    def wipe(self) -> None:
        """Forget everything; `position` is 0 again."""

    def close(self) -> None:
        """Release files and locks. The store is not used afterwards."""


class MemoryStore:
    """A store in a dictionary: for tests and for replays that leave nothing behind."""

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}
        self._position = 0

    @property
    def position(self) -> int:
        """See Store."""
        return self._position

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See Store."""
        return [self._values.get(key) for key in keys]

    def write(self, puts: Sequence[tuple[bytes, bytes | None]], position: int | None) -> None:
        """See Store."""
        for key, value in puts:
            if value is None:
                self._values.pop(key, None)
            else:
                self._values[key] = value
        if position is not None:
            self._position = position

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """See Store."""
        yield from sorted(self._values.items())

    def wipe(self) -> None:
        """See Store."""
        self._values.clear()
        self._position = 0

    def close(self) -> None:
        """See Store."""


class RocksStore:
    """A store in RocksDB, one database a partition.

    It is written without RocksDB's own write-ahead log: the changelog is that log, and a batch that a crash
    takes away takes its position with it. One that was not written for a day is wiped when it is opened.

    Raises:
        StoreError: the folder cannot be opened, for example because another process holds it.
    """

    def __init__(self, path: Path, now_s: Callable[[], float] = time.time) -> None:
        self._path = path
        self._now_s = now_s
        self._no_wal = rocksdict.WriteOptions()
        self._no_wal.disable_wal = True
        self._db = self._open()
        position, written_s = self._place()
        if position and now_s() - written_s > _MAX_AWAY_S:
            self.wipe()

    def _place(self) -> tuple[int, int]:
        """Changelog position, and when it was written (s since 1970)."""
        place = bytes(self._db.get(_POSITION) or b"0 0").split()
        return int(place[0]), int(place[1])

    def _open(self) -> rocksdict.Rdict:
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
        options.set_keep_log_file_num(1)
        # States are mostly floats and hashes, which do not shrink; trying costs a tenth of reads and writes.
        options.set_compression_type(rocksdict.DBCompressionType.none())
        block = rocksdict.BlockBasedOptions()
        block.set_bloom_filter(10.0, block_based=False)  # most keys of a cold chunk are not there
        options.set_block_based_table_factory(block)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return rocksdict.Rdict(str(self._path), options=options)
        except Exception as exc:  # rocksdict raises bare Exception
            raise StoreError(
                f"the local store {self._path} cannot be opened ({exc}). If another worker runs here, give this one "
                "a data folder of its own (--data-dir); if the store is damaged, delete that folder: "
                "it is rebuilt from the changelog."
            ) from exc

    @property
    def position(self) -> int:
        """See Store."""
        return self._place()[0]

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See Store."""
        return list(self._db.get(list(keys))) if keys else []

    def write(self, puts: Sequence[tuple[bytes, bytes | None]], position: int | None) -> None:
        """See Store."""
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, value in puts:
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        if position is not None:
            batch.put(_POSITION, b"%d %d" % (position, self._now_s()))
        self._db.write(batch, self._no_wal)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """See Store."""
        for key, value in self._db.items():
            if key != _POSITION:
                yield key, value

    def wipe(self) -> None:
        """See Store."""
        self._db.close()
        shutil.rmtree(self._path)
        self._db = self._open()

    def close(self) -> None:
        """See Store. Flushes, so that a clean restart reads nothing again."""
        self._db.flush()
        self._db.close()
