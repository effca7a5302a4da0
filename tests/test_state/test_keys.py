from hypothesis import given
from hypothesis import strategies as st

from state.keys import NO_ITEM, key_of


def test_a_key_never_changes() -> None:
    # States in changelogs hold these numbers: a change would orphan all of them.
    assert key_of("item-1") == 8_406_168_460_641_299_428
    assert key_of("") == 3_797_230_976_420_062_948


@given(st.text())
def test_a_key_fits_a_signed_64_bit_integer_and_is_never_no_item(text: str) -> None:
    assert NO_ITEM < key_of(text) < 2**63


def test_half_a_surrogate_pair_has_a_key() -> None:
    assert key_of("\ud800") != key_of("?")
