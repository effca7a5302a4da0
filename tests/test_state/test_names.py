import pytest

from state.errors import StateCorruptError
from state.names import MAX_NAME_CHARS, Names, names_key
from state.window import interest_key


def test_names_are_found_by_the_keys_that_states_hold() -> None:
    names = Names()
    names.learn(("shoes", "", "films"))
    assert names.by_key == {interest_key("shoes"): "shoes", interest_key("films"): "films"}


def test_what_was_drained_comes_back_and_nothing_is_written_twice() -> None:
    store: dict[bytes, bytes] = {}
    names = Names()
    for one in (("a", "b"), ("b",), ("a", "c")):
        names.learn(one)
        store.update(names.drain())
    assert list(store) == [names_key(0), names_key(1)]
    again = Names.load(store.get)
    assert again.by_key == names.by_key
    again.learn(("a", "d"))
    assert [key for key, _ in again.drain()] == [names_key(2)]


def test_a_name_is_cut_and_always_text() -> None:
    names = Names()
    names.learn(("x" * 500, "\ud800"))
    store = dict(names.drain())
    assert Names.load(store.get).by_key == {interest_key("x" * 500): "x" * MAX_NAME_CHARS, interest_key("\ud800"): "?"}


def test_names_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("state.names.MAX_NAMES", 3)
    names = Names()
    names.learn([f"n{number}" for number in range(10)])
    assert sorted(names.by_key.values()) == ["n0", "n1", "n2"]


def test_damage_is_told() -> None:
    with pytest.raises(StateCorruptError, match="delete its data folder"):
        Names.load({names_key(0): b"\xc1"}.get)


def test_no_record_outgrows_what_a_broker_takes() -> None:
    names = Names()
    names.learn([f"{number} {'🎬' * 100}" for number in range(5_000)])
    records = names.drain()
    assert len(records) == 3
    assert max(len(value) for _, value in records) < 700_000
    assert Names.load(dict(records).get).by_key == names.by_key
