"""What one event weighs."""

from math import log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.errors import StateError
from state.weights import (
    DEFAULT_WEIGHTS,
    DISLIKE,
    EVENT_TYPES,
    LOW_RATING,
    MAX_ATTENTION,
    MAX_SIZE,
    MIN_ATTENTION,
    NEGATIVE_TYPES,
    PURCHASE,
    RATING,
    STRENGTH,
    TYPE_CODES,
    WeightSettings,
    kind_of,
    weigh,
)

DEFAULT = WeightSettings()
EUROS = WeightSettings(value_usual=20.0)
VIEW, CLICK = TYPE_CODES["view"], TYPE_CODES["click"]
SIZED = [TYPE_CODES[name] for name in ("purchase", "add_to_cart", "remove_from_cart")]

codes = st.integers(0, len(EVENT_TYPES) - 1)
quantities = st.none() | st.floats(0, 1e6)
values = st.none() | st.floats(-1e12, 1e12)
dwells = st.none() | st.integers(0, 10**10)
strengths = st.floats(0, 1)
weight_settings = st.builds(
    WeightSettings,
    size_strength=strengths,
    value_usual=st.just(0.0) | st.floats(1e-3, 1e6),
    value_strength=strengths,
    dwell_usual_ms=st.integers(1, 10**7),
    dwell_strength=strengths,
    rating_min=st.floats(-10, 0),
    rating_neutral=st.floats(1, 5),
    rating_max=st.floats(6, 100),
)


def test_the_codes_of_event_types_never_change() -> None:
    # States and artifacts hold them. A new type goes to the end.
    assert EVENT_TYPES[:11] == (
        "impression",
        "view",
        "click",
        "add_to_cart",
        "remove_from_cart",
        "purchase",
        "like",
        "dislike",
        "hide",
        "rating",
        "session_start",
    )


def test_weights_rise_with_commitment_and_cover_every_type() -> None:
    assert set(DEFAULT_WEIGHTS) == set(EVENT_TYPES)
    rising = ["impression", "view", "click", "like", "add_to_cart", "purchase"]
    weights = [DEFAULT_WEIGHTS[name] for name in rising]
    assert weights == sorted(set(weights))
    assert {TYPE_CODES[name] for name, weight in DEFAULT_WEIGHTS.items() if weight < 0} == NEGATIVE_TYPES
    assert DEFAULT_WEIGHTS["session_start"] == 0.0


def test_strength_orders_types_and_takes_any_byte() -> None:
    assert STRENGTH[TYPE_CODES["purchase"]] == max(STRENGTH)
    assert STRENGTH[TYPE_CODES["click"]] > STRENGTH[TYPE_CODES["view"]]
    assert len(STRENGTH) == 256


class TestWeigh:
    @pytest.mark.parametrize("name", EVENT_TYPES)
    def test_an_event_that_tells_nothing_weighs_its_type(self, name: str) -> None:
        assert weigh(TYPE_CODES[name], None, None, None, EUROS) == DEFAULT_WEIGHTS[name]

    def test_one_piece_at_the_usual_price_and_the_usual_time_are_neutral(self) -> None:
        assert weigh(PURCHASE, 1, None, None, EUROS) == 8.0
        assert weigh(PURCHASE, None, 20.0, None, EUROS) == 8.0
        assert weigh(PURCHASE, 1, 20.0, None, EUROS) == 8.0
        assert weigh(VIEW, None, None, DEFAULT.dwell_usual_ms, DEFAULT) == 1.0

    def test_the_size_of_an_order_is_counted_once(self) -> None:
        by_quantity = weigh(PURCHASE, 4, None, None, EUROS)
        assert by_quantity == 8.0 * log2(5)
        assert weigh(PURCHASE, 4, 80.0, None, EUROS) == pytest.approx(by_quantity)
        assert weigh(PURCHASE, 3, None, None, EUROS) == 16.0

    def test_dearer_pieces_weigh_more_and_free_ones_something(self) -> None:
        dear, usual, free = (weigh(PURCHASE, 1, value, None, EUROS) for value in (100.0, 20.0, 0.0))
        assert dear > usual > free > 0.0
        assert weigh(PURCHASE, 1, -5.0, None, EUROS) == free

    def test_without_a_usual_value_the_currency_cannot_matter(self) -> None:
        assert weigh(PURCHASE, None, 50_000.0, None, DEFAULT) == 8.0

    def test_nothing_bought_says_nothing(self) -> None:
        assert weigh(PURCHASE, 0, None, None, DEFAULT) == 0.0

    def test_taking_out_of_the_cart_takes_back_what_was_put_in(self) -> None:
        put, taken = (weigh(TYPE_CODES[name], 3, 50.0, None, EUROS) for name in ("add_to_cart", "remove_from_cart"))
        assert put == -taken == 4.0 * weigh(PURCHASE, 3, 50.0, None, EUROS) / 8.0

    def test_a_glance_weighs_less_and_a_long_stay_more(self) -> None:
        glance, minutes, hours = (weigh(VIEW, None, None, ms, DEFAULT) for ms in (0, 120_000, 10**8))
        assert (glance, minutes, hours) == (MIN_ATTENTION, log2(5), MAX_ATTENTION)

    def test_fields_count_only_where_they_mean_interest(self) -> None:
        # GA4 sends the engagement time with a purchase, and the price as value of a view.
        assert weigh(PURCHASE, None, None, 600_000, EUROS) == 8.0
        assert weigh(VIEW, 5, 900.0, None, EUROS) == 1.0
        assert weigh(TYPE_CODES["like"], 5, 900.0, 600_000, EUROS) == 3.0

    @pytest.mark.parametrize(("stars", "factor"), [(1, -2.0), (2, -2 / 3), (2.5, 0.0), (3, 0.2), (4, 0.6), (5, 1.0)])
    def test_stars(self, stars: float, factor: float) -> None:
        assert weigh(RATING, None, stars, None, DEFAULT) == pytest.approx(3.0 * factor)

    def test_all_stars_are_a_like_and_the_fewest_a_dislike(self) -> None:
        assert weigh(RATING, None, 5, None, DEFAULT) == DEFAULT_WEIGHTS["like"]
        assert weigh(RATING, None, 1, None, DEFAULT) == DEFAULT_WEIGHTS["dislike"]
        assert weigh(RATING, None, 900, None, DEFAULT) == DEFAULT_WEIGHTS["like"]
        assert weigh(RATING, None, -9, None, DEFAULT) == DEFAULT_WEIGHTS["dislike"]

    def test_another_scale_of_stars(self) -> None:
        thumbs = WeightSettings(rating_min=0.0, rating_neutral=0.5, rating_max=1.0)
        assert [weigh(RATING, None, thumb, None, thumbs) for thumb in (0, 1)] == [-6.0, 3.0]

    def test_strengths_of_nothing_switch_scaling_off(self) -> None:
        off = WeightSettings(size_strength=0.0, dwell_strength=0.0, value_usual=20.0)
        assert weigh(PURCHASE, 30, 5.0, None, off) == 8.0
        assert weigh(VIEW, None, None, 10**6, off) == 1.0

    def test_with_the_value_alone_the_quantity_changes_nothing_and_the_other_way_round(self) -> None:
        value, quantity = (WeightSettings(value_usual=20.0, value_strength=share) for share in (1.0, 0.0))
        assert weigh(PURCHASE, 9, 40.0, None, value) == weigh(PURCHASE, 1, 40.0, None, value)
        assert weigh(PURCHASE, 9, 40.0, None, quantity) == weigh(PURCHASE, 9, 400.0, None, quantity)

    @given(codes, quantities, values, dwells, weight_settings)
    def test_is_bounded_and_keeps_its_sign_but_for_low_ratings(
        self, code: int, quantity: float | None, value: float | None, dwell_ms: int | None, settings: WeightSettings
    ) -> None:
        base = settings.base[code]
        weight = weigh(code, quantity, value, dwell_ms, settings)
        assert abs(weight) <= log2(1 + MAX_SIZE) * abs(base)
        if code == RATING:
            assert -LOW_RATING * base <= weight <= base
        else:
            assert weight * base >= 0.0

    @given(codes, quantities, values, dwells, weight_settings, st.integers(0, 2), st.floats(0, 1e6))
    def test_rises_with_each_of_its_arguments(
        self,
        code: int,
        quantity: float | None,
        value: float | None,
        dwell_ms: int | None,
        settings: WeightSettings,
        which: int,
        more: float,
    ) -> None:
        told: list[float | None] = [quantity, value, dwell_ms]
        before = weigh(code, *told, settings) * (-1.0 if code in NEGATIVE_TYPES else 1.0)
        if told[which] is None:
            return
        told[which] = (told[which] or 0.0) + more
        after = weigh(code, *told, settings) * (-1.0 if code in NEGATIVE_TYPES else 1.0)
        assert after >= before - 1e-9

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"base": (1.0,)}, "has 1 types"),
            ({"size_strength": 1.5}, "weights.size_strength is 1.5; set it from 0 to 1"),
            ({"value_usual": -1.0}, "weights.value_usual is -1.0"),
            ({"dwell_usual_ms": 0}, "weights.dwell_usual_ms is 0"),
            ({"rating_neutral": 5.0}, "set each above the one before"),
        ],
    )
    def test_settings_that_cannot_work_are_refused(self, changes: dict[str, object], told: str) -> None:
        with pytest.raises(StateError, match=told):
            WeightSettings(**changes)  # type: ignore[arg-type]  # a table of tests


def test_a_low_rating_is_kept_as_a_dislike() -> None:
    assert kind_of(RATING, -0.1) == DISLIKE
    assert kind_of(RATING, 0.0) == kind_of(RATING, 2.0) == RATING
    assert kind_of(TYPE_CODES["hide"], -20.0) == TYPE_CODES["hide"]
