import msgspec
import pytest

from state.errors import StateCorruptError
from state.keys import key_of
from state.names import MAX_NAME_CHARS, Names, interest_name, name_and_kind, names_key
from state.window import interest_key


def learn(names: Names, *texts: str) -> None:
    names.learn([interest_key(text) for text in texts], texts)


def test_names_are_found_by_the_keys_that_states_hold() -> None:
    names = Names()
    learn(names, "shoes", "films")
    assert names.by_key == {interest_key("shoes"): "shoes", interest_key("films"): "films"}


def test_what_was_drained_comes_back_and_nothing_is_written_twice() -> None:
    store: dict[bytes, bytes] = {}
    names = Names()
    for one in (("a", "b"), ("b",), ("a", "c")):
        learn(names, *one)
        store.update(names.drain())
    assert list(store) == [names_key(0), names_key(1)]
    again = Names.load(store.get)
    assert again.by_key == names.by_key
    learn(again, "a", "d")
    assert [key for key, _ in again.drain()] == [names_key(2)]


def test_a_name_is_cut_and_always_text() -> None:
    names = Names()
    learn(names, "x" * 500, "\ud800")
    store = dict(names.drain())
    assert Names.load(store.get).by_key == {interest_key("x" * 500): "x" * MAX_NAME_CHARS, interest_key("\ud800"): "?"}


def test_names_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("state.names.MAX_NAMES", 3)
    names = Names()
    learn(names, *[f"n{number}" for number in range(10)])
    assert sorted(names.by_key.values()) == ["n0", "n1", "n2"]


def test_damage_is_told() -> None:
    with pytest.raises(StateCorruptError, match="delete its data folder"):
        Names.load({names_key(0): b"\xc1"}.get)


def test_no_record_outgrows_what_a_broker_takes() -> None:
    names = Names()
    learn(names, *[f"{number} {'🎬' * 100}" for number in range(5_000)])
    records = names.drain()
    assert len(records) == 3
    assert max(len(value) for _, value in records) < 700_000
    assert Names.load(dict(records).get).by_key == names.by_key


def test_no_record_outgrows_what_a_broker_takes_whatever_the_names_hold() -> None:
    names = Names()
    learn(names, *[f"{number}{'🎬' * 90}\x1f{'🎬' * 400}" for number in range(2_000)])
    ((_, value),) = names.drain()
    assert len(value) < 1_000_000


def test_a_kind_stands_before_the_name_and_takes_no_room_from_it() -> None:
    text = interest_name("x" * 500, "brand")
    assert interest_key(text) == interest_key("x" * 500, "brand")
    names = Names()
    learn(names, text, interest_name("x" * 500))
    assert [name_and_kind(name) for name in names.by_key.values()] == [("x" * 80, "brand"), ("x" * 80, "")]


def test_a_kind_ends_where_its_name_begins() -> None:
    assert name_and_kind(interest_name("a\x1fb", "brand")) == ("a\x1fb", "brand")


def test_without_names_nothing_is_learnt() -> None:
    names = Names()
    names.learn([interest_key("tea")], ())
    assert names.by_key == {}


def test_records_of_keys_of_32_bits_name_todays_interests() -> None:
    old = msgspec.msgpack.encode([(key_of(name) & 0xFFFF_FFFF, name) for name in ("tea", "rum", "jam", "oil")])
    assert Names.load({names_key(0): old}.get).by_key == {interest_key(n): n for n in ("tea", "rum", "jam", "oil")}
