"""One contract for every store; then what only RocksDB has."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from state.errors import StoreError
from state.store import MemoryStore, RocksStore, Store


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
