import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.errors import DatasetError
from model.training.dataset import Dataset, EventRow, LogReader, dataset_from_arrays, load_dataset, parse_time_ms
from model.training.details import ItemDetails
from state.weights import PURCHASE, SESSION_START

JAN_MS = 1767225600000  # 2026-01-01T00:00:00Z
EVENTS: list[dict[str, Any]] = [
    {"user_id": "u2", "event_type": "view", "item_id": "b", "occurred_at": "2026-01-01T00:00:03Z"},
    {"user_id": "u1", "event_type": "purchase", "item_id": "a", "occurred_at": "2026-01-01T00:00:02Z"},
    {"user_id": "u1", "event_type": "click", "item_id": "c", "occurred_at": "2026-01-01T00:00:01Z"},
]


def write(path: Path, events: list[dict[str, Any]]) -> Path:
    """The events in the form that the path's ending names."""
    names = list(dict.fromkeys(name for event in events for name in event))
    if path.suffix == ".csv":
        rows = [",".join(names), *(",".join(str(event.get(name, "")) for name in names) for event in events)]
        path.write_text("\n".join(rows) + "\n")
    elif path.suffix == ".parquet":
        pq.write_table(pa.table({name: [event.get(name) for event in events] for name in names}), path)
    else:
        path.write_text("".join(json.dumps(event) + "\n" for event in events))
    return path


def rows(data: Dataset) -> list[tuple[str, str, int]]:
    items = [*data.item_ids, "START"]
    return [
        (data.user_ids[user], items[item], int(time_ms) - JAN_MS)
        for user, item, time_ms in zip(data.user, data.item, data.time_ms, strict=True)
    ]


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_every_kind_of_file_gives_the_same(tmp_path: Path, ending: str) -> None:
    data = load_dataset(write(tmp_path / f"log.{ending}", EVENTS))
    # By user in the order of the file, each user's events by time.
    assert rows(data) == [("u2", "b", 3000), ("u1", "c", 1000), ("u1", "a", 2000)]
    assert data.type[2] == PURCHASE
    assert data.source == f"log.{ending}"


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_epoch_times_and_optional_columns(tmp_path: Path, ending: str) -> None:
    event = {"event_type": "view", "item_id": "007", "occurred_at": JAN_MS, "anonymous_id": "x"}
    data = load_dataset(write(tmp_path / f"log.{ending}", [event | {"category": "tea", "item_name": "Assam"}]))
    assert rows(data) == [("x", "007", 0)]
    assert (data.item_categories, data.item_names) == (["tea"], ["Assam"])


def test_parquet_with_times_and_numbers_as_ids(tmp_path: Path) -> None:
    table = pa.table(
        {
            "user_id": pa.array([5]),
            "item_id": pa.array(["a"]).dictionary_encode(),
            "event_type": pa.array(["view"]).dictionary_encode(),
            "occurred_at": pa.array([datetime(2026, 1, 1, 0, 0, 1)], pa.timestamp("us")),
        }
    )
    pq.write_table(table, tmp_path / "log.parquet")
    assert rows(load_dataset(tmp_path / "log.parquet")) == [("5", "a", 1000)]


def test_several_files_are_one_log(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{k}.jsonl", [event]) for k, event in enumerate(EVENTS)]
    assert rows(load_dataset(files)) == rows(load_dataset(write(tmp_path / "all.jsonl", EVENTS)))


def test_an_event_of_several_items(tmp_path: Path) -> None:
    event = {"user_id": "u", "event_type": "purchase", "occurred_at": JAN_MS}
    event["items"] = [{"item_id": "a", "category": "x"}, "b"]
    data = load_dataset(write(tmp_path / "log.jsonl", [event]))
    assert rows(data) == [("u", "a", 0), ("u", "b", 0)]
    assert data.item_categories == ["x", ""]


def test_what_says_nothing_for_an_item_is_no_row(tmp_path: Path) -> None:
    silent = [EVENTS[0] | {"event_type": kind} for kind in ("impression", "hide", "dislike", "remove_from_cart")]
    assert len(load_dataset(write(tmp_path / "log.jsonl", [*EVENTS, *silent]))) == 3


def test_a_low_rating_is_no_row_and_a_high_one_is(tmp_path: Path) -> None:
    rated = [EVENTS[0] | {"event_type": "rating", "value": stars} for stars in (1, 2.5, 4, "5")]
    assert len(load_dataset(write(tmp_path / "log.jsonl", [*EVENTS, *rated]))) == 5
    with pytest.raises(DatasetError, match="column value: 'many' is no number"):
        load_dataset(write(tmp_path / "log.jsonl", [EVENTS[0] | {"event_type": "rating", "value": "many"}]))


@pytest.mark.parametrize("stars", ["nan", "inf"])
def test_stars_that_say_nothing_are_refused_and_not_taken_for_a_liking(stars: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="says nothing"):
        load_dataset(write(tmp_path / "log.jsonl", [EVENTS[0] | {"event_type": "rating", "value": stars}]))


def test_what_other_events_hold_as_value_is_passed_over(tmp_path: Path) -> None:
    odd = [EVENTS[0] | {"value": {"amount": 3}, "tenant": 5}, EVENTS[1] | {"value": [1], "domain": 7}]
    data = load_dataset(write(tmp_path / "log.jsonl", odd))
    assert data.user_ids[0] == f"5\x1f{EVENTS[0]['user_id']}"
    assert "7" in data.item_domains


def test_users_of_different_tenants_are_different(tmp_path: Path) -> None:
    data = load_dataset(write(tmp_path / "log.jsonl", [EVENTS[0], EVENTS[0] | {"tenant": "acme"}]))
    assert data.user_ids == [EVENTS[0]["user_id"], f"acme\x1f{EVENTS[0]['user_id']}"]


def test_an_item_has_the_domain_of_its_first_event_that_names_one(tmp_path: Path) -> None:
    events = [
        {"user_id": "u", "item_id": item, "event_type": "view", "occurred_at": JAN_MS + k, "domain": domain}
        for k, (item, domain) in enumerate([("a", None), ("a", "books"), ("a", "films"), ("b", "films"), ("c", None)])
    ]
    assert load_dataset(write(tmp_path / "log.jsonl", events)).item_domains == ["books", "films", ""]
    assert load_dataset(write(tmp_path / "log.jsonl", events[:1])).item_domains == []


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_an_item_has_the_brand_and_price_of_the_first_event_that_tells_them(tmp_path: Path, ending: str) -> None:
    told = [("a", None, None), ("a", "acme", 2.5), ("a", "solo", 9.0), ("b", None, 0.0), ("c", "solo", 3.0)]
    events = [
        {"user_id": "u", "item_id": item, "event_type": "view", "occurred_at": JAN_MS + k}
        | ({"brand": brand} if brand else {})
        | ({"price": price} if price is not None else {})
        for k, (item, brand, price) in enumerate(told)
    ]
    data = load_dataset(write(tmp_path / f"log.{ending}", events))
    assert data.item_brands == ["acme", "", "solo"]
    assert data.item_prices == [2.5, None, 3.0]
    less = load_dataset(write(tmp_path / f"less.{ending}", events[:1]))
    assert less.item_brands == less.item_prices == less.listed == []


def test_brands_and_prices_of_an_event_of_several_items(tmp_path: Path) -> None:
    lines = [{"item_id": "a", "brand": "acme", "price": "2.5"}, {"item_id": "b", "brand": 7}]
    event = {"user_id": "u", "event_type": "purchase", "occurred_at": JAN_MS, "items": lines}
    data = load_dataset(write(tmp_path / "log.jsonl", [event]))
    assert (data.item_brands, data.item_prices) == (["acme", "7"], [2.5, None])


@pytest.mark.parametrize(("ending", "row"), [("jsonl", 2), ("csv", 3), ("parquet", 2)])
def test_a_price_that_is_no_number_is_named(tmp_path: Path, ending: str, row: int) -> None:
    events = [EVENTS[0] | {"price": "5"}, EVENTS[1] | {"price": "9 EUR"}]
    log = write(tmp_path / f"log.{ending}", events)
    with pytest.raises(DatasetError, match=rf"log\.{ending}, row {row}, column price: '9 EUR' is no number"):
        load_dataset(log)


def test_a_parquet_column_of_lists_is_named(tmp_path: Path) -> None:
    log = write(tmp_path / "log.parquet", [EVENTS[0] | {"brand": [["acme"]]}])
    with pytest.raises(DatasetError, match=r"log\.parquet, from row 1, column brand: .*write single values"):
        load_dataset(log)


def test_prices_of_parquet_may_be_money(tmp_path: Path) -> None:
    log = write(tmp_path / "log.parquet", [EVENTS[0] | {"price": Decimal("2.50")}])
    assert load_dataset(log).item_prices == [2.5]


def described(*events: dict[str, Any]) -> Dataset:
    reader = LogReader()
    for k, event in enumerate(events):
        reader.add("here", EventRow("view", JAN_MS + k, "u", **event))
    catalog = {
        "a": ItemDetails(name="Assam", category="leaf", path="drinks > leaf", text="black"),
        "never": ItemDetails(name="Never taken"),
    }
    assert reader.describe(catalog) == 1
    return reader.dataset(min_item_events=1, session_gap_s=1800, source="log")


EVENTS_OF_ITEMS = (
    {"item_id": "a", "category": "tea", "price": 4.0},
    {"item_id": "b", "category": "milk", "brand": "acme"},
)


def test_a_catalogue_goes_before_events_and_adds_no_items() -> None:
    data = described(*EVENTS_OF_ITEMS)
    assert data.item_ids == ["a", "b"]
    assert (data.item_names, data.item_categories) == (["Assam", "b"], ["leaf", "milk"])
    assert data.select(data.item == 0).listed == data.listed  # a part keeps the catalogue


def test_what_only_untold_events_tell_of_an_item_is_not_known_but_what_the_catalogue_tells_is() -> None:
    data = described(*EVENTS_OF_ITEMS)
    listed = ItemDetails("Assam", "leaf", "drinks > leaf", "", None, "black")
    assert data.details(np.array([True, True])) == [
        ItemDetails("Assam", "leaf", "drinks > leaf", "", 4.0, "black"),
        ItemDetails("b", "milk", "milk", "acme", None, ""),
    ]
    assert data.details(np.array([False, False])) == [listed, ItemDetails()]


def test_another_catalogue_is_another_fingerprint() -> None:
    item, other = EVENTS_OF_ITEMS
    seen = [described(item, other)]
    seen += [described(item, other | change) for change in ({"brand": "solo"}, {"price": 1.0}, {"category": "x"})]
    seen.append(replace(seen[0], listed=[]))
    assert len({data.fingerprint()["sha256"] for data in seen}) == len(seen)
    assert described(item, other).fingerprint() == seen[0].fingerprint()


def test_an_event_sent_twice_is_one_row(tmp_path: Path) -> None:
    twice = [EVENTS[0] | {"event_id": "e1"}] * 2 + [EVENTS[1] | {"event_id": "e1"}]
    assert len(load_dataset(write(tmp_path / "log.jsonl", twice))) == 2  # another user's e1 is another event


def test_sessions_begin_at_starts_pauses_and_users(tmp_path: Path) -> None:
    #  u:  a  b  .  .  START  a  .....(40 min)..... b      v: a
    minutes = [("u", "a", 0), ("u", "b", 1), ("u", None, 5), ("u", "a", 5), ("u", "b", 45), ("v", "a", 45)]
    events = [
        {
            "user_id": user,
            "event_type": "view" if item else "session_start",
            "occurred_at": JAN_MS + minute * 60_000,
            **({"item_id": item} if item else {}),
        }
        for user, item, minute in minutes
    ]
    data = load_dataset(write(tmp_path / "log.jsonl", events))
    assert data.session.tolist() == [0, 0, 1, 1, 2, 3]
    assert data.item.tolist() == [0, 1, 2, 0, 1, 0]  # 2 = n: the start
    assert data.type[2] == SESSION_START
    assert data.is_item.tolist() == [True, True, False, True, True, True]


def test_rare_items_are_left_out(tmp_path: Path) -> None:
    data = load_dataset(write(tmp_path / "log.jsonl", [*EVENTS, EVENTS[1]]), min_item_events=2)
    assert data.item_ids == ["a"]
    assert rows(data) == [("u1", "a", 2000), ("u1", "a", 2000)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"event_type": "stare"}, "row 2, column event_type: 'stare' is unknown; use one of impression, view"),
        ({"user_id": ""}, "row 2, column user_id: neither user_id nor anonymous_id"),
        ({"item_id": ""}, "row 2, column item_id: a purchase needs an item"),
        ({"occurred_at": "yesterday"}, "row 2, column occurred_at: 'yesterday' is no time .* use ISO-8601"),
        ({"occurred_at": 12}, "row 2, column occurred_at: '?12'? is no time .*not a time after 1973"),
    ],
)
@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_a_bad_row_is_named(tmp_path: Path, ending: str, change: dict[str, Any], reason: str) -> None:
    file = write(tmp_path / f"log.{ending}", [EVENTS[0], EVENTS[1] | change])
    line = "row 3" if ending == "csv" else "row 2"  # the header is line 1
    with pytest.raises(DatasetError, match=f"log.{ending}, {reason.replace('row 2', line)}"):
        load_dataset(file)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("log.jsonl", b'{"user_id": "u"\n', "log.jsonl, line 1: .*mend or remove it"),
        ("log.jsonl", b'{"user_id": "\xff"}\n', "log.jsonl, line 1"),
        ("log.jsonl", b"[1]\n", "log.jsonl, line 1"),
        ("log.jsonl", b"\n", "no item has 1 or more events"),
        ("log.csv", b"", "has no column event_type .it has: none"),
        ("log.csv", b"user,item\n1,2\n", "has no column event_type .it has: user, item.; rename"),
        ("log.csv", b"event_type,occurred_at,user_id,item_id\nview,2026\n", "line 2: 2 cells, the header has 4"),
        ("log.csv", b"event_type,occurred_at,user_id,item_id\n,2026-01-01,u,a\n", "row 2, column event_type: is empty"),
        ("log.csv", b"event_type,occurred_at,user_id,item_id\n\xff,,,\n", "save the file as CSV in UTF-8"),
        ("log.parquet", b"PAR1 not really", "is no Parquet file"),
        ("log.xlsx", b"", "unknown kind of file; give one that ends in .jsonl"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=reason):
        load_dataset(tmp_path / name)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="there is no such file; correct the path"):
        load_dataset(tmp_path / "log.csv")


@pytest.mark.parametrize(
    "value",
    [
        JAN_MS,
        str(JAN_MS),
        JAN_MS / 1000,
        JAN_MS * 1000,
        JAN_MS * 1_000_000,
        "2026-01-01",
        "2026-01-01T00:00:00",
        "2026-01-01T01:00:00+01:00",
    ],
)
def test_times(value: float | str) -> None:
    assert parse_time_ms(value) == JAN_MS == datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000


def test_starts_are_put_in_where_sessions_are_given() -> None:
    data = dataset_from_arrays(
        user=np.array([0, 0, 0], np.int32),
        item=np.array([0, 1, 0], np.int32),
        type=np.full(3, PURCHASE, np.uint8),
        time_ms=np.array([5, 5, 9]),
        new_session=np.array([True, False, True]),
        user_ids=["u"],
        item_ids=["a", "b"],
    )
    assert data.item.tolist() == [2, 0, 1, 2, 0]
    assert data.time_ms.tolist() == [5, 5, 5, 9, 9]
    assert data.session.tolist() == [0, 0, 0, 1, 1]


def test_a_part_keeps_the_catalogue_and_has_its_own_fingerprint(tmp_path: Path) -> None:
    data = load_dataset(write(tmp_path / "log.jsonl", EVENTS))
    part = data.select(data.time_ms < JAN_MS + 2500)
    assert (len(part), part.items) == (2, 3)
    whole, less = data.fingerprint(), part.fingerprint()
    assert (whole["events"], whole["users"], less["events"], less["users"]) == (3, 2, 2, 1)
    assert whole["sha256"] != less["sha256"] == data.select(data.time_ms < JAN_MS + 2500).fingerprint()["sha256"]


@pytest.mark.parametrize("change", [{}, {"tenant": "acme"}, {"value": 4.0}, {"event_type": "rating", "value": 4.0}])
def test_parquet_in_columns_is_as_row_by_row(tmp_path: Path, change: dict[str, Any]) -> None:
    draw = np.random.default_rng(0)
    kinds = ["view", "purchase", "impression", "session_start", "click"]
    events = [
        {
            "event_id": f"e{int(draw.integers(0, 150))}" if k % 3 else None,
            "event_type": kinds[int(draw.integers(0, 5))],
            "occurred_at": JAN_MS + int(draw.integers(0, 10**7)),
            "user_id": f"u{int(draw.integers(0, 9))}" if k % 4 else "",
            "anonymous_id": "x",
            "item_id": f"i{int(draw.integers(0, 20))}",
            "category": ["", "tea", None, "milk"][k % 4],
            "brand": ["", "acme", None, "solo"][k % 4],
            "price": [None, float("nan"), 0.0, -1.0, 2.5, 4.0][k % 6],
            **(change if k % 10 == 0 else dict.fromkeys(change) | {"event_type": kinds[k % 5]}),
        }
        for k in range(300)
    ]
    lines = [{name: value for name, value in event.items() if value is not None and value == value} for event in events]
    by_row, by_column = (
        load_dataset(write(tmp_path / "a.jsonl", lines)),
        load_dataset(write(tmp_path / "a.parquet", events)),
    )
    assert rows(by_row) == rows(by_column)
    assert by_row.type.tolist() == by_column.type.tolist()
    assert by_row.item_categories == by_column.item_categories
    assert by_row.item_brands == by_column.item_brands != []
    assert by_row.item_prices == by_column.item_prices != []
    assert by_row.user_ids == by_column.user_ids


def test_a_user_who_is_forgotten() -> None:
    reader = LogReader()
    for number, user in enumerate(["u", "v", "u"]):
        if number == 2:
            reader.forget("u", "")
        reader.add("here", EventRow("view", JAN_MS + number, user, item_id=f"i{number}"))
    data = reader.dataset(min_item_events=1, session_gap_s=1800, source="log")
    assert rows(data) == [("u", "i2", 2), ("v", "i1", 1)]
