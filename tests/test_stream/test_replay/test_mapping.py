from pathlib import Path

import pytest

from stream.errors import RefusedError
from stream.replay.mapping import Columns, columns_of, read_columns


def test_flags() -> None:
    assert columns_of(["user=visitorid", "price=cost", "time=a=b"]) == {
        "user_id": "visitorid",
        "price": "cost",
        "occurred_at": "a=b",
    }


@pytest.mark.parametrize("flag", ["user", "=x", "user="])
def test_no_flag(flag: str) -> None:
    with pytest.raises(RefusedError, match="is no FIELD=COLUMN"):
        columns_of([flag])


def test_no_field() -> None:
    with pytest.raises(RefusedError, match=r"--map: visitor is no field .* are: event_id, .*short: user"):
        columns_of(["visitor=x"])


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text(
        'time_unit = "s"\nevent_type = "view"\n'
        '[columns]\nuser = "v"\n[types]\nbuy = "purchase"\n[constants]\ntenant = "a"'
    )
    assert read_columns(path) == Columns({"user_id": "v"}, {"buy": "purchase"}, {"tenant": "a"}, "view", "s")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[column]\na = 'b'", "is no mapping file: .*column.*It may hold columns, types"),
        ("columns = 1", "is no mapping file"),
        ("[columns", "is no mapping file"),
        ("[constants]\nshop = 1", "constants: shop is no field"),
        ("time_unit = 'weeks'", "time_unit is none of s, ms, us, ns"),
    ],
)
def test_a_wrong_file(text: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text(text)
    with pytest.raises(RefusedError, match=problem):
        read_columns(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"cannot read .*m\.toml.*Give a mapping file"):
        read_columns(tmp_path / "m.toml")
