"""Files of events: what each kind of file gives, and what is wrong with a row."""

import bz2
import json
import lzma
import os
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stream.errors import EventError, ProduceError, RefusedError
from stream.event_file import EventFile, RecordMaker
from stream.event_table import Reading
from stream.pseudonym import Pseudonyms
from stream.settings import EventsSection
from tests.test_stream.event_files import AT_MS, event, write


def rows_of(path: Path, reading: Reading | None = None) -> list[tuple[int, Any]]:
    return [
        (number, value if isinstance(value, EventError) else json.loads(value))
        for number, value in EventFile(path, reading)
    ]


class TestEventFile:
    @pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.JSONL", "a.jsonl.gz", "a.parquet"])
    def test_kinds(self, name: str, tmp_path: Path) -> None:
        events = [event(1, quantity=1), event(2, quantity=2)]
        found = rows_of(write(tmp_path / name, events))
        assert [row for _, row in found] == events
        assert [number for number, _ in found] == [1, 2]

    def test_gzip_is_told_by_its_bytes(self, tmp_path: Path) -> None:
        zipped = write(tmp_path / "a.jsonl.gz", [event(1)])
        assert rows_of(zipped.rename(tmp_path / "a.jsonl")) == [(1, event(1))]

    @pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
    def test_csv(self, name: str, tmp_path: Path) -> None:
        path = write(tmp_path / name, [{**event(1), "user_id": "007", "quantity": "2", "price": "", "note": "a,\nb"}])
        [(line, row)] = rows_of(path)
        assert line == 2
        assert row == {**event(1), "occurred_at": AT_MS + 1, "user_id": "007", "quantity": 2, "note": "a,\nb"}

    @pytest.mark.parametrize("note", ["x", '"a, b"'])
    def test_a_csv_row_that_is_no_utf8_is_bad_and_the_others_are_not(self, note: str, tmp_path: Path) -> None:
        lines = [f"view,{AT_MS},u{k},i{k},{note}".encode() for k in range(3)]
        lines[1] = lines[1].replace(b"u1", b"\xff\xfe")
        path = tmp_path / "a.csv"
        path.write_bytes(b"event_type,occurred_at,user_id,item_id,note\n" + b"\n".join(lines) + b"\n")
        found = rows_of(path)
        assert [number for number, _ in found] == [2, 3, 4]
        assert [isinstance(row, EventError) for _, row in found] == [False, True, False]

    def test_csv_line_numbers_count_lines_within_quotes(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv", [event(1, note="x\ny"), event(2, note="")])
        assert [line for line, _ in rows_of(path)] == [2, 4]

    def test_items_in_a_csv_are_json(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv", [{**event(1), "items": '[{"item_id": "a", "quantity": 2}]'}])
        assert rows_of(path)[0][1]["items"] == [{"item_id": "a", "quantity": 2}]

    def test_times_in_parquet(self, tmp_path: Path) -> None:
        at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        [(_, row)] = rows_of(write(tmp_path / "a.parquet", [event(1, occurred_at=at)]))
        assert row["occurred_at"] == int(at.timestamp() * 1000)

    def test_columns_of_other_names(self, tmp_path: Path) -> None:
        path = write(tmp_path / "log.csv", [{"who": "u", "what": "milk", "occurred_at": AT_MS}])
        [(_, row)] = rows_of(path, Reading({"user_id": "who", "item_id": "what"}, "purchase"))
        assert row == {
            "user_id": "u",
            "item_id": "milk",
            "occurred_at": AT_MS,
            "event_type": "purchase",
            "event_id": "log.csv:2",
        }

    def test_a_column_that_is_not_there(self, tmp_path: Path) -> None:
        path = write(tmp_path / "log.csv", [event(1)])
        with pytest.raises(ProduceError, match=r"no column 'who'\. It has: event_id, .*--map user_id=who"):
            rows_of(path, Reading({"user_id": "who"}))

    def test_empty_lines_are_no_rows(self, tmp_path: Path) -> None:
        path = tmp_path / "a.jsonl"
        path.write_text(f"\n{json.dumps(event(1))}\n  \n{json.dumps(event(2))}")
        assert [number for number, _ in rows_of(path)] == [2, 4]

    def test_share_done(self, tmp_path: Path) -> None:
        file = EventFile(write(tmp_path / "a.jsonl", [event(n) for n in range(1000)]))
        assert file.share_done == 0
        shares = [file.share_done for _ in file]
        assert shares == sorted(shares)
        assert shares[-1] == 1

    def test_no_such_file(self, tmp_path: Path) -> None:
        with pytest.raises(RefusedError, match=r"cannot read .*nothing\.jsonl.*Give a file"):
            EventFile(tmp_path / "nothing.jsonl")

    def test_unknown_kind(self, tmp_path: Path) -> None:
        (tmp_path / "a.xlsx").touch()
        with pytest.raises(RefusedError, match=r"cannot tell what .*a\.xlsx is.*\.parquet"):
            EventFile(tmp_path / "a.xlsx")

    @pytest.mark.parametrize("name", ["a.parquet", "a.jsonl.gz"])
    def test_a_file_that_is_not_what_its_name_says(self, name: str, tmp_path: Path) -> None:
        junk = b"\x1f\x8bjunk" if name.endswith(".gz") else b"a\n\xff\xfe\n"
        (tmp_path / name).write_bytes(junk)
        with pytest.raises(ProduceError, match=r"cannot read .*Give a whole"):
            rows_of(tmp_path / name)

    def test_a_gzip_cut_short(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.jsonl.gz", [event(n) for n in range(1000)])
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(ProduceError, match="cannot read"):
            rows_of(path)

    @pytest.mark.parametrize(
        "pack", [bz2.compress, lzma.compress, lambda data: pa.compress(data, "zstd", asbytes=True)]
    )
    def test_packed_otherwise(self, pack: Any, tmp_path: Path) -> None:
        lines = b"\n".join(json.dumps(event(n)).encode() for n in range(5000))
        (tmp_path / "a.jsonl").write_bytes(pack(lines))
        assert rows_of(tmp_path / "a.jsonl") == [(n + 1, event(n)) for n in range(5000)]

    def test_what_stands_before_the_break_is_read(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.jsonl.gz", [event(n, salt=n * 2_654_435_761 % 2**32) for n in range(6000)])
        path.write_bytes(path.read_bytes()[:-2000])
        found: list[int] = []
        with pytest.raises(ProduceError, match="cannot read"):
            found.extend(number for number, _ in EventFile(path))
        assert found == list(range(1, len(found) + 1))
        assert len(found) > 5000

    def test_standard_input_is_read_as_it_comes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        readable, writable = os.pipe()
        with open(readable, "rb") as stdin, open(writable, "wb", buffering=0) as out:
            monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=stdin))
            rows = iter(EventFile(Path("-")))
            out.write(b'{"a":1}\n{"a":2}\n{"a"')
            assert [next(rows), next(rows)] == [(1, b'{"a":1}'), (2, b'{"a":2}')]
            out.write(b":3}")
            out.close()
            assert list(rows) == [(3, b'{"a":3}')]

    def test_a_byte_order_mark_is_no_text(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_text(json.dumps(event(1)), encoding="utf-8-sig")
        assert rows_of(tmp_path / "a.jsonl") == [(1, event(1))]

    def test_json_lines_with_columns_are_a_table(self, tmp_path: Path) -> None:
        path = tmp_path / "a.jsonl"
        path.write_text('{"uid": 7, "sku": "x", "t": 1, "own": [1]}\nno json\n{"uid": "8", "t": 2.5}')
        reading = Reading({"user_id": "uid", "item_id": "sku", "occurred_at": "t"}, "view", time_unit="s")
        more = {"event_type": "view"}
        values = [(number, value) for number, value in EventFile(path, reading)]
        assert values[1] == (2, b"no json")
        assert [json.loads(value) for n, value in values if n != 2] == [  # type: ignore[arg-type]
            {"own": [1], "user_id": "7", "item_id": "x", "occurred_at": 1000, **more, "event_id": "a.jsonl:1"},
            {"user_id": "8", "occurred_at": 2500, **more, "event_id": "a.jsonl:3"},
        ]

    def test_a_csv_row_with_too_many_cells_is_bad_and_a_short_one_lacks_some(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("user_id,item_id,price\nu,a,1,2\nv,b\nw,c,3,\n")
        (_, bad), (_, short), (line, good) = rows_of(tmp_path / "a.csv")
        assert bad.reason == "wrong_cells"
        assert short == {"user_id": "v", "item_id": "b", "event_id": "a.csv:3"}
        assert (line, good["price"]) == (4, 3)

    def test_quotes_far_down_a_csv(self, tmp_path: Path) -> None:
        rows = [event(n, note="") for n in range(9000)]
        rows[6000]["note"] = 'a,\n"b'
        found = rows_of(write(tmp_path / "a.csv", rows))
        assert [row["event_id"] for _, row in found] == [row["event_id"] for row in rows]
        assert found[6000][1]["note"] == rows[6000]["note"]
        assert (found[5999][0], found[6000][0], found[6001][0]) == (6001, 6002, 6004)

    def test_parquet_cells(self, tmp_path: Path) -> None:
        at = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
        table = pa.table(
            {
                "user": pa.array([7, None]),
                "item_id": pa.array(["a", "b"]).dictionary_encode(),
                "when": pa.array([at, at], pa.timestamp("ns", "Europe/Berlin")),
                "price": [Decimal("9.50"), None],
                "day": [date(2026, 1, 2), None],
                "seen": pa.array([at, at], pa.timestamp("ns", "UTC")),
            }
        )
        pq.write_table(table, tmp_path / "a.parquet")
        (_, first), (_, second) = rows_of(
            tmp_path / "a.parquet", Reading({"user_id": "user", "occurred_at": "when"}, "view")
        )
        ms = int(at.timestamp() * 1000)
        assert (first["user_id"], first["item_id"], first["occurred_at"], first["price"]) == ("7", "a", ms, 9.5)
        assert (first["day"], first["seen"][:19]) == ("2026-01-02", "2026-01-02T03:04:05")
        assert "user_id" not in second
        assert second["event_id"] == "a.parquet:2"

    def test_of_a_table_only_mapped_columns_if_so_wanted(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.parquet", [event(1, name="Ann", own=1)])
        [(_, row)] = rows_of(path, Reading({"user_id": "name"}, "view", mapped_only=True))
        assert row == {"user_id": "Ann", "event_type": "view", "event_id": "a.parquet:1"}

    def test_types_constants_and_ids_under_other_names(self, tmp_path: Path) -> None:
        rows = [{"kind": "buy", "messageId": "m1", "tenant": ""}, {"kind": "", "messageId": "", "tenant": "b"}]
        path = write(tmp_path / "a.csv", rows)
        reading = Reading({"event_type": "kind"}, "view", types={"buy": "purchase"}, constants={"tenant": "a"})
        assert [row for _, row in rows_of(path, reading)] == [
            {"messageId": "m1", "tenant": "a", "event_type": "purchase", "event_id": "m1"},
            {"tenant": "b", "event_type": "view", "event_id": "a.csv:3"},
        ]

    @pytest.mark.parametrize(
        ("unit", "cell", "at_ms"),
        [("s", "1767323045", 1_767_323_045_000), ("s", "1767323045.5", 1_767_323_045_500), ("ms", "5", 5),
         ("us", "1767323045123999", 1_767_323_045_123), ("ns", "1767323045123999999", 1_767_323_045_123),
         ("s", "soon", "soon"), ("s", "nan", "nan")],
    )  # fmt: skip
    def test_units_of_time(self, unit: str, cell: str, at_ms: Any, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv", [{"user_id": "u", "occurred_at": cell}])
        assert rows_of(path, Reading(time_unit=unit))[0][1]["occurred_at"] == at_ms

    def test_sequences_and_lists(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("4 10 11\n\n5\n6 10\n")
        of_users = rows_of(tmp_path / "a.txt", Reading(kind="sequences"))
        good = [(n, r["user_id"], r["item_id"], r["event_id"]) for n, r in of_users if isinstance(r, dict)]
        assert good == [(1, "4", "10", "a.txt:1:1"), (1, "4", "11", "a.txt:1:2"), (4, "6", "10", "a.txt:4:1")]
        assert [number for number, row in of_users if isinstance(row, EventError)] == [3]
        times = [row["occurred_at"] for _, row in of_users if isinstance(row, dict)]
        assert times == [946_684_800_000, 946_684_801_000, 946_684_802_000]
        of_lines = rows_of(tmp_path / "a.txt", Reading(kind="lists"))
        assert [row["user_id"] for _, row in of_lines] == ["1", "1", "1", "3", "4", "4"]

    def test_a_path_that_tells_columns(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv", [{"user_id": "u", "item_id": "i"}])
        [(_, row)] = [(n, json.loads(v)) for n, v in EventFile(path, parts={"event_type": "view", "user_id": "x"})]  # type: ignore[arg-type]
        assert (row["event_type"], row["user_id"]) == ("view", "u")


class TestRecordMaker:
    def test_key_and_value(self) -> None:
        value = json.dumps({**event(1), "tenant": "shop", "own": 1}).encode()
        key, sent, found = RecordMaker(EventsSection()).record(value, AT_MS)
        assert (key, sent, found.occurred_at) == (b"shop\x1fu1", value, AT_MS + 1)

    def test_one_too_far_ahead_is_refused(self) -> None:
        value = json.dumps(event(1, occurred_at=AT_MS + 10**9)).encode()
        with pytest.raises(EventError, match="ahead of now"):
            RecordMaker(EventsSection()).record(value, AT_MS)

    def test_pseudonyms(self) -> None:
        names = Pseudonyms("k" * 16)
        key, sent, _ = RecordMaker(EventsSection(), names).record(json.dumps(event(1, own=1)).encode(), AT_MS)
        assert key.decode() == names.of("u1") == json.loads(sent)["user_id"]
        assert "own" not in json.loads(sent)
