"""The catalogue that a training takes, from files and from the embedded broker."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from confluent_kafka import Producer

from model.errors import DatasetError
from model.training.details import TEXT_CHARACTERS, ItemDetails
from stream.cli.train_items import item_file, items_of_file, items_of_topic
from stream.errors import RefusedError
from stream.settings import Settings

ITEMS: list[dict[str, Any]] = [
    {"item_id": "a", "name": "Old"},
    {"item_id": "b", "brand": "solo"},
    {"item_id": "a", "name": "Mug", "category": "Kitchen > Cups", "brand": "acme", "price": 9.5, "text": "Blue, 0.3 l"},
    {"item_id": "never", "name": "Never taken"},
]
MUG = ItemDetails("Mug", "Cups", "Kitchen > Cups", "acme", 9.5, "Blue, 0.3 l")


def write(path: Path, items: list[dict[str, Any]]) -> Path:
    names = list(dict.fromkeys(name for item in items for name in item))
    if path.suffix == ".csv":
        cells = [[str(item.get(name, "")) for name in names] for item in items]
        path.write_text("\n".join(",".join(f'"{cell}"' for cell in row) for row in [names, *cells]))
    elif path.suffix == ".parquet":
        pq.write_table(pa.table({name: [item.get(name) for item in items] for name in names}), path)
    else:
        split = [item | {"category": item["category"].split(" > ")} if "category" in item else item for item in items]
        path.write_text("\n".join(map(json.dumps, split)))
    return path


def of_file(path: Path, level: int = 0) -> dict[str, ItemDetails]:
    return items_of_file(item_file(path), {"a", "b"}, level)


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_the_last_row_of_a_wanted_item_counts(tmp_path: Path, ending: str) -> None:
    assert of_file(write(tmp_path / f"items.{ending}", ITEMS)) == {"a": MUG, "b": ItemDetails(brand="solo")}


@pytest.mark.parametrize(("level", "category"), [(0, "Cups"), (1, "Kitchen"), (2, "Cups"), (9, "Cups")])
def test_the_level_that_is_the_category(tmp_path: Path, level: int, category: str) -> None:
    assert of_file(write(tmp_path / "items.jsonl", ITEMS), level)["a"].category == category


def test_an_item_that_is_deleted_and_a_text_that_is_long(tmp_path: Path) -> None:
    items = [*ITEMS, {"item_id": "a", "deleted": True}, {"item_id": "b", "text": "x" * 3000}]
    assert of_file(write(tmp_path / "items.jsonl", items)) == {"b": ItemDetails(text="x" * TEXT_CHARACTERS)}


@pytest.mark.parametrize(
    ("ending", "change", "told"),
    [
        ("jsonl", {"price": "dear"}, r"items\.jsonl, row 3: .*Expected `float \| null`, got `str` - at `\$\.price`"),
        ("csv", {"price": "dear"}, r"items\.csv, row 4: .*\$\.price"),
        ("parquet", {"item_id": None}, r"items\.parquet, row 3: .*item_id"),
    ],
)
def test_a_row_that_is_no_item_is_named(tmp_path: Path, ending: str, change: dict[str, Any], told: str) -> None:
    items = [*ITEMS[:2], ITEMS[2] | change]
    with pytest.raises(DatasetError, match=told):
        of_file(write(tmp_path / f"items.{ending}", items))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "items.parquet").write_text("no table")
    with pytest.raises(DatasetError, match=r"items\.parquet.*Give a whole parquet file"):
        of_file(tmp_path / "items.parquet")
    with pytest.raises(RefusedError, match=r"none\.csv"):
        item_file(tmp_path / "none.csv")


def test_the_topic_as_it_is_now(settings: Settings) -> None:
    producer = Producer(settings.client_properties())
    mug = json.dumps(ITEMS[2] | {"category": ["Kitchen", "Cups"]})
    records = [("a", '{"item_id": "a"}'), ("a", mug), ("b", '{"item_id": "b", "name": "B"}'), ("b", None)]
    for key, value in [*records, ("b", "nonsense"), ("b", '{"item_id": "a"}'), ("never", '{"item_id": "never"}')]:
        producer.produce(settings.topics.items, value, key=key, partition=0)
    assert producer.flush(10) == 0
    assert items_of_topic(settings, settings.topics.items, {"a", "b"}) == ({"a": MUG}, 2)


def test_trains_with_a_topic_of_items(driftline, there: tuple[str, str], settings: Settings, tmp_path: Path) -> None:
    producer = Producer(settings.client_properties())
    producer.produce(settings.topics.items, '{"item_id": "1", "name": "One"}', key="1")
    assert producer.flush(10) == 0
    log = tmp_path / "log.txt"
    log.write_text("".join(f"{user} {' '.join(str((user + k) % 9) for k in range(9))}\n" for user in range(30)))
    flags = ("--items-topic", settings.topics.items, "--out", str(tmp_path / "model"), "--epochs", "1")
    done = driftline("train", *there, str(log), *flags)
    assert done.code == 0, done.err
    assert f"{settings.topics.items} tells of 1 of the log's 9 items." in done.err
