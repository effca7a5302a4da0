"""The sweep over a store, in small steps.

newest event of    a: 0    b: 50    c: 200        watermark 250, expire after 100: a and b are expired
"""

import pytest

from state.codec import encode_state
from state.expiry import IdleSweep
from state.interest import InterestState
from state.store import MemoryStore


def _store(**newest_ms: int) -> MemoryStore:
    store = MemoryStore()
    values = [(name.encode(), encode_state(InterestState(last_time_ms=at))) for name, at in newest_ms.items()]
    store.write([*values, (b"\0trend", b"no state"), (b"\0watermark", b"no state")], None)
    return store


def test_the_expired_are_found_and_no_others() -> None:
    store = _store(a=0, b=50, c=200)
    assert IdleSweep(100).step(store.scan, 250, 10) == [b"a", b"b"]


def test_exactly_as_long_is_not_longer() -> None:
    assert IdleSweep(100).step(_store(a=150, b=149).scan, 250, 10) == [b"b"]


def test_a_step_reads_no_more_than_it_may_and_the_next_goes_on_there() -> None:
    store = _store(a=0, b=0, c=0, d=0, e=0)
    sweep = IdleSweep(100)
    assert [sweep.step(store.scan, 250, 2) for _ in range(4)] == [[b"a", b"b"], [b"c", b"d"], [b"e"], []]


def test_between_two_passes_there_is_a_rest() -> None:
    store = _store(a=1_000)
    sweep = IdleSweep(160)
    assert sweep.step(store.scan, 1_100, 10) == []
    store.write([(b"b", encode_state(InterestState(last_time_ms=0)))], None)
    assert sweep.step(store.scan, 1_109, 10) == []  # a sixteenth of 160 is not over
    assert sweep.step(store.scan, 1_110, 10) == [b"b"]


def test_users_who_are_busy_are_left_alone() -> None:
    assert IdleSweep(100).step(_store(a=0, b=0).scan, 250, 10, busy={b"a"}) == [b"b"]


def test_what_is_no_state_stays() -> None:
    store = _store(b=0)
    store.write([(b"a", b"\xff\xff")], None)
    assert IdleSweep(100).step(store.scan, 250, 10) == [b"b"]


def test_a_time_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        IdleSweep(0)
