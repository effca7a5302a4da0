import json
from contextlib import ExitStack
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.codec import VERSION, decode_state, encode_state
from state.errors import StateCorruptError
from state.interaction import Interaction
from state.interest import VECTOR_DTYPE, InterestState
from state.settings import StateSettings
from state.window import interest_key

SETTINGS = StateSettings(recent_items=6, max_counted_items=4, event_id_ring=3)

events = st.lists(
    st.builds(
        Interaction,
        event=st.integers(1, 50),
        type=st.integers(0, 10),
        time_ms=st.integers(0, 2**45),
        items=st.tuples(st.integers(1, 2**63 - 1)),
        interests=st.tuples(st.text(max_size=8).map(interest_key)),
        weight=st.floats(-10, 10),
        offset=st.integers(0, 2**50),
    ),
    max_size=20,
)


def a_state() -> InterestState:
    state = InterestState(vector=bytes(16), vector_model=5)
    for number in range(1, 9):
        state.apply(
            Interaction(number, 1, 10**12 + number, (number,), (interest_key(f"c{number}"),), 1.0, number), SETTINGS
        )
    return state


@given(events, st.binary(max_size=64).map(lambda b: b[: len(b) // 2 * 2]), st.integers(0, 2**32 - 1))
def test_a_state_comes_back_as_it_was(log: list[Interaction], vector: bytes, model: int) -> None:
    state = InterestState(vector=vector, vector_model=model)
    for one in log:
        state.apply(one, SETTINGS)
    again = decode_state(encode_state(state))
    assert again == state
    assert encode_state(again) == encode_state(state)


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda b: bytes([VERSION]) + b))
def test_random_bytes_are_refused_or_are_a_state(data: bytes) -> None:
    """A version and an empty list are a state: an older one has fewer fields."""
    with ExitStack() as refused:
        refused.enter_context(pytest.raises(StateCorruptError, match="delete its data folder"))
        state = decode_state(data)
        refused.pop_all()
        assert decode_state(encode_state(state)) == state


@given(st.data())
def test_damage_is_refused_or_harmless(data: st.DataObject) -> None:
    good = bytearray(encode_state(a_state()))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(1, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        state = decode_state(bytes(good))
    except StateCorruptError:
        return
    # What was let through can be used like any state.
    state.apply(Interaction(99, 5, 10**12, (1, 77), (interest_key("c1"), interest_key("new")), 2.0, 1), SETTINGS)
    state.recent_items()
    state.session_items()
    state.counted_items(SETTINGS)
    SETTINGS.windowing.views([state.windows], state.last_time_ms // 1000)
    assert decode_state(encode_state(state)) is not None


def test_another_version_is_refused_by_name() -> None:
    with pytest.raises(StateCorruptError, match="found version 9"):
        decode_state(bytes([9]) + encode_state(a_state())[1:])
    with pytest.raises(StateCorruptError, match="found nothing"):
        decode_state(b"")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ids", b"123"),
        ("recent", b"1"),
        ("session_length", 50),
        ("count_keys", b"12345678"),
        ("count_values", b"1"),
        ("windows", b"\1"),
        ("windows", bytes(40)),
        ("windows", b"\1\2" + bytes(22)),
        ("vector", b"123"),
        ("events_applied", -1),
        ("last_time_ms", 2**60),
        ("vector_model", -4),
    ],
)
def test_lists_that_do_not_fit_each_other_are_refused(field: str, value: object) -> None:
    damaged = msgspec.structs.replace(a_state(), **{field: value})
    with pytest.raises(StateCorruptError):
        decode_state(encode_state(damaged))


GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("state-v*.json"))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_states_of_every_version_load_for_ever(path: Path) -> None:
    settings = StateSettings(recent_items=8, max_counted_items=6, event_id_ring=4)
    for golden in json.loads(path.read_text()):
        state = decode_state(bytes.fromhex(golden["bytes"]))
        for name in ("events_applied", "last_offset", "last_time_ms", "session_start_ms", "session_length"):
            assert getattr(state, name) == golden[name]
        assert [[item.key, item.type] for item in state.recent_items()] == golden["recent"]
        counted = [[item.key, item.count, item.time_s, item.type] for item in state.counted_items(settings)]
        assert counted == golden["counted"]
        weights = settings.windowing.view(state.windows, state.last_time_ms // 1000)
        for name, *expected in golden["interests"]:
            assert weights.pop(interest_key(name)) == pytest.approx(expected, abs=1 / 16)
        assert weights == {}
        vector = np.frombuffer(state.vector, VECTOR_DTYPE).astype(np.float64)
        np.testing.assert_allclose(vector, golden["vector"], rtol=1e-3)
        assert state.vector_model == golden["vector_model"]
        # Every id is still known, and what is written now is read as the newest version.
        for event in golden["event_ids"]:
            assert not state.apply(Interaction(event, 1, 0, (), (), 1.0, 0, payload=7), settings)
        again = encode_state(state)
        assert again[0] == VERSION
        assert decode_state(again) == state


def test_there_is_a_golden_file_of_every_version() -> None:
    assert [path.stem for path in GOLDEN] == [f"state-v{version}" for version in range(1, VERSION + 1)]
