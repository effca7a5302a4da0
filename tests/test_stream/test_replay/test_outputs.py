"""What agents send, as files that only ever grow, and lose what no commit knows."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from state.store import MemoryStore
from stream.contract.control import ERROR_OFFSET, ERROR_REASON
from stream.engine import Chunk
from stream.engine.cycle import Partition
from stream.errors import RefusedError, ReplayError
from stream.replay.outputs import PartitionFiles, claim
from stream.replay.record import LogRecord
from stream.settings import TopicsSection

TOPICS = TopicsSection()


def a_chunk(*sends: Any) -> Chunk:
    records = [LogRecord((4, offset), b"u", b"{}", 0, "log.jsonl", offset + 100) for offset in (7, 8)]
    chunk = Chunk(Partition(TOPICS.events, 4, None, MemoryStore(), 0), records, lambda _: None)
    for topic, value, key, headers in sends:
        chunk.send(topic, value, key, headers=headers)
    return chunk


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def opened(folder: Path, lengths: dict[str, int] | None = None) -> PartitionFiles:
    return PartitionFiles(folder, 4, TOPICS, lengths or {})


def test_each_kind_has_its_folder(tmp_path: Path) -> None:
    files = opened(tmp_path)
    topics = {
        "lists": TOPICS.recommendations,
        "late": TOPICS.late,
        "dead-letters": TOPICS.dead_letters,
        "rekey": TOPICS.rekey,
        "erasures": TOPICS.erasures,
        "another": "another",
    }
    files.write(a_chunk(*[(topic, b'{"n":1}', b"u", None) for topic in topics.values()]))
    files.close()
    assert {path.parent.name for path in tmp_path.rglob("00004.jsonl")} == set(topics)
    assert (tmp_path / "lists" / "00004.jsonl").read_bytes() == b'{"n":1}\n'  # as it was sent
    assert lines(tmp_path / "late" / "00004.jsonl") == [{"key": "u", "value": {"n": 1}}]


def test_a_tombstone_of_a_list_names_the_user(tmp_path: Path) -> None:
    files = opened(tmp_path)
    files.write(a_chunk((TOPICS.recommendations, None, b"acme\x1fu", None)))
    assert lines(tmp_path / "lists" / "00004.jsonl") == [{"removed": "acme\x1fu"}]
    files.close()


@pytest.mark.parametrize("value", [b"\xff\xfe", b"{half", b"", b'"\xed\xa0\x80"', b"[" * 100_000])
def test_a_dead_letter_names_file_and_row_and_keeps_its_bytes(tmp_path: Path, value: bytes) -> None:
    files = opened(tmp_path)
    headers = [(ERROR_OFFSET, b"8"), (ERROR_REASON, b"not_json"), ("none", None)]
    files.write(a_chunk((TOPICS.dead_letters, value, b"\xff", headers)))
    files.close()
    (told,) = lines(tmp_path / "dead-letters" / "00004.jsonl")
    assert (told["log"], told["row"], told["key"]) == ("log.jsonl", 108, "�")
    assert told["headers"] == {ERROR_OFFSET: "8", ERROR_REASON: "not_json", "none": None}
    assert "value" in told or base64.b64decode(told["value_base64"]) == value


def test_a_record_of_several_lines_is_one_line(tmp_path: Path) -> None:
    files = opened(tmp_path)
    files.write(a_chunk((TOPICS.late, b'{\n "a":\r\n [1, "x y"]\n}\n', b"u", None), (TOPICS.late, b"2", b"u", None)))
    files.close()
    assert [told["value"] for told in lines(tmp_path / "late" / "00004.jsonl")] == [{"a": [1, "x y"]}, 2]


def test_what_no_commit_knows_is_cut_off(tmp_path: Path) -> None:
    files = opened(tmp_path)
    files.write(a_chunk((TOPICS.recommendations, b"1", b"u", None)))
    committed = dict(files.lengths)
    files.write(a_chunk((TOPICS.recommendations, b"2", b"u", None), (TOPICS.late, b"3", b"u", None)))
    files.close()
    again = opened(tmp_path, committed)
    assert again.lengths == {"lists": 2, "late": 0}
    again.write(a_chunk((TOPICS.recommendations, b"4", b"u", None)))
    again.close()
    assert (tmp_path / "lists" / "00004.jsonl").read_bytes() == b"1\n4\n"
    assert (tmp_path / "late" / "00004.jsonl").read_bytes() == b""


def test_files_of_other_partitions_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "00005.jsonl").write_bytes(b"1\n")
    opened(tmp_path).close()
    assert (tmp_path / "lists" / "00005.jsonl").read_bytes() == b"1\n"


def test_a_file_that_is_gone_or_short_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReplayError, match=r"lists/00004\.jsonl is gone; begin anew with --fresh"):
        opened(tmp_path, {"lists": 2})
    files = opened(tmp_path)
    files.write(a_chunk((TOPICS.recommendations, b"1", b"u", None)))
    files.close()
    with pytest.raises(ReplayError, match=r"lost its end.*--fresh"):
        opened(tmp_path, {"lists": 3})
    assert (tmp_path / "lists" / "00004.jsonl").read_bytes() == b"1\n"  # refused, and not changed


def test_sync_and_close_keep_what_was_written(tmp_path: Path) -> None:
    files = opened(tmp_path)
    files.write(a_chunk((TOPICS.recommendations, b"1", b"u", None)))
    files.sync()
    assert (tmp_path / "lists" / "00004.jsonl").read_bytes() == b"1\n"
    files.close()


def test_a_folder_is_one_replays(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    claim(out, "one")
    (out / "lists").mkdir()
    claim(out, "one")
    with pytest.raises(RefusedError, match=r"holds what another replay sent.*--out"):
        claim(out, "two")
    with pytest.raises(RefusedError, match=r"is no replay's.*--out"):
        claim(tmp_path / "deep", "one")
