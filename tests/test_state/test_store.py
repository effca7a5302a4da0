"""One contract for every store; then what only RocksDB has."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from state.errors import StoreError
from state.store import MemoryStore, RocksStore, Store, remove_abandoned


@pytest.fixture(params=["memory", "rocks"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made: Store = MemoryStore() if request.param == "memory" else RocksStore(tmp_path / "x" / "p0.db")
    yield made
    made.close()


def test_a_new_store_is_empty_at_position_0(store: Store) -> None:
    assert store.position == 0
    assert store.get_many([b"a"]) == [None]
    assert store.get_many([]) == []
    assert list(store.items()) == []


def test_values_come_back_in_the_order_asked(store: Store) -> None:
    store.write([(b"a", b"1"), (b"b", b"2")], 5)
    assert store.get_many([b"b", b"x", b"a"]) == [b"2", None, b"1"]
    assert store.position == 5


def test_the_last_put_of_a_key_counts(store: Store) -> None:
    store.write([(b"a", b"1"), (b"a", None), (b"a", b"3"), (b"b", b"1"), (b"b", None)], None)
    assert store.get_many([b"a", b"b"]) == [b"3", None]


def test_no_position_leaves_it_where_it_was(store: Store) -> None:
    store.write([(b"a", b"1")], 5)
    store.write([(b"a", b"2")], None)
    assert store.position == 5


def test_items_are_sorted_and_without_the_position(store: Store) -> None:
    store.write([(b"b", b"2"), (b"a", b"1"), (b"\0trend", b"t")], 9)
    assert list(store.items()) == [(b"\0trend", b"t"), (b"a", b"1"), (b"b", b"2")]


def test_a_scan_goes_on_after_a_key(store: Store) -> None:
    store.write([(b"b", b"2"), (b"a", b"1"), (b"c", b"3"), (b"\0trend", b"t")], 9)
    assert store.scan(b"", 2) == [(b"\0trend", b"t"), (b"a", b"1")]
    assert store.scan(b"a", 2) == [(b"b", b"2"), (b"c", b"3")]
    assert store.scan(b"aa", 1) == [(b"b", b"2")]
    assert store.scan(b"c", 5) == []


def test_a_scan_meets_no_record_of_the_store_itself(store: Store) -> None:
    store.write([(b"a", b"1"), (b"b", b"2")], 9)
    store.write([(b"a", None)], 10)
    assert store.scan(b"", 10) == list(store.items()) == [(b"b", b"2")]


def test_wiped_it_is_new(store: Store) -> None:
    store.write([(b"a", b"1")], 5)
    store.wipe()
    assert store.position == 0
    assert store.get_many([b"a"]) == [None]
    store.write([(b"a", b"2")], 1)
    assert store.get_many([b"a"]) == [b"2"]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.tuples(st.binary(min_size=1, max_size=3), st.none() | st.binary(max_size=5)), max_size=6)))
def test_agrees_with_a_dictionary(store: Store, batches: list[list[tuple[bytes, bytes | None]]]) -> None:
    store.wipe()
    model: dict[bytes, bytes] = {}
    for batch in batches:
        store.write(batch, None)
        for key, value in batch:
            if value is None:
                model.pop(key, None)
            else:
                model[key] = value
    assert dict(store.items()) == model


def test_rocks_keeps_its_values_over_a_clean_close(tmp_path: Path) -> None:
    first = RocksStore(tmp_path / "p0.db")
    first.write([(b"a", b"1")], 7)
    first.close()
    again = RocksStore(tmp_path / "p0.db")
    assert (again.get_many([b"a"]), again.position) == ([b"1"], 7)
    again.close()


def test_rocks_keeps_its_bloom_filter_when_it_is_opened_again(tmp_path: Path) -> None:
    """Without one a read looks into every file that may hold the key; rocksdict forgets it (see RocksStore._open)."""
    for n in range(2):
        store = RocksStore(tmp_path / "p0.db")
        store.write([(b"k%d" % n, b"v")], n)
        store._db.flush()
        newest = max((tmp_path / "p0.db").glob("*.sst"))
        assert b"bloomfilter" in newest.read_bytes(), n
        store.close()


CRASHING = """
import os, sys, time
from pathlib import Path
from state.store import RocksStore
store = RocksStore(Path(sys.argv[1]))
for i in range(40_000):
    store.write([(b"k%d" % i, b"v" * 1000), (b"last", b"%d" % i)], i + 1)
time.sleep(1)  # memtables are flushed in the background
os._exit(9)
"""


def test_a_killed_process_leaves_values_and_position_that_agree(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", CRASHING, str(tmp_path / "p0.db")], check=False)
    assert ended.returncode == 9
    store = RocksStore(tmp_path / "p0.db")
    # 40 MB were written and memtables hold 16: some of it reached the disk, the end of it did not.
    position = store.position
    assert 0 < position < 40_000
    assert store.get_many([b"last"]) == [b"%d" % (position - 1)]
    assert store.get_many([b"k%d" % i for i in range(0, position, 997)]) == [b"v" * 1000] * len(range(0, position, 997))
    assert store.get_many([b"k%d" % position]) == [None]
    store.close()


def test_a_store_that_was_away_for_long_is_new(tmp_path: Path) -> None:
    """Tombstones it never saw may be compacted away: what they deleted must not come back from it."""
    for away_s, expected in ((86_000, b"1"), (87_000, None)):
        first = RocksStore(tmp_path / f"{away_s}.db", now_s=lambda: 1_000_000.0)
        first.write([(b"a", b"1")], 7)
        first.close()
        again = RocksStore(tmp_path / f"{away_s}.db", now_s=lambda: 1_000_000.0 + away_s)  # noqa: B023
        assert again.get_many([b"a"]) == [expected]
        assert again.position == (7 if expected else 0)
        again.close()


def test_a_folder_in_use_is_refused_with_what_to_do(tmp_path: Path) -> None:
    first = RocksStore(tmp_path / "p0.db")
    with pytest.raises(StoreError, match="--data-dir"):
        RocksStore(tmp_path / "p0.db")
    first.close()


def test_a_damaged_store_is_refused_with_what_to_do(tmp_path: Path) -> None:
    first = RocksStore(tmp_path / "p0.db")
    first.write([(b"a", b"1")], 1)
    first.close()
    for manifest in (tmp_path / "p0.db").glob("MANIFEST*"):
        manifest.write_bytes(b"nothing of the kind")
    with pytest.raises(StoreError, match="rebuilt from the changelog"):
        RocksStore(tmp_path / "p0.db")


def _files_with(folder: Path, text: bytes) -> set[str]:
    return {file.name.split("-")[0] for file in folder.iterdir() if file.is_file() and text in file.read_bytes()}


def _fill(store: RocksStore, erased: bytes = b"marked") -> None:
    """Two files with values of one user among those of others."""
    for round_ in range(2):
        store.write([(b"user%04d" % n, b"x" * 500) for n in range(1000)], 1)
        store.write([(erased, b"secret%d" % round_)], 2)
        store._db.flush()


def test_a_purge_takes_the_bytes_of_removed_users_out_of_the_files(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "p0.db")
    _fill(store)
    assert _files_with(tmp_path / "p0.db", b"secret")
    store.write([(b"marked", None)], 3)
    store._db.flush()
    assert _files_with(tmp_path / "p0.db", b"secret"), "without the purge they would stay"
    store.purge()
    assert _files_with(tmp_path / "p0.db", b"secret") == set()
    assert _files_with(tmp_path / "p0.db", b"marked") <= {"MANIFEST"}  # the names of the files' borders
    assert store.get_many([b"user0999"]) == [b"x" * 500]
    store.close()


def test_a_store_that_was_closed_holds_nothing_of_removed_users(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "p0.db")
    _fill(store)
    store.write([(b"marked", None)], 3)
    store.close()
    assert _files_with(tmp_path / "p0.db", b"secret") == set()


def test_a_quiet_store_is_purged_by_itself(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "p0.db", purge_after_s=0.05)
    _fill(store)
    store.write([(b"marked", None)], 3)
    end_s = time.monotonic() + 20
    while _files_with(tmp_path / "p0.db", b"secret"):
        assert time.monotonic() < end_s
        time.sleep(0.02)
    store.close()


def test_many_removed_at_once(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "p0.db")
    store.write([(b"user%04d" % n, b"secret") for n in range(1000)], 1)
    store._db.flush()
    store.write([(b"user%04d" % n, None) for n in range(999)], 2)
    store.purge()
    assert list(store.items()) == [(b"user0999", b"secret")]
    files = b"".join(file.read_bytes() for file in (tmp_path / "p0.db").glob("*.sst"))
    assert files.count(b"secret") == 1
    store.close()


def test_a_crash_before_the_purge_does_not_cancel_it(tmp_path: Path) -> None:
    removing = CRASHING.split("for i in")[0] + (
        "store.write([(b'marked', b'secret'), (b'other', b'1')], 1)\n"
        "store._db.flush()\n"
        "store.write([(b'marked', None)], 2)\n"
        "store._db.flush()\n"
        "os._exit(9)\n"
    )
    ended = subprocess.run([sys.executable, "-c", removing, str(tmp_path / "p0.db")], check=False)
    assert ended.returncode == 9
    assert _files_with(tmp_path / "p0.db", b"secret")
    store = RocksStore(tmp_path / "p0.db")
    store.write([(b"another", b"2")], 3)
    store.purge()
    assert _files_with(tmp_path / "p0.db", b"secret") == set()
    store.close()


def test_stores_that_nobody_has_written_for_a_day_are_removed(tmp_path: Path) -> None:
    for name in ("events-0.db", "events-1.db", "rekey-0.db"):
        store = RocksStore(tmp_path / name)
        store.write([(b"ann", b"secret")], 1)
        store.close()
    (tmp_path / "faust").mkdir()
    now_s = time.time()
    assert remove_abandoned(tmp_path, (), lambda: now_s + 86_000) == []
    removed = remove_abandoned(tmp_path, {"events-0.db", "rekey-0.db"}, lambda: now_s + 90_000)
    assert removed == [tmp_path / "events-1.db"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events-0.db", "faust", "rekey-0.db"]
    assert remove_abandoned(tmp_path / "not there", ()) == []
