import random
from pathlib import Path

import pytest

from stream.errors import ReplayError
from stream.replay import sort
from stream.replay.rows import Row
from stream.replay.sort import by_time


def rows(count: int) -> list[Row]:
    draw = random.Random(7)
    return [Row(b"v%d" % n, b"k", draw.randrange(500), n, 3, headers=[("h", b"x"), ("i", None)]) for n in range(count)]


@pytest.mark.parametrize("run_rows", [100, 2000, 10_000])
def test_by_time_and_stable(run_rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sort, "_RUN_ROWS", run_rows)
    monkeypatch.setattr(sort, "_BLOCK_ROWS", 16)
    given = rows(5000)
    found = [row for block in by_time((given[at : at + 70] for at in range(0, 5000, 70)), tmp_path) for row in block]
    assert [(row.time_ms, row.number) for row in found] == sorted((row.time_ms, row.number) for row in given)
    assert {row.number: (row.value, list(row.headers)) for row in found} == {
        row.number: (row.value, list(row.headers)) for row in given
    }
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_of_one_that_stops_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sort, "_RUN_ROWS", 100)
    found = by_time(iter([rows(20_000)]), tmp_path)
    next(found)
    assert list(tmp_path.iterdir()) != []
    found.close()  # type: ignore[attr-defined]
    assert list(tmp_path.iterdir()) == []


def test_no_rows() -> None:
    assert list(by_time(iter([]))) == []


def test_no_room_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sort, "_RUN_ROWS", 100)
    monkeypatch.setattr(sort, "_spilled", no_room)
    with pytest.raises(ReplayError, match=r"cannot be sorted in .*No space left on device.*TMPDIR"):
        list(by_time(iter([rows(200)]), tmp_path))
    assert list(tmp_path.iterdir()) == []
