import gzip
import json
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.errors import DatasetError
from model.training.dataset import Dataset, load_dataset
from model.training.layouts import find_layout
from state.weights import EVENT_TYPES

RECBOLE = "user_id:token\titem_id:token\trating:float\ttimestamp:float\nu\t2\t3\t881250949\nv\t1\t1\t881250950.5\n"
TAOBAO = "1,20,7,pv,1511544070\n2,20,7,buy,1511544000\n1,30,8,cart,1511544060\n1,20,7,fav,1511544080\n"
EVENT = {"user_id": "u", "event_type": "view", "item_id": "a", "occurred_at": 1767225600000}


def rows(data: Dataset) -> list[tuple[str, str]]:
    return [(data.user_ids[u], data.item_ids[i]) for u, i in zip(data.user, data.item, strict=True)]


def write(path: Path, text: str) -> Path:
    """The text, packed if the path says so."""
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["a.inter", "a.inter.gz", "a.txt"])
def test_recbole(tmp_path: Path, name: str) -> None:
    data = load_dataset(write(tmp_path / name, RECBOLE))
    assert rows(data) == [("u", "2"), ("v", "1")]  # every rating is an event: the published figures count them so
    assert data.time_ms.tolist() == [881250949000, 881250950500]
    assert {EVENT_TYPES[code] for code in data.type} == {"rating"}
    assert data.has_time


def test_recbole_without_rating_and_time(tmp_path: Path) -> None:
    text = "item_id:token\tuser_id:token\nb\tu\nc\tv\na\tu\n"
    data = load_dataset(write(tmp_path / "a.inter", text))
    assert rows(data) == [("u", "b"), ("u", "a"), ("v", "c")]
    assert (data.has_time, data.time_ms.tolist()) == (False, [0, 1, 0])
    assert {EVENT_TYPES[code] for code in data.type} == {"view"}


def test_recbole_takes_names_and_categories_of_the_file_beside_it(tmp_path: Path) -> None:
    write(
        tmp_path / "a.item", "item_id:token\tmovie_title:token_seq\tclass:token_seq\n2\tToy Story\tAnimation Comedy\n"
    )
    data = load_dataset(write(tmp_path / "a.inter.gz", RECBOLE))
    assert (data.item_names, data.item_categories) == (["Toy Story", "1"], ["Animation", ""])


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.txt"])
def test_taobao(tmp_path: Path, name: str) -> None:
    data = load_dataset(write(tmp_path / name, TAOBAO))
    assert rows(data) == [("1", "30"), ("1", "20"), ("1", "20"), ("2", "20")]
    assert [EVENT_TYPES[code] for code in data.type] == ["add_to_cart", "view", "like", "purchase"]
    assert data.time_ms[0] == 1511544060000
    assert data.item_categories == ["7", "8"]


def test_times_that_taobao_never_had_are_left_out(tmp_path: Path) -> None:
    assert len(load_dataset(write(tmp_path / "a.csv", TAOBAO + "1,40,9,pv,-2134949234\n1,40,9,pv,4294967295\n"))) == 4


@pytest.mark.parametrize("ending", [".txt", ".txt.gz"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # A user first: the first numbers differ. Pairs: two numbers a line. Else a line is a user's items.
        ("7 1 2 1\n8 3 1\n", [("7", "1"), ("7", "2"), ("7", "1"), ("8", "3"), ("8", "1")]),
        ("7 1\n8 3\n7 2\n\n8 1\n", [("7", "1"), ("7", "2"), ("8", "3"), ("8", "1")]),
        ("7 1 2\n7 3 1\n", [("1", "7"), ("1", "1"), ("1", "2"), ("2", "7"), ("2", "3"), ("2", "1")]),
    ],
    ids=["user first", "pairs", "lists"],
)
def test_lines_of_numbers(tmp_path: Path, text: str, expected: list[tuple[str, str]], ending: str) -> None:
    data = load_dataset(write(tmp_path / f"a{ending}", text))
    assert rows(data) == expected
    assert not data.has_time
    assert len(set(data.session.tolist())) == 2  # one a user: nothing is known of sessions


def test_layout_can_be_said(tmp_path: Path) -> None:
    file = write(tmp_path / "a.dat", "7 1 2\n8 3 1\n")
    assert rows(load_dataset(file, layout="lists"))[0] == ("1", "7")
    assert rows(load_dataset(file))[0] == ("7", "1")
    with pytest.raises(DatasetError, match="layout 'list' is unknown; use one of jsonl, csv, parquet, recbole"):
        load_dataset(file, layout="list")


def test_events_packed_with_gzip(tmp_path: Path) -> None:
    files = [
        write(tmp_path / "a.jsonl.gz", json.dumps(EVENT) + "\n"),
        write(tmp_path / "a.csv.gz", ",".join(EVENT) + "\n" + ",".join(map(str, EVENT.values())) + "\n"),
        tmp_path / "a.parquet.gz",
    ]
    pq.write_table(pa.table({name: [value] for name, value in EVENT.items()}), tmp_path / "a.parquet")
    files[2].write_bytes(gzip.compress((tmp_path / "a.parquet").read_bytes()))
    for file in files:
        assert rows(load_dataset(file)) == [("u", "a")]


def test_a_folder_is_one_log(tmp_path: Path) -> None:
    (tmp_path / "2026").mkdir()
    for name in ("b.jsonl", "2026/a.ndjson.gz"):
        write(tmp_path / name, json.dumps(EVENT) + "\n")
    write(tmp_path / "_SUCCESS", "")
    write(tmp_path / ".b.jsonl.crc", "nonsense")
    write(tmp_path / "README.md", "nonsense")
    assert len(load_dataset(tmp_path)) == 2


@pytest.mark.parametrize(
    ("name", "text", "layout"),
    [
        ("log", '\n{"user_id": 1}\n', "jsonl"),
        ("log.csv", "event_type,user_id\n", "csv"),
        ("log.tsv", "a:token\tb:token\n", "recbole"),
        ("log.json.gz", "", "jsonl"),
        ("log.parquet", "", "parquet"),
    ],
)
def test_layouts_are_told_by_name_or_content(tmp_path: Path, name: str, text: str, layout: str) -> None:
    assert find_layout(write(tmp_path / name, text)) == layout


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.inter", "user_id:token\titem:token\n", "has no column item_id:token .it has: user_id:token, item:token"),
        ("a.inter", RECBOLE + "u\t5\t3\n", "Row #4: Expected 4 columns, got 3"),
        ("a.inter", RECBOLE + "u\t5\t3\tsoon\n", "row 4, column timestamp: 'soon' is no number; mend"),
        ("a.inter", RECBOLE + "\t5\t3\t881250949\n", "row 4, column user_id: is empty; fill it"),
        ("a.csv", TAOBAO + "1,2,3,look,1511544070\n", "row 5, column behaviour: 'look' is none of pv, cart, fav, buy"),
        ("a.csv", TAOBAO + "1,2,3,pv,1.5\n", "row 5, column seconds: '1.5' is no number"),
        ("a.csv", TAOBAO + "1,2,3,pv\n", "Row #5: Expected 5 columns, got 4"),
        ("a.txt", "1 2\n2 3\n3 x\n", "line 3: is no `user item item ...` in whole numbers"),
        ("a.txt", "1 2\n2\n", "line 2: is no `user item item ...` in whole numbers"),
        ("a.txt", "What is it?\n", "unknown kind of file; .* say with --layout what it is"),
        ("a.txt", "", "unknown kind of file"),
        ("a.inter", "", "has no column user_id"),
        ("a.inter", RECBOLE.splitlines()[0] + "\n", "no item has 1 or more events"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, text: str, reason: str) -> None:
    with pytest.raises(DatasetError, match=f"{name}.*{reason}"):
        load_dataset(write(tmp_path / name, text))


def test_a_broken_gzip_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "a.inter.gz", RECBOLE * 100)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DatasetError, match=r"a.inter.gz: is broken inside .*; pack or copy it again"):
        load_dataset(file)


def test_an_empty_folder_and_logs_that_do_not_fit_together(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"holds no file that ends in .jsonl"):
        load_dataset(tmp_path)
    files = [write(tmp_path / "a.inter", RECBOLE), write(tmp_path / "a.csv", TAOBAO)]
    with pytest.raises(DatasetError, match=r"the files have the layouts recbole, taobao; train on each by itself"):
        load_dataset(files)
    lists = [write(tmp_path / f"{k}.txt", "1 2 3\n1 3 2\n") for k in range(2)]
    with pytest.raises(DatasetError, match="several files of lists name no users"):
        load_dataset(lists)


DATA = Path(__file__).resolve().parents[4] / "shared" / "data"


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
@pytest.mark.parametrize(
    ("name", "events", "users", "items", "has_time"),
    [
        ("ml-1m/ml-1m.txt.gz", 999_611, 6040, 3416, False),
        ("ml-100k", 100_000, 943, 1682, True),
        ("amazon-beauty/Beauty.txt.gz", 198_502, 22_363, 12_101, False),
        ("taobao/small_sample.csv.gz", 100_001, 983, 64_467, True),
    ],
)
def test_published_data_sets_are_read_whole(name: str, events: int, users: int, items: int, has_time: bool) -> None:
    data = load_dataset(DATA / name)
    assert (len(data), len(data.user_ids), data.items, data.has_time) == (events, users, items, has_time)


def test_a_million_rows_take_seconds(tmp_path: Path) -> None:
    file = write(tmp_path / "a.txt", "".join(f"{k} {' '.join(map(str, range(k, k + 200)))}\n" for k in range(5000)))
    began_s = time.process_time()
    assert len(load_dataset(file)) == 1_000_000
    assert time.process_time() - began_s < 10  # 1 to 2 s; a loop over rows takes more than 10
