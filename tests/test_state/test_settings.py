import numpy as np
import pytest

from state.errors import StateError
from state.settings import StateSettings
from state.weights import TYPE_CODES
from state.window import Window, WindowSettings

NUMBERS = ["recent_items", "max_counted_items", "event_id_ring", "session_gap_s", "count_half_life_s"]


@pytest.mark.parametrize("name", NUMBERS)
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


class TestByType:
    def test_half_lives_by_code_are_those_given_and_else_that_of_all(self) -> None:
        settings = StateSettings(count_half_life_s=100, count_half_lives_s={"view": 7, "purchase": 900})
        types = np.array([TYPE_CODES["view"], TYPE_CODES["like"], TYPE_CODES["purchase"], 255], np.uint8)
        assert np.array_equal(settings.half_life_of(types), [7.0, 100.0, 900.0, 100.0])
        assert settings.shortest_half_life_s == 7

    @pytest.mark.parametrize("given", [{}, {"view": 100, "like": 100}])
    def test_half_lives_of_one_length_are_none_of_their_own(self, given: dict[str, int]) -> None:
        settings = StateSettings(count_half_life_s=100, count_half_lives_s=given)
        assert settings.half_lives_s == ()
        assert settings.half_life_of(np.zeros(3, np.uint8)) == settings.shortest_half_life_s == 100

    def test_a_type_reaches_to_its_last_window(self) -> None:
        settings = StateSettings(last_window={"impression": "session", "view": "day", "purchase": "month"})
        reach = {name: settings.reaches[code] for name, code in TYPE_CODES.items()}
        assert (reach["impression"], reach["view"], reach["purchase"], reach["like"]) == (0, 1, 3, 3)
        assert settings.reaches[255] == 3

    def test_of_many_windows_the_first_three_and_the_last_can_be_named(self) -> None:
        windows = WindowSettings(tuple(Window(f"w{n}", 60 * 2**n, 60 * 2**n, cells=2) for n in range(5)), grace_s=0)
        reaches = [StateSettings(windows=windows, last_window={"view": f"w{n}"}).reaches[1] for n in (0, 1, 2, 4)]
        assert reaches == [0, 1, 2, 3]
        with pytest.raises(StateError, match="set it to w0 or w1 or w2 or w4"):
            StateSettings(windows=windows, last_window={"view": "w3"})

    @pytest.mark.parametrize(
        ("setting", "value", "told"),
        [
            ("count_half_lives_s", {"view": 0}, r"state\.count_half_lives_s\.view is 0; set it to 1 or more"),
            ("count_half_lives_s", {"look": 5}, "names 'look', which is no event type; there are: impression"),
            ("last_window", {"look": "day"}, "names 'look', which is no event type; there are: impression"),
            ("last_window", {"view": "week"}, r"state\.last_window\.view is 'week'; set it to session or day or month"),
        ],
    )
    def test_what_cannot_work_is_refused(self, setting: str, value: dict[str, int], told: str) -> None:
        with pytest.raises(StateError, match=told):
            StateSettings(**{setting: value})


class TestInterests:
    def test_properties_are_those_named(self) -> None:
        fields = ("brand", "properties.color", "category", "properties.size-eu")
        assert StateSettings(interests=fields).interest_properties == ("color", "size-eu")

    @pytest.mark.parametrize(
        "fields",
        [
            (),
            ("name",),
            ("properties",),
            ("properties.",),
            ("properties.a b",),
            ("properties." + "x" * 33,),
            ("brand", "brand"),
            ("brand", "properties.brand"),
            tuple(f"properties.p{n}" for n in range(9)),
        ],
    )
    def test_what_is_no_field_or_named_twice_is_refused(self, fields: tuple[str, ...]) -> None:
        with pytest.raises(StateError, match=r"state\.interests"):
            StateSettings(interests=fields)
