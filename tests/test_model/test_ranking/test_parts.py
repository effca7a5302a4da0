from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from model.ranking.features import FEATURES, PART_OF_FEATURE
from model.ranking.lists import PARTS
from model.ranking.parts import ShapleyParts, shown_parts

LISTED = 5
Blend = list[npt.NDArray[np.float32]]


@pytest.fixture
def blend() -> Blend:
    draw = np.random.default_rng(0)
    shapes: Sequence[tuple[int, ...]] = ((6, len(FEATURES)), (6,), (4, 6), (4,), (1, 4))
    return [draw.standard_normal(shape).astype(np.float32) for shape in shapes]


@pytest.fixture
def features() -> npt.NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal((3, len(FEATURES), LISTED)).astype(np.float32)


def score(blend: Blend, features: npt.NDArray[Any]) -> npt.NDArray[Any]:
    w1, b1, w2, b2, w3 = blend
    hidden = np.maximum(w1 @ features + b1[:, None], 0)
    result: npt.NDArray[Any] = (w3 @ np.maximum(w2 @ hidden + b2[:, None], 0))[0]
    return result


def test_a_part_is_what_it_adds_on_average_over_all_orders_in_which_parts_come(blend, features) -> None:
    """Shapley's other definition, by enumeration of the orders."""
    found = ShapleyParts(PART_OF_FEATURE, blend, LISTED).of(features)
    expected = np.zeros(found.shape)
    orders = list(permutations(range(len(PARTS))))
    for row, own in enumerate(features):
        for order in orders:
            there = np.zeros_like(own)
            for part in order:
                before = score(blend, there)
                of_part = [at for at, name in enumerate(PART_OF_FEATURE) if name == PARTS[part]]
                there[of_part] = own[of_part]
                expected[row, :, part] += (score(blend, there) - before) / len(orders)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_parts_add_up_to_the_score_less_that_of_an_item_of_which_nothing_is_known(blend, features) -> None:
    found = ShapleyParts(PART_OF_FEATURE, blend, LISTED).of(features)
    nothing = score(blend, np.zeros((len(FEATURES), 1)))
    for row, own in enumerate(features):
        np.testing.assert_allclose(found[row].sum(axis=1), score(blend, own) - nothing, atol=1e-5)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_the_network_does_not_read_gives_nothing(blend, features, part: str) -> None:
    of_part = [name == part for name in PART_OF_FEATURE]
    blend[0][:, of_part] = 0.0
    found = ShapleyParts(PART_OF_FEATURE, blend, LISTED).of(features)
    without = np.abs(found).max(axis=(0, 1)) < 1e-5
    assert without.tolist() == [name == part for name in PARTS]


def test_parts_do_not_depend_on_the_other_rows(blend, features) -> None:
    of = ShapleyParts(PART_OF_FEATURE, blend, LISTED).of
    together = of(features)
    assert of(features[::-1])[::-1].tobytes() == together.tobytes()
    assert of(features[1:2]).tobytes() == together[1:2].tobytes()


def test_parts_are_shown_rounded_and_never_as_minus_zero() -> None:
    found = shown_parts(np.array([[1.2345, -0.001], [-2.0, 0.0]], np.float32))
    assert str(found) == "[[1.23, 0.0], [-2.0, 0.0]]"
