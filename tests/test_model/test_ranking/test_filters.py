import pytest

from model.ranking.filters import excluded

EVENTS = ["purchase milk", "view jam", "hide jam", "session_start", "view bread", "view drill"]


@pytest.mark.parametrize(
    ("exclude", "left_out"),
    [
        ("seen", {0, 3, 1}),  # milk and jam before, bread in this session
        ("session", {1, 3}),  # bread; jam was hidden
        ("none", {3}),
    ],
)
def test_what_is_left_out(make_block, exclude, left_out) -> None:
    block = make_block(EVENTS, [])
    tokens = [array[0] for array in excluded(block, exclude)]
    assert {int(token) for array in tokens for token in array} - {8} == left_out
    assert {int(token) for array in excluded(block, exclude) for token in array[1]} == {8}


def test_a_session_longer_than_the_recent_list_is_left_out_whole(make_block) -> None:
    block = make_block(["view milk", "session_start", "view bread", *["view jam"] * 6])
    tokens = {int(token) for array in excluded(block, "session") for token in array[0]} - {8}
    assert tokens == {1, 3}
