"""A replay in process: the same bytes however it is cut, shared and killed."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec
import pytest

from state.store import RocksStore
from stream.errors import RefusedError, ReplayError
from stream.replay.process import PROGRESS_KEY, read_progress, store_path
from stream.replay.record import LogRecord
from stream.replay.rows import Row
from stream.replay.run import lanes, make_share
from stream.replay.workers import Outcome, Plan, ProcessLane, Watching, _run_share, run
from stream.settings import Settings
from tests.test_stream.test_replay.logs import NOW_MS, blocks, rows, settings_with_model

PARTITIONS = 4
COUNT = 6_000


def a_plan(folder: Path, chunk_records: int = 256) -> Plan:
    return Plan(
        partitions=PARTITIONS,
        chunk_records=chunk_records,
        work=str(folder / "work"),
        out=str(folder / "out"),
        now_ms=NOW_MS,
    )


def replayed(
    settings: Settings,
    folder: Path,
    log: Sequence[Row],
    *,
    processes: int = 1,
    block: int = 500,
    chunk_records: int = 256,
    stopping: Callable[[], bool] = lambda: False,
) -> Outcome:
    plan = a_plan(folder, chunk_records)
    shares = lanes(partial(make_share, settings, plan, broker=False), plan, processes)
    try:
        return run(blocks(log, block), ["log.jsonl"], plan, shares, Watching(stopping=stopping))
    finally:
        for lane in shares:
            lane.close()


def states(folder: Path) -> dict[tuple[int, bytes], bytes]:
    """All values of all stores, but how far they have come."""
    found: dict[tuple[int, bytes], bytes] = {}
    for number in range(PARTITIONS):
        store = RocksStore(store_path(folder / "work", number))
        found |= {(number, key): value for key, value in store.items() if key != PROGRESS_KEY}
        store.close()
    return found


def outputs(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted((folder / "out").rglob("*.jsonl"))}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Path, Outcome]:
    """One run from end to end."""
    folder = tmp_path_factory.mktemp("whole")
    settings = settings_with_model(folder)
    return settings, folder, replayed(settings, folder, rows(COUNT))


def test_every_record_ends_in_one_outcome(whole: tuple[Settings, Path, Outcome]) -> None:
    _, folder, outcome = whole
    counts = outcome.counts
    kinds = ("applied", "duplicate", "late", "dead_letter", "erased", "rekeyed")
    assert sum(counts[kind] for kind in kinds) == outcome.records == COUNT
    assert all(counts[kind] > 0 for kind in kinds[:5])
    assert counts["dead_letter"] == COUNT // 97
    made = outputs(folder)
    for kind, name in (("lists", "lists"), ("late", "late"), ("dead_letter", "dead-letters")):
        lines = [line for path, text in made.items() if f"/{name}/" in path for line in text.splitlines()]
        assert sum(b'"removed"' not in line for line in lines) == counts[kind]


def test_dead_letters_name_file_and_row(whole: tuple[Settings, Path, Outcome]) -> None:
    text = b"".join(text for path, text in outputs(whole[1]).items() if "dead-letters" in path)
    assert b'"log":"log.jsonl","row":97,' in text


@pytest.mark.parametrize(("processes", "block"), [(1, 37), (3, 1013)])
def test_reading_and_sharing_it_otherwise_gives_the_same_bytes(
    whole: tuple[Settings, Path, Outcome], tmp_path: Path, processes: int, block: int
) -> None:
    settings, folder, outcome = whole
    other = replayed(settings, tmp_path, rows(COUNT), processes=processes, block=block)
    assert other.counts == outcome.counts
    assert states(tmp_path) == states(folder)
    assert outputs(tmp_path) == outputs(folder)


@pytest.mark.parametrize("chunk_records", [1, 64, 5000])
def test_other_chunks_give_the_same_states_and_last_lists(
    whole: tuple[Settings, Path, Outcome], tmp_path: Path, chunk_records: int
) -> None:
    settings, folder, _ = whole
    count = 1500 if chunk_records == 1 else COUNT
    if count != COUNT:
        folder = tmp_path / "whole"
        replayed(settings, folder, rows(count))
    replayed(settings, tmp_path / "other", rows(count), chunk_records=chunk_records)
    assert users(states(tmp_path / "other")) == users(states(folder))
    assert last_lists(tmp_path / "other") == last_lists(folder)


def users(found: dict[tuple[int, bytes], bytes]) -> dict[tuple[int, bytes], bytes]:
    """What is kept of users; how the partition's own records are cut follows the chunks."""
    return {key: value for key, value in found.items() if not key[1].startswith(b"\0")}


def last_lists(folder: Path) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for path, text in outputs(folder).items():
        for line in text.splitlines() if "/lists/" in path else ():
            made = msgspec.json.decode(line)
            found[made.get("user_id") or made["removed"]] = {k: v for k, v in made.items() if k != "generated_at"}
    return found


def test_stopped_and_gone_on_again_and_again(whole: tuple[Settings, Path, Outcome], tmp_path: Path) -> None:
    settings, folder, _ = whole
    for after in (2, 5, 9):
        stopped = replayed(settings, tmp_path, rows(COUNT), stopping=partial(next, iter([False] * after), True))
        assert stopped.stopped
    replayed(settings, tmp_path, rows(COUNT))
    assert states(tmp_path) == states(folder)
    assert outputs(tmp_path) == outputs(folder)


_KILLED = """
import sys, time
from pathlib import Path
import stream.replay.process
from tests.test_stream.test_replay import test_workers
from tests.test_stream.test_replay.logs import blocks, rows, settings_with_model
folder, model = Path(sys.argv[1]), Path(sys.argv[2])
def slowly(log, size):
    for block in blocks(log, size):
        time.sleep(0.02)
        yield block
if __name__ == "__main__":
    stream.replay.process._FLUSH_EVERY_S = 0.2  # a kill loses what is younger
    test_workers.blocks = slowly
    test_workers.replayed(settings_with_model(model), folder, rows(test_workers.COUNT), block=40)
"""


@pytest.mark.slow
def test_killed_five_times_it_ends_with_the_same_bytes(whole: tuple[Settings, Path, Outcome], tmp_path: Path) -> None:
    _, folder, _ = whole
    script = tmp_path / "killed.py"
    script.write_text(_KILLED)
    command = [sys.executable, str(script), str(tmp_path / "run"), str(folder)]
    environ = {**os.environ, "PYTHONPATH": os.getcwd()}
    draw, reached = random.Random(7), []
    for _ in range(5):
        process = subprocess.Popen(command, env=environ)
        wanted = _written(tmp_path / "run") + draw.randrange(20_000, 200_000)
        end_s = time.monotonic() + 60
        while _written(tmp_path / "run") < wanted and time.monotonic() < end_s:
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.01)
        time.sleep(draw.random() * 0.2)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        reached.append(known(tmp_path / "run"))
    assert reached == sorted(reached)
    assert 0 < reached[-1] < COUNT
    subprocess.run(command, check=True, timeout=120, env=environ)
    assert known(tmp_path / "run") == COUNT
    assert states(tmp_path / "run") == states(folder)
    assert outputs(tmp_path / "run") == outputs(folder)


def _written(folder: Path) -> int:
    """Bytes of all lists."""
    return sum(path.stat().st_size for path in folder.glob("out/lists/*.jsonl"))


def known(folder: Path) -> int:
    """Records that the states know."""
    reached = 0
    for number in range(PARTITIONS):
        store = RocksStore(store_path(folder / "work", number))
        reached += read_progress(store).next_offset or 0
        store.close()
    return reached


def test_another_log_is_refused(whole: tuple[Settings, Path, Outcome], tmp_path: Path) -> None:
    settings, _, _ = whole
    replayed(settings, tmp_path, rows(800))
    with pytest.raises(ReplayError, match=r"log\.jsonl, row \d+: is not what this replay read"):
        replayed(settings, tmp_path, rows(800, seed=2))


def test_an_output_that_lost_its_end_is_refused(whole: tuple[Settings, Path, Outcome], tmp_path: Path) -> None:
    settings, _, _ = whole
    replayed(settings, tmp_path, rows(800))
    path = next((tmp_path / "out" / "lists").glob("*.jsonl"))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ReplayError, match="lost its end"):
        replayed(settings, tmp_path, rows(800))


def test_a_process_that_is_refused_says_why(tmp_path: Path) -> None:
    settings = settings_with_model(tmp_path, **{"model.path": str(tmp_path / "nothing")})
    with pytest.raises(RefusedError, match="nothing"):
        replayed(settings, tmp_path, rows(100), processes=2)


def test_a_signal_to_all_processes_is_the_parents_to_follow(
    whole: tuple[Settings, Path, Outcome], tmp_path: Path
) -> None:
    """Ctrl-C and `systemctl stop` reach every process of the group: the children must not end with what is in hand."""
    plan = a_plan(tmp_path)
    lane = ProcessLane(partial(make_share, whole[0], plan, broker=False), range(PARTITIONS))
    try:
        assert lane.next_offsets() == {}
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(lane._process.pid or 0, number)
        run(blocks(rows(300), 100), ["log.jsonl"], plan, [lane], Watching())
        assert lane.counts()["applied"] > 0
    finally:
        lane.close()


def test_progress_stands_with_the_states(whole: tuple[Settings, Path, Outcome]) -> None:
    _, folder, outcome = whole
    assert known(folder) == outcome.records


class _TakesOnce:
    """In place of a Share: its parent goes when it has got a record."""

    def __init__(self, parent: Connection) -> None:
        self._parent = parent
        self.closed = False

    def counts(self) -> Counter[str]:
        return Counter()

    def next_offsets(self) -> dict[int, int]:
        return {}

    def take(self, _: int, __: list[LogRecord]) -> None:
        self._parent.close()

    def close(self) -> None:
        self.closed = True


def test_a_parent_that_goes_without_having_heard_all_is_no_failure() -> None:
    """What it was told lies unread in its pipe: then the system says that the pipe was reset, not that it ended."""
    ours, theirs = multiprocessing.Pipe()
    share = _TakesOnce(ours)
    record = LogRecord((0, 0), b"u", b"{}", NOW_MS, "log.jsonl", 1)
    ours.send_bytes(msgspec.msgpack.encode({0: [record]}))
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        _run_share(lambda _: share, [0], theirs)  # type: ignore[arg-type,return-value]  # like a Share
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert share.closed


_LEFT = """
import sys
from pathlib import Path
from functools import partial
from stream.replay.run import lanes, make_share
from tests.test_stream.test_replay.logs import settings_with_model
from tests.test_stream.test_replay.test_workers import a_plan
folder = Path(sys.argv[1])
if __name__ == "__main__":
    plan = a_plan(folder)
    made = lanes(partial(make_share, settings_with_model(folder), plan, broker=False), plan, 2)
    for lane in made:
        lane.next_offsets()
    sys.exit(7)
"""


def test_a_parent_that_ends_in_a_hurry_does_not_wait_for_ever(tmp_path: Path) -> None:
    script = tmp_path / "left.py"
    script.write_text(_LEFT)
    environ = {**os.environ, "PYTHONPATH": os.getcwd()}
    assert subprocess.run([sys.executable, str(script), str(tmp_path)], timeout=60, env=environ).returncode == 7
