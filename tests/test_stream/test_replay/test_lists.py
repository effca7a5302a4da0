from __future__ import annotations

from pathlib import Path

import pytest

from model.ranking.lists import Interest, RankedItem, Reason
from state.keys import user_key
from stream.contract.recommendation import ModelRef, Recommendation, Source, encode_recommendation
from stream.errors import ReplayError
from stream.replay.lists import INTERESTS, NONE, Side, Vocabulary, read_folder, read_records


def value(user: str, *items: str, tenant: str = "") -> bytes:
    """As a worker sends it."""
    reasons = [Reason("popular"), Reason("for_you")]
    return encode_recommendation(
        Recommendation(
            recommendation_id="0-1-00",
            user_id=user,
            tenant=tenant,
            generated_at="2026-01-01T00:00:00.000Z",
            trigger_event_id="e",
            events_applied=1,
            source=Source("events", 0, 1),
            model=ModelRef("m", "1"),
            strategy="hybrid",
            interests=[Interest("tea", 1.0, 0.5, "rising", 1, 2), Interest("acme", 1.0, 0.5, "steady", 1, 2, "brand")],
            items=[RankedItem(item, rank, 0.5, reasons) for rank, item in enumerate(items, 1)],
        )
    )


def items(side: Side, user: str) -> list[str] | None:
    """Of the user's list; None where there is none."""
    number = side.words.users.number(user)
    table = side.table()
    if table.strategy[number] == NONE:
        return None
    return [side.words.items.texts[item] for item in table.items[number].tolist() if item != NONE]


def write(folder: Path, name: str, *lines: bytes) -> None:
    (folder / "lists").mkdir(parents=True, exist_ok=True)
    (folder / "lists" / name).write_bytes(b"\n".join(lines) + b"\n")


def test_a_folder_gives_each_user_the_last_list(tmp_path: Path) -> None:
    write(tmp_path, "00000.jsonl", value("u", "a"), value("v", "a"), value("u", "b", "c"))
    write(tmp_path, "00001.jsonl", value("w", "d"), b'{"removed": "w"}')
    side = read_folder(tmp_path, Vocabulary())
    assert [items(side, user) for user in "uvw"] == [["b", "c"], ["a"], None]


def test_what_a_list_says_is_kept_by_number() -> None:
    words = Vocabulary()
    side = read_records([(b"u", value("u", "a", "b"))], words, places=3)
    table = side.table()
    assert table.items.tolist() == [[0, 1, NONE]]
    assert table.reasons.tolist() == [[0, 0, NONE]]
    assert words.reasons.texts == ["popular"]
    assert words.strategies.texts == ["hybrid"]
    assert words.interests.texts == ["tea", "brand: acme"]
    assert table.interests.shape == (1, INTERESTS)


def test_places_beyond_those_looked_at_are_cut() -> None:
    side = read_records([(b"u", value("u", "a", "b", "c"))], Vocabulary(), places=2)
    assert items(side, "u") == ["a", "b"]


def test_a_topic_gives_the_last_value_of_each_key() -> None:
    side = read_records([(b"u", value("u", "a")), (b"v", value("v", "a")), (b"u", None)], Vocabulary())
    assert [items(side, user) for user in "uv"] == [None, ["a"]]


def test_users_of_two_tenants_are_two(tmp_path: Path) -> None:
    write(tmp_path, "00000.jsonl", value("u", "a", tenant="s"), value("u", "b"))
    side = read_folder(tmp_path, Vocabulary())
    assert items(side, user_key("u", "s").decode()) == ["a"]
    assert items(side, "u") == ["b"]


def test_sides_share_users_whichever_saw_them_first() -> None:
    words = Vocabulary()
    one = read_records([(b"u", value("u", "a"))], words)
    two = read_records([(b"v", value("v", "b")), (b"u", value("u", "c"))], words)
    assert [items(one, user) for user in "uv"] == [["a"], None]
    assert [items(two, user) for user in "uv"] == [["c"], ["b"]]
    assert one.table().items.shape == two.table().items.shape


def test_what_is_no_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReplayError, match=r"no lists/"):
        read_folder(tmp_path, Vocabulary())
    write(tmp_path, "00000.jsonl", value("u", "a"), value("v", "a")[:40])
    with pytest.raises(ReplayError, match=r"00000.jsonl, line 2"):
        read_folder(tmp_path, Vocabulary())
    for bad in (b"[]", b"{}", b"\xff"):
        with pytest.raises(ReplayError, match="no list"):
            read_records([(b"u", bad)], Vocabulary())
