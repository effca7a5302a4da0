from hypothesis import given
from hypothesis import strategies as st

from state.keys import NO_ITEM, key_of, payload_key, session_key, split_user_key, user_key


def test_a_key_never_changes() -> None:
    # States in changelogs hold these numbers: a change would orphan all of them.
    assert key_of("item-1") == 8_406_168_460_641_299_428
    assert key_of("") == 3_797_230_976_420_062_948


@given(st.text())
def test_a_key_fits_a_signed_64_bit_integer_and_is_never_no_item(text: str) -> None:
    assert NO_ITEM < key_of(text) < 2**63


def test_half_a_surrogate_pair_has_a_key() -> None:
    assert key_of("\ud800") != key_of("?")


def test_the_key_of_a_session_is_that_of_its_text() -> None:
    assert session_key("s1") == key_of("s1")


class TestPayloadKey:
    def test_never_changes(self) -> None:
        # Rings of ids in states hold them: a change would turn what is sent twice into conflicts.
        assert payload_key(1, 1_767_323_045_123, (key_of("item-1"),)) == 4444
        assert payload_key(5, 1_767_323_045_123, (key_of("a"), key_of("b")), None, 12.5) == 21683
        assert payload_key(10, 1_767_323_045_123, ()) == 37397

    @given(st.integers(0, 255), st.integers(0, 2**45), st.lists(st.integers(1, 2**63 - 1)).map(tuple))
    def test_is_16_bits_and_never_not_known(self, kind: int, time_ms: int, items: tuple[int, ...]) -> None:
        assert 0 < payload_key(kind, time_ms, items) < 2**16

    def test_tells_what_differs(self) -> None:
        item, other = key_of("a"), key_of("b")
        keys = [
            payload_key(1, 1000, (item,)),
            payload_key(2, 1000, (item,)),
            payload_key(1, 1001, (item,)),
            payload_key(1, 1000, (other,)),
            payload_key(1, 1000, ()),
            payload_key(1, 1000, (item, other)),
            payload_key(1, 1000, (other, item)),
            payload_key(1, 1000, (item,), 1.0),
            payload_key(1, 1000, (item,), None, 1.0),
            payload_key(1, 1000, (item,), None, None, 1),
            payload_key(1, 1000, (item,), 0.0),
            payload_key(1, 1000, (item,), None, 0.0),
            payload_key(1, 1000, (item,), None, None, 0),
        ]
        assert len(set(keys)) == len(keys)

    def test_is_spread_evenly_over_what_differs_little(self) -> None:
        # Events of one id and item, a millisecond or a type apart: as many of one key as chance allows.
        found = {payload_key(kind, time_ms, (7,)) for kind in range(8) for time_ms in range(10**12, 10**12 + 1000)}
        assert 7000 < len(found) < 8000


class TestUserKey:
    def test_without_a_tenant_it_is_the_user(self) -> None:
        # For ever: the key of every record and state so far.
        assert user_key("u1") == b"u1"
        assert user_key("Zoë/1\x00") == "Zoë/1\x00".encode()
        assert split_user_key(b"u1") == ("u1", "")

    def test_with_a_tenant(self) -> None:
        assert user_key("u1", "acme") == b"acme\x1fu1"
        assert split_user_key(b"acme\x1fu1") == ("u1", "acme")

    _parts = st.text(st.characters(exclude_characters="\x1f", exclude_categories=["Cs"]))

    @given(_parts, _parts, _parts, _parts)
    def test_two_users_have_two_keys(self, user: str, tenant: str, other: str, others: str) -> None:
        assert (user_key(user, tenant) == user_key(other, others)) == ((user, tenant) == (other, others))
        assert split_user_key(user_key(user, tenant)) == (user, tenant)

    def test_bytes_of_anything_can_be_shown(self) -> None:
        assert split_user_key(b"\xff") == ("\ufffd", "")
