"""Events from files: what each kind of file gives, what is wrong with a row, and where the events land."""

import json
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stream.brokers import EmbeddedBroker
from stream.engine.partitioner import partition_of
from stream.errors import ContractError, ProduceError, RefusedError, TopicError
from stream.event_file import BadRow, EventFile
from stream.event_table import Reading
from stream.produce import Produced, item_record, produce_file, produce_items
from stream.reading import Start, read
from stream.settings import Settings, load_settings
from tests.test_stream.event_files import event, write


class TestProduceFile:
    @pytest.fixture
    def settings(self, embedded: EmbeddedBroker) -> Settings:
        settings = load_settings(None, {"kafka.bootstrap_servers": embedded.bootstrap_servers}, {})
        embedded.create_topic(settings.topics.events, 6)
        return settings

    def produce(self, settings: Settings, path: Path, **more: Any) -> tuple[Produced, list[str]]:
        bad: list[BadRow] = []
        produced = produce_file(settings, EventFile(path), on_bad=bad.append, **more)
        return produced, [str(row) for row in bad]

    def test_events_land_by_user_where_java_would_put_them(self, settings: Settings, tmp_path: Path) -> None:
        events = [event(n) for n in range(50)]
        produced, bad = self.produce(settings, write(tmp_path / "a.jsonl", events))
        assert (produced.sent, produced.bad, bad) == (50, 0, [])
        found = list(read(settings, settings.topics.events, Start(), follow=False))
        assert sorted(json.loads(m.value() or b"")["event_id"] for m in found) == sorted(e["event_id"] for e in events)
        for message in found:
            key = message.key()
            assert isinstance(key, bytes)
            assert key.decode() == json.loads(message.value() or b"")["user_id"]
            assert message.partition() == partition_of(key, 6)

    def test_a_json_line_goes_out_as_it_is(self, settings: Settings, tmp_path: Path) -> None:
        line = json.dumps({**event(1), "own_field": {"b": 1}}, indent=None, separators=(" , ", " : "))
        (tmp_path / "a.jsonl").write_text(line)
        self.produce(settings, tmp_path / "a.jsonl")
        [message] = read(settings, settings.topics.events, Start(), follow=False)
        assert message.value() == line.encode()

    def test_bad_rows_are_told_with_file_and_row(self, settings: Settings, tmp_path: Path) -> None:
        path = tmp_path / "a.jsonl"
        rows = [json.dumps(event(1)), "{", json.dumps(event(2, event_type="dance")), json.dumps(event(3))]
        path.write_text("\n".join(rows))
        produced, bad = self.produce(settings, path)
        assert (produced.sent, produced.bad) == (2, 2)
        assert bad[0].startswith("a.jsonl:2: ")
        assert bad[0].endswith("(not_json)")
        assert bad[1].startswith("a.jsonl:3: event_type is none of")

    def test_limit_counts_rows(self, settings: Settings, tmp_path: Path) -> None:
        path = write(tmp_path / "a.jsonl", [event(n) for n in range(50)])
        assert self.produce(settings, path, limit=7)[0].sent == 7

    def test_rate(self, settings: Settings, tmp_path: Path) -> None:
        path = write(tmp_path / "a.jsonl", [event(n) for n in range(20)])
        told: list[int] = []
        began = time.monotonic()
        self.produce(settings, path, rate_per_s=50, on_sent=told.append)
        assert time.monotonic() - began >= 0.4
        assert told[-1] == 20

    def test_without_the_topic(self, embedded: EmbeddedBroker, tmp_path: Path) -> None:
        settings = load_settings(None, {"kafka.bootstrap_servers": embedded.bootstrap_servers}, {})
        with pytest.raises(TopicError, match="driftline topics create"):
            self.produce(settings, write(tmp_path / "a.jsonl", [event(1)]))

    def test_what_the_broker_does_not_take_is_an_error(
        self, settings: Settings, embedded: EmbeddedBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("stream.produce._FLUSH_TIMEOUT_S", 0.5)
        path = tmp_path / "a.jsonl"
        path.write_text("\n".join(["this ends the broker", *(json.dumps(event(n)) for n in range(5))]))
        with pytest.raises(ProduceError, match=r"did not take 5 of 5 events: no acknowledgement.*counted once"):
            produce_file(settings, EventFile(path), on_bad=lambda _: embedded.stop())


MUG = {"item_id": "007", "name": "Mug", "category": ["Kitchen", "Cups"], "price": 9.5, "available": False}


class TestItems:
    def rows(self, path: Path, columns: dict[str, str] | None = None) -> list[Any]:
        return [json.loads(value) for _, value in EventFile(path, Reading(columns or {}, of_items=True))]  # type: ignore[arg-type]

    @pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
    def test_kinds(self, name: str, tmp_path: Path) -> None:
        assert self.rows(write(tmp_path / name, [MUG])) == [MUG]

    def test_a_table_of_other_names(self, tmp_path: Path) -> None:
        row = {"sku": "007", "name": "1984", "category": "Kitchen > Cups", "cost": "9.5", "available": "no"}
        path = write(tmp_path / "a.csv", [{**row, "deleted": "", "properties": '{"colour": "red"}'}])
        assert self.rows(path, {"item_id": "sku", "price": "cost"}) == [
            {**MUG, "name": "1984", "properties": {"colour": "red"}}
        ]

    @pytest.mark.parametrize(
        ("cell", "path"),
        [("Cups", "Cups"), ('["A", "B"]', ["A", "B"]), ("[x", "[x"), ("A>B", "A>B"), (" A  > B > ", ["A", "B"])],
    )
    def test_categories_in_a_cell(self, cell: str, path: Any, tmp_path: Path) -> None:
        assert self.rows(write(tmp_path / "a.csv", [{"item_id": "i", "category": cell}]))[0]["category"] == path

    def test_parquet_has_types_of_its_own(self, tmp_path: Path) -> None:

        table = pa.table({"item_id": ["i"], "price": [Decimal("12.50")], "available": [0], "deleted": [0]})
        pq.write_table(table, tmp_path / "a.parquet")
        (row,) = self.rows(tmp_path / "a.parquet")
        assert (row["price"], row["available"], row["deleted"]) == (12.5, False, False)

    def test_records(self) -> None:
        assert item_record(b'{"item_id": 7, "own": 1, "expires_at": "2026-01-02T03:04:05Z"}') == (
            b"7",
            b'{"item_id":"7","expires_at":1767323045000}',
        )
        assert item_record(b'{"item_id": "i", "deleted": false}') == (b"i", b'{"item_id":"i"}')
        # Of what is deleted nothing else matters.
        assert item_record(b'{"item_id": "i", "price": "much", "deleted": true}') == (b"i", None)

    @pytest.mark.parametrize(
        "row",
        [
            "x",
            "[]",
            "{}",
            '{"deleted": true}',
            '{"item_id": "i", "deleted": "perhaps"}',
            '{"item_id": "i", "price": "much"}',
        ],
    )
    def test_no_items(self, row: str) -> None:
        with pytest.raises(ContractError) as raised:
            item_record(row.encode())
        assert "much" not in str(raised.value)

    def test_they_land_on_the_items_topic_by_id(self, embedded: EmbeddedBroker, tmp_path: Path) -> None:
        settings = load_settings(None, {"kafka.bootstrap_servers": embedded.bootstrap_servers}, {})
        embedded.create_topic(settings.topics.items, 4)
        rows = [{"item_id": f"i{n}", "deleted": n == 3} for n in range(20)]
        path = write(tmp_path / "a.jsonl", [*rows, {"item_id": ""}])
        bad: list[BadRow] = []
        told: list[int] = []
        file = EventFile(path, Reading(of_items=True))
        produced = produce_items(settings, file, on_bad=bad.append, on_sent=told.append)
        assert (produced.sent, produced.bad, told[-1]) == (20, 1, 20)
        assert str(bad[0]).startswith("a.jsonl:21: the value is no item")
        found = {m.key(): m.value() for m in read(settings, settings.topics.items, Start(), follow=False)}
        assert found == {f"i{n}".encode(): None if n == 3 else f'{{"item_id":"i{n}"}}'.encode() for n in range(20)}

    def test_without_the_topic_or_the_file(self, embedded: EmbeddedBroker, tmp_path: Path) -> None:
        settings = load_settings(None, {"kafka.bootstrap_servers": embedded.bootstrap_servers}, {})
        with pytest.raises(RefusedError, match="Give a file of items"):
            EventFile(tmp_path / "none.csv", Reading(of_items=True))
        file = EventFile(write(tmp_path / "a.jsonl", [MUG]), Reading(of_items=True))
        with pytest.raises(TopicError, match="driftline topics create"):
            produce_items(settings, file, on_bad=lambda _: None)
