"""The work folder of a replay."""

from pathlib import Path

import pytest

from stream.errors import RefusedError
from stream.replay.work import Work, identity_digest

ONE = {"log": {"sources": ("a.jsonl",)}, "chunk_records": 5}


def test_going_on_keeps_when_it_was_begun(tmp_path: Path) -> None:
    work = Work(tmp_path / "deep" / "work")
    assert not work.is_replay
    assert work.digest == ""
    assert work.begin(ONE, lambda: 11) == 11
    assert work.begin({"chunk_records": 5, "log": {"sources": ["a.jsonl"]}}, lambda: 99) == 11
    assert work.digest == identity_digest(ONE)
    assert [path.name for path in work.path.iterdir()] == ["replay.json"]  # nothing half-written


def test_another_replay_is_refused_by_what_differs(tmp_path: Path) -> None:
    work = Work(tmp_path)
    work.begin(ONE)
    with pytest.raises(RefusedError, match=r"holds another replay: chunk_records, model differ\..*--work.*--fresh"):
        work.begin({**ONE, "chunk_records": 6, "model": "m"})
    assert identity_digest(ONE) != identity_digest({**ONE, "chunk_records": 6})


def test_the_first_of_two_processes_says_when_it_began(tmp_path: Path) -> None:
    first, second = Work(tmp_path), Work(tmp_path)

    def slow_clock() -> int:
        assert first.begin(ONE, lambda: 1) == 1  # meanwhile
        return 2

    assert second.begin(ONE, slow_clock) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["replay.json"]


def test_what_was_refused_was_not_begun(tmp_path: Path) -> None:
    work = Work(tmp_path / "work")
    with pytest.raises(RefusedError, match="no"), work.beginning(ONE):
        raise RefusedError("no")
    assert not work.path.exists()
    with work.beginning({"another": 1}) as begun_ms:
        assert begun_ms > 0
    with pytest.raises(RefusedError, match="no"), work.beginning({"another": 1}):
        raise RefusedError("no")
    assert work.is_replay  # it was begun before


def test_what_wrote_before_it_was_refused_is_gone_on_with(tmp_path: Path) -> None:
    work = Work(tmp_path / "work")

    def refused_late() -> None:
        with work.beginning(ONE):
            (work.path / "stores").mkdir()
            raise RefusedError("no")

    with pytest.raises(RefusedError, match="no"):
        refused_late()
    assert work.digest == identity_digest(ONE)
    assert (work.path / "stores").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    work = Work(tmp_path)
    with pytest.raises(RefusedError, match="holds no replay"):
        work.begin(ONE)
    with pytest.raises(RefusedError, match="holds no replay, so it is not removed"):
        work.remove()
    with pytest.raises(RefusedError, match="Give the work folder"):
        work.pause(True)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    work = Work(tmp_path)
    work.begin(ONE)
    (tmp_path / "replay.json").write_text("{half")
    with pytest.raises(RefusedError, match=r"cannot be read .*--fresh"):
        work.begin(ONE)
    work.remove()
    assert work.begin(ONE, lambda: 5) == 5


def test_remove(tmp_path: Path) -> None:
    work = Work(tmp_path / "work")
    work.remove()  # nothing there
    work.begin(ONE)
    (work.path / "stores").mkdir()
    work.remove()
    assert not work.path.exists()


def test_pause_and_resume(tmp_path: Path) -> None:
    work = Work(tmp_path)
    work.begin(ONE)
    assert not work.paused
    work.pause(True)
    work.pause(True)
    assert work.paused
    assert Work(tmp_path).begin(ONE) > 0  # a paused replay may be gone on with
    work.pause(False)
    work.pause(False)
    assert not work.paused


def test_a_process_that_begins_it_meanwhile_or_was_killed_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / "replay.json.4711").write_text("half")
    assert Work(tmp_path).begin(ONE, lambda: 3) == 3
    Work(tmp_path).remove()
    assert not tmp_path.exists()


@pytest.mark.parametrize("deeper", ["", "deeper"])
def test_a_file_in_its_place_is_refused(tmp_path: Path, deeper: str) -> None:
    (tmp_path / "work").write_text("x")
    with pytest.raises(RefusedError, match=r"Not a directory\. Give another folder with --work"):
        Work(tmp_path / "work" / deeper).begin(ONE)
