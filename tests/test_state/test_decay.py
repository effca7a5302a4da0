import math

import pytest

from state.decay import MAX_WEIGHT, bounded_weight, growth


def test_a_weight_halves_in_a_half_life() -> None:
    # An amount entered at t=100 and read at t=200, with a half-life of 100 s.
    assert growth(100, 0, 100) * growth(0, 200, 100) == pytest.approx(0.5)


def test_the_reference_time_does_not_matter() -> None:
    values = [growth(100, ref, 30) * growth(ref, 160, 30) for ref in (-500, 0, 100, 160)]
    assert values == pytest.approx([0.25] * 4)


def test_the_far_past_is_zero_and_no_error() -> None:
    assert growth(0, 4e9, 1) == 0.0


@pytest.mark.parametrize(
    ("weight", "held"),
    [(2.5, 2.5), (-3.0, -3.0), (math.nan, 0.0), (math.inf, MAX_WEIGHT), (-math.inf, -MAX_WEIGHT), (1e9, MAX_WEIGHT)],
)
def test_weights_are_held_within_bounds(weight: float, held: float) -> None:
    assert bounded_weight(weight) == held


def test_times_that_only_a_damaged_state_has_are_no_error() -> None:
    assert growth(2.0**50, 0.0, 86_400) == 2.0**1000
    assert growth(0.0, 2.0**50, 86_400) == 0.0
