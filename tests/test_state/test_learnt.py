"""What a partition learns of items from its events."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.errors import StateCorruptError
from state.learnt import HOLD, LearntItems, learnt_key


def _get(store: dict[bytes, bytes]) -> LearntItems:
    return LearntItems(8, store.get)


def test_it_is_there_after_a_restart() -> None:
    store: dict[bytes, bytes] = {}
    learnt = _get(store)
    learnt.learn(5, 11, "cups")
    assert learnt.category(11) == "cups"
    assert learnt.category(19) == ""  # of the same place
    store.update(learnt.drain())
    assert not learnt.drain()
    again = _get(store)
    assert again.category(11) == "cups"
    again.learn(6, 11, "cups")
    assert not again.drain()
    again.learn(7, 11, "mugs")
    assert [key for key, _ in again.drain()] == [learnt_key(3)]
    assert again.category(11) == "mugs"


def test_a_place_stays_with_its_item_for_a_while() -> None:
    learnt = _get({})
    learnt.learn(5, 11, "cups")
    learnt.learn(5 + HOLD - 1, 19, "jugs")
    assert (learnt.category(11), learnt.category(19)) == ("cups", "")
    learnt.learn(5 + HOLD, 19, "jugs")
    assert (learnt.category(11), learnt.category(19)) == ("", "jugs")


def test_without_places_nothing_is_learnt() -> None:
    learnt = LearntItems(0, {}.get)
    learnt.learn(5, 11, "cups")
    assert learnt.category(11) == ""
    assert not learnt.drain()


def test_a_broken_record_says_what_to_do() -> None:
    with pytest.raises(StateCorruptError, match="delete its data folder"):
        _get({learnt_key(3): b"\xc1"}).category(11)


@given(
    st.lists(st.tuples(st.integers(1, 40), st.sampled_from(["a", "b", "\ud800"])), max_size=60),
    st.sets(st.integers(0, 60)),
)
def test_it_does_not_matter_where_the_log_is_cut(told: list[tuple[int, str]], cuts: set[int]) -> None:
    whole, pieces = LearntItems(8, {}.get), {}
    part = LearntItems(8, pieces.get)
    for offset, (key, category) in enumerate(told):
        if offset in cuts:  # committed, and read again from the store
            pieces.update(part.drain())
            part = LearntItems(8, pieces.get)
        whole.learn(offset * HOLD // 4, key, category)
        part.learn(offset * HOLD // 4, key, category)
    pieces.update(part.drain())
    assert dict(whole.drain()) == pieces
    assert len(pieces) <= 8
