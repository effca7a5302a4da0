"""One share of a replay: where its chunks end, what it passes over, what it counts, what it keeps.

offset        0  1  2  3  4  5  6  7  8  9 10
chunks of 4   └────────┘  └────────┘  └──────   the last is whole when the log has ended
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest

from model.recommender import Portion
from state.codec import decode_state
from state.store import MemoryStore, RocksStore
from stream.engine import Chunk
from stream.engine.cycle import Partition
from stream.errors import ReplayError
from stream.replay.outputs import PartitionFiles
from stream.replay.process import PROGRESS_KEY, FolderTarget, Progress, Share, read_progress, store_path
from stream.replay.record import LogRecord
from stream.settings import Settings
from tests.test_stream.test_replay.logs import FIRST_MS, NOW_MS, settings_with_model

SIZE = 4


class MemoryTarget:
    """Keeps what is committed: (partition, offsets of the chunk), and stores in memory."""

    def __init__(self, progress: Mapping[int, Progress] = {}, *, fails: bool = False) -> None:
        self.stores: dict[int, MemoryStore] = {}
        self.committed: list[tuple[int, list[int]]] = []
        self.commits = self.flushed = 0
        self.closed = False
        self._progress, self._fails = progress, fails

    def open(self, number: int) -> Partition:
        if self._fails and number == 2:
            raise ReplayError("no such place")
        store = self.stores[number] = MemoryStore()
        return Partition("events", number, None, store, 0)

    def progress(self, number: int) -> Progress:
        return self._progress.get(number, Progress())

    def commit(self, chunks: Sequence[Chunk], progress: Mapping[int, Progress]) -> None:
        self.commits += 1
        for chunk in chunks:
            number = chunk.partition.number
            self.stores[number].write(chunk.puts, None)
            offsets = [record.offset() or 0 for record in chunk.records]
            self.committed.append((number, offsets))
            assert progress[number].next_offset == offsets[-1] + 1

    def flush(self) -> None:
        self.flushed += 1

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return settings_with_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def target() -> MemoryTarget:
    return MemoryTarget()


@pytest.fixture
def share(settings: Settings, target: MemoryTarget) -> Iterator[Share]:
    made = Share(settings, target, [1, 2], 3, SIZE, NOW_MS)
    yield made
    made.close()


def a_record(
    offset: int, number: int = 1, *, user: str = "u1", event: str = "", value: bytes | None = None
) -> LogRecord:
    made = {
        "event_id": event or f"e{offset}",
        "event_type": "view",
        "occurred_at": FIRST_MS + offset * 1_000,
        "user_id": user,
        "item_id": f"i{offset % 60}",
    }
    content = msgspec.json.encode(made) if value is None else value
    return LogRecord((number, offset), user.encode(), content, NOW_MS, "log.jsonl", offset + 1)


def run_of(begin: int, end: int, number: int = 1) -> list[LogRecord]:
    return [a_record(offset, number) for offset in range(begin, end)]


# ------------------------------------------------------------------ where chunks end


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5, 8, 11])
def test_chunks_end_at_borders_however_the_log_comes(share: Share, target: MemoryTarget, cut: int) -> None:
    for begin in range(0, 11, cut):
        share.take(1, run_of(begin, min(begin + cut, 11)))
    share.finish()
    assert target.committed == [(1, [0, 1, 2, 3]), (1, [4, 5, 6, 7]), (1, [8, 9, 10])]


def test_a_run_that_begins_in_the_middle_ends_at_the_next_border(share: Share, target: MemoryTarget) -> None:
    share.take(1, run_of(6, 10))
    share.finish()
    assert target.committed == [(1, [6, 7]), (1, [8, 9])]


def test_offsets_of_a_topic_may_have_gaps(share: Share, target: MemoryTarget) -> None:
    """Markers of transactions take offsets, and compaction and aborts leave holes: here 3, 4 and 8 to 20."""
    share.take(1, [*run_of(0, 3), *run_of(5, 8), *run_of(21, 23)])
    share.take(1, run_of(30, 31))
    share.finish()
    assert target.committed == [(1, [0, 1, 2]), (1, [5, 6, 7]), (1, [21, 22]), (1, [30])]
    assert share.next_offsets() == {1: 31}


def test_offsets_before_the_log_are_cut_alike(share: Share, target: MemoryTarget) -> None:
    share.take(1, run_of(-6, 2))
    share.finish()
    assert target.committed == [(1, [-6, -5]), (1, [-4, -3, -2, -1]), (1, [0, 1])]


def test_partitions_have_borders_of_their_own_and_are_committed_together(share: Share, target: MemoryTarget) -> None:
    share.take(1, run_of(0, 5, 1))
    share.take(2, run_of(0, 4, 2))
    assert target.commits == 0  # too little to be worth a call of the network
    share.finish()
    assert sorted(target.committed) == [(1, [0, 1, 2, 3]), (1, [4]), (2, [0, 1, 2, 3])]
    assert target.commits == 2  # chunk 0 of both, then what is left


def test_what_is_not_whole_is_left_for_the_next_run(settings: Settings, target: MemoryTarget) -> None:
    share = Share(settings, target, [1], 3, SIZE, NOW_MS)
    share.take(1, run_of(0, 7))
    share.close()
    assert target.committed == [(1, [0, 1, 2, 3])]
    assert target.closed


def test_an_empty_log_leaves_nothing(share: Share, target: MemoryTarget) -> None:
    share.finish()
    assert (target.commits, share.counts(), share.next_offsets()) == (0, {}, {})
    assert target.flushed == 1


# ------------------------------------------------------------------ going on


def went_on(settings: Settings, log: list[LogRecord], chunks: int = 1) -> tuple[Share, MemoryTarget]:
    """A share that goes on after `chunks` chunks of `log`."""
    first = MemoryTarget()
    share = Share(settings, first, [1], 3, SIZE, NOW_MS)
    share.take(1, log[: chunks * SIZE])
    share.close()
    target = MemoryTarget(share._progress)
    return Share(settings, target, [1], 3, SIZE, NOW_MS), target


@pytest.mark.parametrize("cut", [1, 3, 4, 10])
def test_what_the_state_knows_is_passed_over(settings: Settings, cut: int) -> None:
    share, target = went_on(settings, run_of(0, 10))
    for begin in range(0, 10, cut):
        share.take(1, run_of(begin, min(begin + cut, 10)))
    share.finish()
    assert target.committed == [(1, [4, 5, 6, 7]), (1, [8, 9])]
    assert share.counts()["applied"] == 10  # the first run's included


def test_a_topic_is_read_from_there_on(settings: Settings) -> None:
    share, target = went_on(settings, run_of(0, 10))
    assert share.next_offsets() == {1: 4}
    share.take(1, run_of(4, 10))
    share.finish()
    assert target.committed == [(1, [4, 5, 6, 7]), (1, [8, 9])]


def test_another_log_is_told_by_its_last_record(settings: Settings) -> None:
    share, target = went_on(settings, run_of(0, 10))
    changed = run_of(0, 10)
    changed[3] = a_record(3, event="another")
    with pytest.raises(ReplayError, match=r"log\.jsonl, row 4: is not what this replay read there before.*--fresh"):
        share.take(1, changed)
    assert target.committed == []


def test_after_the_end_a_log_may_have_grown(settings: Settings) -> None:
    """The last chunk was cut by the end of the log; what came since goes into one of its own, up to the border."""
    target = MemoryTarget()
    share = Share(settings, target, [1], 3, SIZE, NOW_MS)
    share.take(1, run_of(0, 6))
    share.finish()
    share.take(1, run_of(0, 9))
    share.finish()
    assert target.committed == [(1, [0, 1, 2, 3]), (1, [4, 5]), (1, [6, 7]), (1, [8])]
    share.close()


# ------------------------------------------------------------------ what became of records


def test_every_record_has_one_outcome(share: Share, settings: Settings) -> None:
    day_ms = 86_400_000
    late = a_record(
        7, value=a_record(0, event="old").content.replace(b"%d" % FIRST_MS, b"%d" % (FIRST_MS - 9 * day_ms))
    )
    log = [
        a_record(0),
        a_record(1, event="e0", value=a_record(0).content),  # sent again
        a_record(2, value=b"no event"),
        a_record(3, user="u2", value=a_record(3, user="u3").content),  # under another's key
        a_record(4, value=b'{"event_type":"user_erased","occurred_at":%d,"user_id":"u1"}' % (FIRST_MS + 4_000)),
        a_record(5),
        a_record(6),
        late,
    ]
    share.take(1, log)
    share.finish()
    counts = dict(share.counts())
    assert counts.pop("lists") == 2  # one a chunk: of u1, then of u1 anew
    assert counts == {"applied": 3, "duplicate": 1, "dead_letter": 1, "rekeyed": 1, "erased": 1, "late": 1}
    assert sum(counts.values()) == len(log)


def test_states_hold_what_was_applied(share: Share, target: MemoryTarget) -> None:
    share.take(1, run_of(0, 6))
    share.finish()
    (value,) = target.stores[1].get_many([b"u1"])
    assert value is not None
    assert (decode_state(value).events_applied, decode_state(value).last_offset) == (6, 5)


def test_an_observer_sees_each_chunk_before_it_is_kept(settings: Settings, target: MemoryTarget) -> None:
    seen: list[tuple[int, int]] = []

    def observe(chunk: Chunk, portion: Portion) -> None:
        seen.append((len(chunk.records), len(portion.batch)))
        assert len(target.committed) == len(seen) - 1
        chunk.put(b"\0own", b"1")

    share = Share(settings, target, [1], 3, SIZE, NOW_MS, observer=observe)
    share.take(1, run_of(0, 6))
    share.finish()
    assert seen == [(4, 4), (2, 2)]
    assert target.stores[1].get_many([b"\0own"]) == [b"1"]
    share.close()


def test_a_place_that_cannot_be_opened_closes_the_others(settings: Settings) -> None:
    target = MemoryTarget(fails=True)
    with pytest.raises(ReplayError, match="no such place"):
        Share(settings, target, [1, 2], 3, SIZE, NOW_MS)
    assert target.closed


# ------------------------------------------------------------------ a folder


def test_a_folder_keeps_states_with_how_far_they_came(settings: Settings, tmp_path: Path) -> None:
    target = FolderTarget(settings, tmp_path, tmp_path / "out")
    share = Share(settings, target, [1, 2], 3, SIZE, NOW_MS)
    share.take(1, run_of(0, 4))
    share.finish()
    share.close()
    again = FolderTarget(settings, tmp_path, tmp_path / "out")
    for number in (1, 2):
        again.open(number)
    assert again.progress(2) == Progress()
    reached = again.progress(1)
    lists = tmp_path / "out" / "lists" / "00001.jsonl"
    assert (reached.next_offset, reached.counts) == (4, {"applied": 4, "lists": 1})
    assert reached.outputs == {"lists": lists.stat().st_size}
    again.close()


@pytest.mark.parametrize("full", ["files", "stores"])
def test_a_full_disk_is_said_and_gone_on_with(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    def no_room(*_: object) -> None:
        raise OSError(28, "No space left on device")

    share = Share(settings, FolderTarget(settings, tmp_path, tmp_path / "out"), [1], 3, SIZE, NOW_MS)
    with monkeypatch.context() as patch:
        patch.setattr(*((PartitionFiles, "write") if full == "files" else (RocksStore, "write")), no_room)
        share.take(1, run_of(0, 4))
        with pytest.raises(ReplayError, match=r"out cannot be written: .*No space left.*run again: the replay goes on"):
            share.finish()
    share.close()
    again = Share(settings, FolderTarget(settings, tmp_path, tmp_path / "out"), [1], 3, SIZE, NOW_MS)
    again.take(1, run_of(0, 4))
    again.finish()
    assert again.counts() == {"applied": 4, "lists": 1}
    again.close()
    assert len((tmp_path / "out" / "lists" / "00001.jsonl").read_text().splitlines()) == 1


def test_without_an_out_folder_only_states_are_kept(settings: Settings, tmp_path: Path) -> None:
    target = FolderTarget(settings, tmp_path, None)
    share = Share(settings, target, [1], 3, SIZE, NOW_MS)
    share.take(1, run_of(0, 5))
    share.finish()
    share.close()
    assert [path.name for path in tmp_path.iterdir()] == ["stores"]
    assert store_path(tmp_path, 1).exists()


def test_progress_that_cannot_be_read_is_refused() -> None:
    store = MemoryStore()
    assert read_progress(store) == Progress()  # type: ignore[arg-type]
    store.write([(PROGRESS_KEY, b"\xc1")], None)
    with pytest.raises(ReplayError, match=r"cannot be read.*--fresh"):
        read_progress(store)  # type: ignore[arg-type]
