"""Where a partition's values live on this machine: a cache of the changelog that may be lost at any time.

A store keeps, with the values, the changelog offset from which the rest must be read (`position`). Values and
position are written in one batch, so whatever a crash leaves behind agrees with itself: an older state and
the place in the changelog where its future begins.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Container, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol

import rocksdict

from state.errors import StoreError

_POSITION = b"\0position"  # no user's key begins with a NUL byte (the event decoder refuses it)
_UNPURGED = b"\0unpurged"  # there from a user's removal until no file holds the old value
_OWN_KEYS = frozenset((_POSITION, _UNPURGED))
# Removed values leave the files so long after the first of them was removed, all together: a compaction costs some
# 50 ms for one key and 0.2 s for 100 MB. Kafka's own compaction, of the changelog, takes up to a day.
_PURGE_AFTER_S = 3_600.0
# Up to so many keys are purged one by one; beyond, the whole store at once costs less.
_MAX_PURGED_KEYS = 4
# A store that was away longer may hold what was deleted meanwhile: the changelog keeps its tombstones for two days
# (delete.retention.ms, see stream.topics), and what they deleted must not come back.
_MAX_AWAY_S = 86_400
_MANIFEST_BYTES = 64 << 10
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

    def scan(self, after: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """The first `limit` keys after `after` with their values, in key order."""

    def wipe(self) -> None:
        """Forget everything; `position` is 0 again."""

    def close(self) -> None:
        """Release files and locks. The store is not used afterwards."""


def remove_abandoned(folder: Path, in_use: Container[str], now_s: Callable[[], float] = time.time) -> list[Path]:
    """Remove stores that nobody has written for a day: opened again, they would be wiped.

    What happened to their users since, they do not know: an erased one would stay on this disk for ever.

    Args:
        folder: where stores are, each a folder named NAME.db.
        in_use: names of those that are open: a quiet one may have files as old.

    Returns:
        The folders that were removed.
    """
    removed = []
    for path in sorted(folder.glob("*.db")):
        if path.name in in_use:
            continue  # its files come and go under a look at them
        newest_s = max((file.stat().st_mtime for file in path.iterdir()), default=0.0)
        if now_s() - newest_s > _MAX_AWAY_S:
            shutil.rmtree(path)
            removed.append(path)
    return removed


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

    def scan(self, after: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """See Store."""
        return sorted(item for item in self._values.items() if item[0] > after)[:limit]

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

    What is deleted is gone for readers at once, but its bytes stay in RocksDB's files until a compaction meets them,
    which may be never. So `purge` compacts where users were removed: by itself in the background an hour after the
    first of them, and when the store is closed.

    Raises:
        StoreError: the folder cannot be opened, for example because another process holds it.
    """

    def __init__(
        self, path: Path, now_s: Callable[[], float] = time.time, *, purge_after_s: float = _PURGE_AFTER_S
    ) -> None:
        self._path = path
        self._now_s = now_s
        self._purge_after_s = purge_after_s
        self._removed: set[bytes] = set()  # users to purge
        self._purge_all = False
        self._timer: threading.Timer | None = None  # there while a purge is to come
        self._noting = threading.Lock()
        self._compacting = threading.Lock()
        self._no_wal = rocksdict.WriteOptions()
        self._no_wal.disable_wal = True
        self._db = self._open()
        position, written_s = self._place()
        if position and now_s() - written_s > _MAX_AWAY_S:
            self.wipe()
        elif self._db.get(_UNPURGED) is not None:
            self._purge_all = True  # a crash took the names of those removed
            self._plan_purge()

    def _place(self) -> tuple[int, int]:
        """Changelog position, and when it was written (s since 1970)."""
        place = bytes(self._db.get(_POSITION) or b"0 0").split()
        return int(place[0]), int(place[1])

    def _open(self) -> rocksdict.Rdict:
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
        options.set_keep_log_file_num(1)
        # A gigabyte in one level: reads of a large store look in fewer places, and rewrite less (a fifth less CPU for
        # an event with a million states).
        options.set_max_bytes_for_level_base(1 << 30)
        options.set_target_file_size_base(64 << 20)
        # Twice as many new files as by default before they are merged with the rest: half the merging, and a file that
        # has no state of a user costs a look into its filter.
        options.set_level_zero_file_num_compaction_trigger(8)
        # It names the first and last key of each file, also of files that are gone, until it is written anew.
        options.set_max_manifest_file_size(_MANIFEST_BYTES)
        # States are mostly floats and hashes, which do not shrink; trying costs a tenth of reads and writes.
        options.set_compression_type(rocksdict.DBCompressionType.none())
        block = rocksdict.BlockBasedOptions()
        block.set_bloom_filter(10.0, block_based=False)  # most keys of a cold chunk are not there
        options.set_block_based_table_factory(block)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # A store that is there is opened with the options in its files, without their bloom filter, where they are
            # not given by column family, too.
            return rocksdict.Rdict(str(self._path), options=options, column_families={"default": options})
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
        removed: list[bytes] = []
        for key, value in puts:
            if value is not None:
                batch.put(key, value)
                continue
            batch.delete(key)
            if key[:1] != b"\0":
                removed.append(key)
        if position is not None:
            batch.put(_POSITION, b"%d %d" % (position, self._now_s()))
        if not removed:
            self._db.write(batch, self._no_wal)
            return
        batch.put(_UNPURGED, b"1")
        with self._noting:
            self._db.write(batch, self._no_wal)
            self._note_removed(removed)

    def _note_removed(self, keys: Sequence[bytes]) -> None:
        """Remember what is to be purged. The caller holds `_noting`."""
        self._removed.update(keys)
        if len(self._removed) > _MAX_PURGED_KEYS:
            self._removed.clear()
            self._purge_all = True
        self._plan_purge()

    def _plan_purge(self) -> None:
        if self._timer is None:
            # In a thread of its own: the stream goes on meanwhile, as RocksDB takes writes during a compaction.
            self._timer = threading.Timer(self._purge_after_s, self.purge)
            self._timer.daemon = True
            self._timer.start()

    def purge(self) -> None:
        """Take the bytes of removed users out of the files; returns when that is done. For any thread."""
        with self._compacting:
            with self._noting:
                if self._timer is None:
                    return
                self._timer.cancel()
                self._timer = None
                removed, self._removed = self._removed, set()
                self._purge_all, whole = False, self._purge_all
            self._db.flush()
            force = rocksdict.CompactOptions()
            force.set_bottommost_level_compaction(rocksdict.BottommostLevelCompaction.force())
            if whole:
                self._db.compact_range(None, None, force)
            else:
                for key in sorted(removed):
                    self._db.compact_range(key, key + b"\0", force)
            with self._noting:
                if self._timer is None:  # else others were removed meanwhile
                    batch = rocksdict.WriteBatch(raw_mode=True)
                    batch.delete(_UNPURGED)
                    self._db.write(batch, self._no_wal)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """See Store."""
        for key, value in self._db.items():
            if key not in _OWN_KEYS:
                yield key, value

    def scan(self, after: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """See Store."""
        following = self._db.items(from_key=after + b"\0")
        return list(islice((item for item in following if item[0] not in _OWN_KEYS), limit))

    def wipe(self) -> None:
        """See Store."""
        with self._compacting, self._noting:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._removed.clear()
            self._purge_all = False
            self._db.close()
            shutil.rmtree(self._path)
            self._db = self._open()

    def flush(self) -> None:
        """Put on disk what is only in memory: nothing of it is lost by a kill."""
        self._db.flush()

    def close(self) -> None:
        """See Store. Flushes, so that a clean restart reads nothing again, and purges."""
        self.purge()
        self._db.flush()
        self._db.close()
