import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.errors import DatasetError
from model.training.dataset import Dataset, LogReader, load_dataset
from model.training.details import ItemDetails
from model.training.loop import train
from model.training.settings import Protocol, TrainSettings
from model.training.shards import Shards, estimate_rows
from model.training.source import in_memory

SETTINGS = TrainSettings(dim=16, hidden=16, batch_events=128, epochs=3, warmup_steps=5, validation_share=0.1)


def write_log(path: Path, rows: int = 900, **more: object) -> Path:
    """Thirty users going through fifty items, rare ones among them, some events twice."""
    draw = np.random.default_rng(0)
    events = []
    for number in range(rows):
        user = int(draw.integers(0, 30))
        events.append(
            {
                "event_id": f"e{number - number % 50 if number % 50 == 1 else number}",
                "event_type": ("view", "purchase", "impression", "session_start")[int(draw.integers(0, 4))],
                "occurred_at": 1_767_225_600_000 + int(draw.integers(0, 10**9)),
                "user_id": f"u{user}",
                "item_id": f"i{(user + number // 30) % 50 if draw.random() < 0.9 else int(draw.integers(0, 400))}",
                "category": ("tea", "", "milk")[number % 3],
                **more,
            }
        )
        if number % 50 == 1:
            events[-1] = events[-2]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(events), path)
    else:
        path.write_text("".join(json.dumps(event) + "\n" for event in events))
    return path


def histories(data: Dataset) -> list[list[tuple[int, int, int]]]:
    """What each user did, in order, whatever the users' numbers."""
    return sorted(
        list(zip(*(column[data.user == user].tolist() for column in (data.time_ms, data.item, data.type)), strict=True))
        for user in np.unique(data.user)
    )


@pytest.mark.parametrize("name", ["log.jsonl", "log.parquet"])
@pytest.mark.parametrize("protocol", ["all", "leave-one-out", "temporal"])
def test_shards_together_are_the_log(tmp_path: Path, name: str, protocol: Protocol) -> None:
    log = write_log(tmp_path / name)
    settings = replace(SETTINGS, protocol=protocol)
    whole = in_memory(load_dataset(log, min_item_events=2), settings)
    with Shards(tmp_path / "shards", 4) as shards:
        shards.read_files([log])
        source = shards.source(settings, min_item_events=2)
        assert 1 < len(source.load) <= 4
        (part,) = whole.parts()
        parts = list(source.parts())
        assert source.catalog.item_ids == whole.catalog.item_ids
        assert source.catalog.item_categories == whole.catalog.item_categories
        for kind in ("learn", "final"):
            together = sorted(history for other in parts for history in histories(getattr(other, kind)))
            assert together == histories(getattr(part, kind))
        assert sum(len(other.validation) for other in parts) == len(part.validation)
        for key in ("events", "users", "items", "first_time_ms", "last_time_ms"):
            assert source.fingerprint[key] == whole.fingerprint[key]
    assert not (tmp_path / "shards").exists()


def test_the_test_begins_at_the_same_row_when_times_are_sampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.training.shards._SAMPLE", 40)
    log = write_log(tmp_path / "log.jsonl")
    settings = replace(SETTINGS, protocol="temporal")
    memory = in_memory(load_dataset(log, min_item_events=2), settings)
    (whole,) = memory.parts()
    with Shards(tmp_path / "shards", 4) as shards:
        shards.read_files([log])
        source = shards.source(settings, min_item_events=2)
        parts = list(source.parts())
    assert source.fingerprint["last_time_ms"] == memory.fingerprint["last_time_ms"]  # tells what it may be asked
    for kind in ("learn", "final"):
        together = sorted(history for part in parts for history in histories(getattr(part, kind)))
        assert together == histories(getattr(whole, kind))


def test_orders_without_times(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("".join(f"{user} {' '.join(str(user + k) for k in range(9))}\n" for user in range(20)))
    with Shards(tmp_path / "shards", 3) as shards:
        shards.read_files([log])
        source = shards.source(replace(SETTINGS, protocol="leave-one-out"))
        assert not source.catalog.has_time
        assert sum(len(part.validation) for part in source.parts()) == 20
        for part in source.parts():
            assert (np.diff(part.learn.item)[np.diff(part.learn.user) == 0] == 1).all()
        with pytest.raises(DatasetError, match="has no times"):
            shards.source(replace(SETTINGS, protocol="temporal"))


def test_the_same_shards_make_the_same_model(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl")
    made = []
    for _ in range(2):
        with Shards(tmp_path / "shards", 3) as shards:
            shards.read_files([log])
            made.append(train(shards.source(SETTINGS), SETTINGS))
    assert made[0].checksum == made[1].checksum
    assert made[0].data == made[1].data
    memory = train(load_dataset(log), SETTINGS)
    np.testing.assert_array_equal(memory.rules_to, made[0].rules_to)
    np.testing.assert_allclose(memory.popularity, made[0].popularity, rtol=1e-4)


def test_a_catalogue_is_told_from_disk_as_from_memory(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl")
    catalog = {"i1": ItemDetails("One", "odd", "numbers > odd", "acme", 2.5, "the first")}
    reader = LogReader()
    list(reader.read_files([log]))
    assert reader.describe(catalog) == 1
    memory = reader.dataset(min_item_events=2, session_gap_s=1800, source="log")
    with Shards(tmp_path / "shards", 4) as shards:
        shards.read_files([log])
        plain = shards.source(SETTINGS, min_item_events=2)
    with Shards(tmp_path / "shards", 4) as shards:
        shards.read_files([log])
        shards.reader.describe(catalog)
        source = shards.source(SETTINGS, min_item_events=2)
        learnt = [part.learn for part in source.parts()]
    assert source.fingerprint["sha256"] != plain.fingerprint["sha256"]
    assert all(data.catalog_digest() == memory.catalog_digest() for data in (source.catalog, *learnt))
    assert memory.listed[memory.item_ids.index("i1")] == catalog["i1"]


def test_left_overs_of_a_killed_run_are_emptied(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "000.rows").write_bytes(b"x" * 330)
    with Shards(tmp_path / "shards", 1) as shards:
        shards.read_files([write_log(tmp_path / "log.jsonl", 60)])
        assert len(shards.rows(0).user) < 60


def test_a_log_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text("\n")
    with Shards(tmp_path / "shards", 2) as shards:
        shards.read_files([tmp_path / "log.jsonl"])
        with pytest.raises(DatasetError, match="mine: no item has 1 or more"):
            shards.source(SETTINGS, name="mine")


def test_a_bad_row_is_named(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.parquet", 100, event_type="stare")
    with (
        Shards(tmp_path / "shards", 2) as shards,
        pytest.raises(DatasetError, match=r"log.parquet, row 1, column event_type: 'stare' is unknown"),
    ):
        shards.read_files([log])


def test_rows_are_estimated(tmp_path: Path) -> None:
    assert estimate_rows([write_log(tmp_path / "a.parquet", 500)]) == 500
    assert 500 < estimate_rows([write_log(tmp_path / "a.jsonl", 500)]) < 1000
