"""Each layout is told by its content, and its rows become the events they should."""

import gzip
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stream.errors import RefusedError
from stream.replay.files import find_files
from stream.replay.log import LogSpec, find_layout, open_log
from stream.replay.presets import PRESETS
from stream.settings import load_settings

SETTINGS = load_settings(None, {}, {})

# name of the file, content, preset, the first event but for its id
SAMPLES: list[tuple[str, str, str, dict[str, Any]]] = [
    (
        "ratings.csv",
        "userId,movieId,rating,timestamp\n1,307,3.5,1256677221\n",
        "movielens",
        {"user_id": "1", "item_id": "307", "value": 3.5, "occurred_at": 1256677221000, "event_type": "rating"},
    ),
    (
        "ratings.dat",
        "1::1193::5::978300760\n",
        "movielens",
        {"user_id": "1", "item_id": "1193", "value": 5, "occurred_at": 978300760000, "event_type": "rating"},
    ),
    (
        "u.data",
        "196\t242\t3\t881250949\n",
        "movielens",
        {"user_id": "196", "item_id": "242", "value": 3, "occurred_at": 881250949000, "event_type": "rating"},
    ),
    (
        "b.inter",
        "item_id:token\tuser_id:token\ttimestamp:float\nx\tu\t881250949.5\n",
        "recbole",
        {"user_id": "u", "item_id": "x", "occurred_at": 881250949500, "event_type": "view"},
    ),
    (
        "UserBehavior.csv",
        "1,2268318,2520377,cart,1511544070\n",
        "taobao",
        {
            "user_id": "1",
            "item_id": "2268318",
            "category": "2520377",
            "event_type": "add_to_cart",
            "occurred_at": 1511544070000,
        },
    ),
    (
        "beauty.txt",
        "1 10 11\n2 10 12\n",
        "sequences",
        {"user_id": "1", "item_id": "10", "occurred_at": 946684800000, "event_type": "view"},
    ),
    (
        "ml.txt",
        "10 11 12\n10 12 13\n",
        "lists",
        {"user_id": "1", "item_id": "10", "occurred_at": 946684800000, "event_type": "view"},
    ),
    (
        "events.csv",
        "timestamp,visitorid,event,itemid,transactionid\n1433221332117,257597,transaction,355908,\n",
        "retailrocket",
        {"user_id": "257597", "item_id": "355908", "event_type": "purchase", "occurred_at": 1433221332117},
    ),
    (
        "yoochoose-clicks.dat",
        "1,2014-04-07T10:51:09.277Z,214536502,0\n",
        "yoochoose-clicks",
        {
            "user_id": "1",
            "session_id": "1",
            "item_id": "214536502",
            "occurred_at": "2014-04-07T10:51:09.277Z",
            "category": "0",
            "event_type": "click",
        },
    ),
    (
        "yoochoose-buys.dat",
        "420374,2014-04-06T18:44:58.314Z,214537888,12462,1\n",
        "yoochoose-buys",
        {
            "user_id": "420374",
            "session_id": "420374",
            "item_id": "214537888",
            "occurred_at": "2014-04-06T18:44:58.314Z",
            "price": 12462,
            "quantity": 1,
            "event_type": "purchase",
        },
    ),
    (
        "reviews.json",
        '{"reviewerID": "A1", "asin": "B0", "overall": 4.0, "reviewText": "so", "unixReviewTime": 1400630400}',
        "amazon-2018",
        {"user_id": "A1", "item_id": "B0", "value": 4.0, "occurred_at": 1400630400000, "event_type": "rating"},
    ),
    (
        "reviews.jsonl",
        '{"rating": 4.0, "asin": "B1", "parent_asin": "B0", "user_id": "A1", "timestamp": 1588615855070, "text": ""}',
        "amazon-2023",
        {"user_id": "A1", "item_id": "B0", "value": 4.0, "occurred_at": 1588615855070, "event_type": "rating"},
    ),
]


def write(path: Path, text: str) -> str:
    """The text, packed; layouts are told all the same."""
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(text.encode()))
    return f"{path}.gz"


@pytest.mark.parametrize(("name", "text", "preset", "event"), SAMPLES)
def test_by_content(name: str, text: str, preset: str, event: dict[str, Any], tmp_path: Path) -> None:
    source = write(tmp_path / name, text)
    [file] = find_files(source)
    assert find_layout(file, LogSpec((source,))).preset == preset
    log = open_log(LogSpec((source,), bad="stop"), SETTINGS)
    row = next(log.blocks())[0]
    found = msgspec.json.decode(row.value or b"")
    assert found.pop("event_id").startswith(f"{name}.gz:")
    assert found == event
    assert row.key == event["user_id"].encode()


def test_all_have_a_sample() -> None:
    assert {preset for _, _, preset, _ in SAMPLES} | {"completejourney"} == set(PRESETS)


def test_complete_journey(tmp_path: Path) -> None:
    table = pa.table(
        {
            "household_id": [900],
            "store_id": [330],
            "basket_id": [31198570044],
            "product_id": [1095275],
            "quantity": [2],
            "sales_value": [0.5],
            "transaction_timestamp": pa.array([1_483_271_606_000_000_000], pa.timestamp("ns")),
        }
    )
    pq.write_table(table, tmp_path / "transactions.parquet")
    [row] = next(open_log(LogSpec((str(tmp_path),)), SETTINGS).blocks())
    assert msgspec.json.decode(row.value or b"") == {
        "user_id": "900",
        "item_id": "1095275",
        "quantity": 2,
        "value": 0.5,
        "session_id": "31198570044",
        "occurred_at": 1483271606000,
        "event_type": "purchase",
        "event_id": "transactions.parquet:1",
    }


def test_columns_of_ones_own_switch_the_telling_off(tmp_path: Path) -> None:
    source = write(tmp_path / "ratings.csv", SAMPLES[0][1])
    spec = LogSpec((source,), columns={"user_id": "userId", "item_id": "movieId"}, event_type="view", time_unit="s")
    [row] = next(open_log(spec, SETTINGS).blocks())
    assert msgspec.json.decode(row.value or b"")["event_type"] == "view"
    assert row.time_ms == 1256677221000  # by the alias timestamp


def test_a_preset_that_is_said(tmp_path: Path) -> None:
    source = write(tmp_path / "a.txt", "1 10\n2 11\n")
    [row, *_] = next(open_log(LogSpec((source,), preset="lists"), SETTINGS).blocks())
    assert row.number == 1
    assert b'"item_id":"1"' in (row.value or b"")
    with pytest.raises(RefusedError, match=r"there is no preset list\. There are: none, movielens"):
        open_log(LogSpec((source,), preset="list"), SETTINGS)
