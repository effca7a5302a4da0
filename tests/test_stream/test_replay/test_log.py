"""A log of several files: order, bounds, and what is wrong with it, each counted and said with file and row."""

import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stream.brokers import EmbeddedBroker
from stream.errors import RefusedError, ReplayError
from stream.event_file import BadRow, EventFile
from stream.produce import produce_file
from stream.pseudonym import Pseudonyms
from stream.reading import Start, read
from stream.replay.log import Log, LogSpec, open_log
from stream.replay.rows import Row
from stream.settings import Settings, load_settings
from tests.test_stream.event_files import AT_MS, event, write

SETTINGS = load_settings(None, {}, {})
NOW_MS = AT_MS + 10**9
DATA = Path(__file__).resolve().parents[4] / "shared" / "data"


def opened(*sources: Path, bad_rows: list[BadRow] | None = None, **more: Any) -> Log:
    on_bad = (lambda _: None) if bad_rows is None else bad_rows.append
    pseudonyms = more.pop("pseudonyms", None)
    spec = LogSpec(tuple(map(str, sources)), **more)
    return open_log(spec, SETTINGS, on_bad, now_ms=NOW_MS, pseudonyms=pseudonyms)


def rows_of(*sources: Path, **more: Any) -> list[Row]:
    return [row for block in opened(*sources, **more).blocks() for row in block]


def numbers(rows: list[Row]) -> list[int]:
    """n of each event(n)."""
    return [row.time_ms - AT_MS for row in rows]


class TestRows:
    @pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet", "a.jsonl.gz"])
    def test_they_are_what_producing_sends(self, name: str, tmp_path: Path, embedded: EmbeddedBroker) -> None:
        events = [event(n, event_id="" if n % 3 else f"e{n}", own="x", quantity=n % 4) for n in range(50)]
        path = write(tmp_path / name, [*events, event(50, event_type="dance"), event(51, occurred_at=NOW_MS * 2)])
        settings = load_settings(None, {"kafka.bootstrap_servers": embedded.bootstrap_servers}, {})
        embedded.create_topic(settings.topics.events, 1)
        produce_file(settings, EventFile(path), on_bad=lambda _: None)
        sent = [(m.key(), m.value()) for m in read(settings, settings.topics.events, Start(), follow=False)]
        assert [(row.key, row.value) for row in rows_of(path)] == sent
        assert len(sent) == 50

    def test_all_of_a_row(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv", [event(1, tenant="shop")])
        [row] = rows_of(path)
        assert row == Row(row.value, b"shop\x1fu1", AT_MS + 1, 2, 0)

    def test_under_other_names(self, tmp_path: Path) -> None:
        line = {"event": "Product Viewed", "timestamp": "2026-01-02T03:04:05Z", "userId": 7, "productId": "x"}
        (tmp_path / "a.jsonl").write_text(json.dumps(line))
        [row] = rows_of(tmp_path / "a.jsonl")
        assert (row.key, row.time_ms) == (b"7", 1_767_323_045_000)

    def test_pseudonyms(self, tmp_path: Path) -> None:
        names = Pseudonyms("k" * 16)
        path = write(tmp_path / "a.jsonl", [event(n) for n in range(10)])
        found = rows_of(path, pseudonyms=names, users=frozenset({"u2"}))
        assert [row.key.decode() for row in found] == [names.of("u2")] * 2


class TestOrderAndBounds:
    def test_files_one_after_the_other(self, tmp_path: Path) -> None:
        late, early = write(tmp_path / "a.jsonl", [event(5), event(7)]), write(tmp_path / "b.csv", [event(4), event(6)])
        log = opened(late, early)
        rows = [row for block in log.blocks() for row in block]
        assert numbers(rows) == [5, 7, 4, 6]
        assert [log.files[row.file] for row in rows] == ["a.jsonl", "a.jsonl", "b.csv", "b.csv"]
        assert log.counts["unsorted"] == 0  # each file is in order

    def test_merged_by_time(self, tmp_path: Path) -> None:
        for k in range(3):
            write(tmp_path / f"{k}.jsonl", [event(n) for n in range(k, 10_000, 3)])
        log = opened(tmp_path, order="time")
        rows = [row for block in log.blocks() for row in block]
        assert numbers(rows) == list(range(10_000))
        assert {log.files[row.file] for row in rows[:3]} == {"0.jsonl", "1.jsonl", "2.jsonl"}

    def test_sorted_by_time(self, tmp_path: Path) -> None:
        """Files by user, as most published logs are."""
        for k in range(2):
            write(tmp_path / f"{k}.jsonl", [event(n) for u in range(5) for n in range(u, 3000, 5) if n % 2 == k])
        assert numbers(rows_of(tmp_path, order="sorted")) == list(range(3000))

    def test_topics_are_not_sorted(self, tmp_path: Path) -> None:
        with pytest.raises(RefusedError, match="topic:x is not sorted"):
            open_log(LogSpec(("topic:x",), order="sorted"), SETTINGS)

    @pytest.mark.parametrize("order", ["log", "time", "sorted"])
    def test_bounds(self, order: Any, tmp_path: Path) -> None:
        path = write(tmp_path / "a.jsonl", [event(n) for n in range(20)])
        log = opened(path, order=order, start=AT_MS + 3, end=AT_MS + 17, users=frozenset({"u1", "u3"}), limit=4)
        assert numbers([row for block in log.blocks() for row in block]) == [3, 6, 8, 11]
        assert (log.counts["read"], log.counts["given"], log.counts["outside"]) == (20, 4, 14)

    def test_only_what_was_recent_when_it_began(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.jsonl", [event(n) for n in range(20)])
        assert numbers(rows_of(path, recent_ms=NOW_MS - AT_MS - 17)) == [17, 18, 19]

    def test_users_of_tenants(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.jsonl", [event(1, tenant="a"), event(6, tenant="b"), event(11), event(2)])
        assert numbers(rows_of(path, users=frozenset({"u1"}))) == [1, 6, 11]
        assert numbers(rows_of(path, users=frozenset({"b\x1fu1"}))) == [6]

    def test_a_file_that_is_gone_when_it_was_read(self, tmp_path: Path) -> None:
        for name in ("a.jsonl", "b.jsonl"):
            write(tmp_path / name, [event(n, salt=name) for n in range(9)])
        log = opened(tmp_path)
        blocks = log.blocks()
        next(blocks)
        next(blocks)
        (tmp_path / "a.jsonl").unlink()
        assert 0.5 < log.share_done <= 1.0

    def test_share_done(self, tmp_path: Path) -> None:
        for name in ("a.jsonl", "b.parquet", "c.csv.gz"):
            write(tmp_path / name, [event(n, salt=str(n) * 5) for n in range(9000)])
        log = opened(tmp_path)
        shares = [log.share_done for _ in log.blocks()]
        assert shares == sorted(shares)
        assert 0 < shares[0] < 0.5
        assert log.share_done == 1


class TestWhatIsWrong:
    def test_bad_rows(self, tmp_path: Path) -> None:
        lines = [event(1), event(2, event_type="dance"), event(3, item_id=""), event(4, occurred_at=10**13), event(5)]
        path = tmp_path / "a.jsonl"
        path.write_text("\n".join([*map(json.dumps, lines), "{"]))
        bad: list[BadRow] = []
        log = opened(path, bad_rows=bad)
        assert numbers([row for block in log.blocks() for row in block]) == [1, 5]
        reasons = {"unknown_event_type": 2, "no_item": 3, "future_time": 4, "not_json": 6}
        assert [row.row for row in bad] == list(reasons.values())
        assert {name: n for name, n in log.counts.items() if name.startswith("bad.")} == {
            f"bad.{reason}": 1 for reason in reasons
        }
        assert log.first["bad.no_item"][0].startswith("a.jsonl:3: neither item_id nor items")
        with pytest.raises(ReplayError, match=r"^a\.jsonl:2: event_type is none of .*--bad skip"):
            rows_of(path, bad="stop")

    def test_a_gzip_cut_short(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.jsonl.gz", [event(n, salt=n * 2_654_435_761 % 2**32) for n in range(9000)])
        path.write_bytes(path.read_bytes()[:-2000])
        write(tmp_path / "b.jsonl", [event(10_000)])
        bad: list[BadRow] = []
        log = opened(tmp_path, bad_rows=bad)
        found = numbers([row for block in log.blocks() for row in block])
        assert found == [*range(len(found) - 1), 10_000]
        assert len(found) > 8000
        assert str(bad[0]).startswith(f"a.jsonl.gz: left off after row {len(found) - 1}: cannot read ")
        assert log.counts["bad.rest_of_file"] == 1
        with pytest.raises(ReplayError, match=r"a\.jsonl\.gz: left off after row"):
            rows_of(tmp_path, bad="stop")

    @pytest.mark.parametrize("kind", ["csv", "parquet"])
    def test_a_schema_that_changes_in_the_middle_of_a_folder(self, kind: str, tmp_path: Path) -> None:
        for n in (1, 3):
            write(tmp_path / f"{n}.{kind}", [event(n)])
        other = {name.replace("item_id", "sku"): value for name, value in event(2).items()}
        write(tmp_path / f"2.{kind}", [other])
        bad: list[BadRow] = []
        assert numbers(rows_of(tmp_path, bad_rows=bad, columns={"item_id": "item_id"})) == [1, 3]
        problem = rf"2\.{kind}: .*2\.{kind} has no column 'item_id'\. It has: .*sku.*"
        [found] = bad
        assert found.row == 0
        with pytest.raises(ReplayError, match=problem):
            rows_of(tmp_path, bad="stop", columns={"item_id": "item_id"})

    def test_a_missing_column(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv", [{"who": "u", "item_id": "x", "event_type": "view", "time": AT_MS}])
        with pytest.raises(RefusedError, match=r"a\.csv has no column for a user\. It has: who, .*--map user_id=COL"):
            opened(path)
        with pytest.raises(RefusedError, match=r"a\.csv has no column 'whom'\. It has: who, item_id"):
            opened(path, columns={"user_id": "whom"})
        assert [row.key for row in rows_of(path, columns={"user_id": "who"})] == [b"u"]

    def test_other_files_of_a_folder_are_left_out(self, tmp_path: Path) -> None:
        write(tmp_path / "a-products.csv", [{"sku": "x", "name": "Mug"}])
        write(tmp_path / "b.csv", [event(1)])
        log = opened(tmp_path)
        assert numbers([row for block in log.blocks() for row in block]) == [1]
        assert log.counts["bad.file"] == 1
        with pytest.raises(RefusedError, match=r"a-products\.csv has no column"):
            opened(tmp_path, bad="stop")

    def test_the_same_file_twice(self, tmp_path: Path) -> None:
        (tmp_path / "log").mkdir()
        write(tmp_path / "log/a.jsonl", [event(1)])
        (tmp_path / "log/copy.jsonl").write_bytes((tmp_path / "log/a.jsonl").read_bytes())
        log = opened(tmp_path / "log", tmp_path / "log/a.jsonl")
        assert len([row for block in log.blocks() for row in block]) == 1
        assert log.counts["duplicate_files"] == 2
        assert "copy.jsonl: is the same as" in log.first["duplicate_files"][0]

    def test_what_a_path_tells(self, tmp_path: Path) -> None:
        folder = tmp_path / "day=2026-01-02" / "event_type=add_to_cart"
        folder.mkdir(parents=True)
        rest = {name: value for name, value in event(1).items() if name != "event_type"}
        write(folder / "a.parquet", [rest])
        [row] = rows_of(tmp_path)
        assert json.loads(row.value or b"") == {**rest, "event_type": "add_to_cart"}

    def test_files_of_one_name_have_ids_of_their_own(self, tmp_path: Path) -> None:
        for day in (1, 2):
            (tmp_path / f"day={day}").mkdir()
            write(tmp_path / f"day={day}/a.csv", [event(day, event_id="")])
        of_folder = [json.loads(row.value or b"")["event_id"] for row in rows_of(tmp_path)]
        assert of_folder == ["day=1/a.csv:2", "day=2/a.csv:2"]
        named = [json.loads(row.value or b"")["event_id"] for row in rows_of(*sorted(tmp_path.glob("*/a.csv")))]
        assert named == ["a.csv:2", f"{tmp_path}/day=2/a.csv:2"]

    def test_rows_out_of_order(self, tmp_path: Path) -> None:
        log = opened(write(tmp_path / "a.jsonl", [event(5), event(9), event(2), event(3), event(1)]))
        assert numbers([row for block in log.blocks() for row in block]) == [5, 9, 2, 3, 1]
        assert (log.counts["unsorted"], log.largest_step_back_ms) == (2, 7)
        assert log.first["unsorted"][0].startswith("a.jsonl:3: 2026-01-02T03:04:05.125Z is 0.007 s before")

    @pytest.mark.parametrize("kind", ["csv", "jsonl"])
    @pytest.mark.parametrize("field", ["occurred_at", "timestamp"])
    def test_times_of_mixed_zones(self, kind: str, field: str, tmp_path: Path) -> None:
        def rows(*times: str) -> list[dict[str, Any]]:
            rest = {name: value for name, value in event(1).items() if name != "occurred_at"}
            return [{**rest, field: at} for at in times]

        mixed = ["2026-01-02T03:04:05Z", "2026-01-02 03:04:05.5+01:00", "2026-01-02T03:04:05.25"]
        write(tmp_path / f"mixed.{kind}", rows(*mixed))
        write(tmp_path / f"zoned.{kind}", rows(*mixed[:2]))
        write(tmp_path / f"unzoned.{kind}", rows(mixed[2], "2026-01-02T03:04"))
        log = opened(tmp_path)
        assert len([row for block in log.blocks() for row in block]) == 7
        assert log.counts["mixed_zones"] == 1
        first = 2 if kind == "csv" else 1
        assert log.first["mixed_zones"] == [
            f"mixed.{kind}: the time of row {first} names a zone; that of row {first + 2} does not, and is read as UTC"
        ]

    @pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
    def test_an_empty_file_has_no_rows(self, name: str, tmp_path: Path) -> None:
        if name == "a.parquet":
            pq.write_table(pa.table({key: pa.array([], pa.string()) for key in event(1)}), tmp_path / name)
        else:
            (tmp_path / name).touch()
        log = opened(tmp_path)
        assert list(log.blocks()) == []
        assert log.counts["read"] == 0

    def test_no_parquet(self, tmp_path: Path) -> None:
        (tmp_path / "a.parquet").write_bytes(b"PAR1 and then nothing")
        with pytest.raises(RefusedError, match=r"cannot read .*a\.parquet.*Give a whole file"):
            opened(tmp_path)

    def test_an_unknown_kind(self, tmp_path: Path) -> None:
        (tmp_path / "a.xlsx").write_bytes(b"PK\x03\x04")
        with pytest.raises(RefusedError, match=r"cannot tell what .*a\.xlsx is.*--preset"):
            opened(tmp_path / "a.xlsx")


class TestTopics:
    def test_with_files(self, embedded: EmbeddedBroker, tmp_path: Path) -> None:
        settings = load_settings(None, {"kafka.bootstrap_servers": embedded.bootstrap_servers}, {})
        embedded.create_topic("old", 1)
        into = settings.model_copy(update={"topics": settings.topics.model_copy(update={"events": "old"})})
        produce_file(into, EventFile(write(tmp_path / "t.jsonl", [event(1), event(4), event(3)])), on_bad=print)
        file = write(tmp_path / "a.jsonl", [event(2), event(5)])
        log = self.log((str(file), "topic:old"), settings)
        rows = [row for block in log.blocks() for row in block]
        assert numbers(rows) == [1, 2, 4, 3, 5]
        assert [(log.files[row.file], row.offset) for row in rows[:3]] == [("old", 0), ("a.jsonl", -1), ("old", 1)]
        assert log.first["unsorted"] == ["old[0]:2: 2026-01-02T03:04:05.126Z is 0.001 s before the row before it"]
        assert log.counts["read"] == 5

    def test_bounds_are_offsets(self, embedded: EmbeddedBroker, tmp_path: Path) -> None:
        settings = load_settings(None, {"kafka.bootstrap_servers": embedded.bootstrap_servers}, {})
        embedded.create_topic(settings.topics.events, 1)
        produce_file(settings, EventFile(write(tmp_path / "t.jsonl", [event(n) for n in range(9)])), on_bad=print)
        log = self.log((f"topic:{settings.topics.events}",), settings, first="offset=2", last="offset=5")
        assert [row.offset for block in log.blocks({0: 3}) for row in block] == [3, 4]

    def test_recent_records(self, embedded: EmbeddedBroker, tmp_path: Path) -> None:
        """By when they came, which is now, and not by what they say."""
        settings = load_settings(None, {"kafka.bootstrap_servers": embedded.bootstrap_servers}, {})
        embedded.create_topic(settings.topics.events, 1)
        produce_file(settings, EventFile(write(tmp_path / "t.jsonl", [event(n) for n in range(9)])), on_bad=print)
        spec = LogSpec((f"topic:{settings.topics.events}",), recent_ms=600_000)
        for now_ms, count in ((time.time() * 1000, 9), (time.time() * 1000 + 1_200_000, 0)):
            log = open_log(spec, settings, now_ms=int(now_ms))
            assert sum(len(block) for block in log.blocks()) == count

    def log(self, sources: tuple[str, ...], settings: Settings, **more: Any) -> Log:
        return open_log(LogSpec(sources, order="time", **more), settings, now_ms=NOW_MS)


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
@pytest.mark.parametrize(
    ("name", "rows", "users"),
    [("ml-1m", 999_611, 6040), ("ml-100k", 100_000, 943), ("amazon-beauty", 198_502, 22_363), ("taobao", 100_001, 983)],
)
def test_published_data_in_its_own_layout(name: str, rows: int, users: int) -> None:
    log = open_log(LogSpec((str(DATA / name),), bad="stop"), SETTINGS)
    found = {row.key for block in log.blocks() for row in block}
    assert (log.counts["given"], len(found)) == (rows, users)
