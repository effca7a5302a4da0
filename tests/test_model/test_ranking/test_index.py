import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import ArtifactError
from model.ranking.index import ItemIndex
from state.keys import key_of


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3000), st.lists(st.integers(0, 2**64 - 1), max_size=50))
def test_keys_lead_to_tokens_and_all_else_to_n(n: int, strangers: list[int]) -> None:
    ids = [f"item-{number}" for number in range(n)]
    index = ItemIndex(ids)
    keys = np.array([key_of(item_id) for item_id in ids], np.uint64)
    np.testing.assert_array_equal(index.tokens(keys), np.arange(n))
    known = set(keys.tolist())
    foreign = np.array([key for key in [0, 2**64 - 1, *strangers] if key not in known], np.uint64)
    assert (index.tokens(foreign) == n).all()


def test_the_shape_is_kept() -> None:
    index = ItemIndex(["a", "b", "c"])
    keys = np.array([[key_of("b"), 0], [key_of("x"), key_of("c")]], np.uint64)
    assert index.tokens(keys).tolist() == [[1, 3], [3, 2]]


def test_one_id_twice_is_refused() -> None:
    with pytest.raises(ArtifactError, match="train again"):
        ItemIndex(["a", "b", "a"])
