"""What is said of a log before anything runs."""

from pathlib import Path
from typing import Any

import pytest

from stream.cli.common import Output, Run
from stream.cli.show_log import show
from stream.replay import inspect as module
from stream.replay.inspect import inspect
from stream.replay.log import LogSpec
from stream.settings import load_settings
from tests.test_stream.event_files import AT_MS, event, write

SETTINGS = load_settings(None, {"events.grace_s": "60"}, {})
MINUTE_MS = 60_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten events of five users; a row of no use, two repeated ids, one late, a file twice, one of another kind."""
    events = [event(n, occurred_at=AT_MS + n * MINUTE_MS) for n in range(10)]
    again = [events[9], {**events[8], "user_id": "u9"}]  # of another user: no repetition
    late = [event(11, occurred_at=AT_MS)]
    write(tmp_path / "a.jsonl", [*events, event(10, event_type="dance"), *again, *late])
    (tmp_path / "b.jsonl").write_bytes((tmp_path / "a.jsonl").read_bytes())
    write(tmp_path / "c.csv", [{"sku": "x", "name": "Mug"}])
    return tmp_path


def found_in(folder: Path, **more: Any) -> dict[str, Any]:
    return inspect(LogSpec((str(folder),), **more), SETTINGS, partitions=1, now_ms=AT_MS + 10**8)


def test_what_is_found(folder: Path) -> None:
    found = found_in(folder)
    rows = found["rows"]
    assert (rows["read"], rows["events"], rows["users"], rows["items"]) == (14, 13, 6, 1)
    assert rows["types"] == {"view": 13}
    assert (rows["first_time"], rows["last_time"]) == ("2026-01-02T03:04:05.123Z", "2026-01-02T03:13:05.123Z")
    assert rows["counted_up_to"] is None
    assert [one["event_id"] for one in found["events"]] == ["e0", "e1", "e2", "e3", "e4"]
    assert set(found["rejected"]) == {"unknown_event_type", "file"}
    assert found["rejected"]["unknown_event_type"]["first"][0].startswith("a.jsonl:11: event_type is none of")
    assert found["rejected"]["file"]["first"][0].startswith("c.csv: c.csv has no column for occurred_at")
    assert (found["late"]["count"], found["late"]["by_at_most_s"]) == (1, 540)
    assert found["late"]["first"] == ["a.jsonl:14: 2026-01-02T03:04:05.123Z is 540 s behind partition 0"]
    assert (found["duplicate_ids"]["count"], found["duplicate_ids"]["first"]) == (1, ["a.jsonl:12: e9"])
    assert found["duplicate_files"]["files"] == 1
    assert (found["unsorted"]["count"], found["unsorted"]["largest_step_back_s"]) == (2, 480)


def test_how_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp,more\n1,2,3,1256677221,x\n")
    [file] = found_in(tmp_path)["files"]
    assert (file["preset"], file["kind"], file["event_type"], file["left_out"]) == (
        "movielens",
        "csv",
        "rating",
        ["more"],
    )
    assert file["mapping"] == {
        "user_id": "userId",
        "item_id": "movieId",
        "value": "rating",
        "occurred_at": "timestamp",
    }


def test_memory_is_bounded_and_that_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KNOWN", 4)
    found = found_in(folder)
    assert (found["rows"]["users"], found["rows"]["counted_up_to"]) == (4, 4)
    assert (found["duplicate_ids"]["among_rows"], found["duplicate_ids"]["count"]) == (4, 0)


def test_limit(folder: Path) -> None:
    assert found_in(folder, limit=3)["rows"]["events"] == 3


def test_the_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(Run(SETTINGS, Output.table, 0), found_in(folder))
    told = capsys.readouterr().out
    for text in (
        "a.jsonl",
        "c.csv has no column for occurred_at",
        "13 events of 6 users on 1 items, 2026-01-02",
        "rejected: unknown_event_type",
        "late: more than 60 s behind, by 540 s at most (1 partitions; late_policy late_topic)",
        "files that are there twice",
        "--order sorted puts those of files in order",
    ):
        assert text in told
    show(Run(SETTINGS, Output.table, 0), found_in(folder, order="sorted"))
    assert "--order sorted" not in capsys.readouterr().out


def test_a_document(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(Run(SETTINGS, Output.json, 0), found_in(folder))
    assert '"files_in_all": 2' in capsys.readouterr().out
