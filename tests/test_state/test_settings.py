import pytest

from state.errors import StateError
from state.settings import StateSettings


@pytest.mark.parametrize("name", [name for name in StateSettings.__struct_fields__ if name != "windows"])
def test_a_value_that_cannot_work_is_refused_by_name(name: str) -> None:
    with pytest.raises(StateError, match=rf"state\.{name} is 0; set it to"):
        StateSettings(**{name: 0})


@pytest.mark.parametrize("name", ["recent_items", "max_counted_items", "event_id_ring"])
def test_a_state_of_megabytes_is_refused(name: str) -> None:
    with pytest.raises(StateError, match=rf"state\.{name} is 1000000; set it to"):
        StateSettings(**{name: 10**6})


def test_the_bound_grows_with_every_list() -> None:
    small = StateSettings().max_state_bytes(1024)
    assert small < 4096
    assert StateSettings().max_state_bytes(2048) == small + 1024
    for name in ("recent_items", "max_counted_items", "event_id_ring"):
        assert StateSettings(**{name: 100}).max_state_bytes(1024) > small
