import dataclasses

import numpy as np
import pytest

from model.ranking.candidates import Candidates, Fired
from model.ranking.settings import RankingSettings
from model.serving import Serving


def fired_totals(fired: Fired, row: int, width: int) -> dict[int, float]:
    """Token -> share of all that the row's rules give."""
    own = fired.last.rows == row
    tokens = fired.places[own].reshape(-1) - row * width
    return {
        int(token): float(total)
        for token, total in zip(tokens, fired.totals[own].reshape(-1), strict=True)
        if token < 8
    }


@pytest.fixture
def candidates(artifact) -> Candidates:
    return Candidates(artifact, Serving(artifact), RankingSettings(rules_age_decay=0.5))


def test_rules_of_the_last_items_add_up_older_ones_weighing_less(candidates, make_block) -> None:
    block = make_block(["view hammer"], ["view milk", "view bread"], [])
    fired = candidates.rules(block)
    assert fired is not None
    # bread -> butter .5; milk, one item older: bread .6/2, butter .4/2
    assert fired_totals(fired, 1, candidates.width) == pytest.approx({2: 0.7, 1: 0.3})
    assert fired_totals(fired, 0, candidates.width) == pytest.approx({5: 1.0})
    assert fired_totals(fired, 2, candidates.width) == {}
    assert fired.last.tokens[fired.last.rows == 1].tolist() == [1, 0]
    np.testing.assert_allclose(fired.shares[fired.last.rows == 1].sum(), 1.0, rtol=1e-6)


def test_basket_rules_fire_from_the_running_session_only(candidates, make_block) -> None:
    block = make_block(["view bread", "session_start", "view milk"], ["session_start", "view milk", "view bread"])
    fired = candidates.basket(block)
    assert fired is not None
    assert fired_totals(fired, 0, candidates.width) == {}
    assert fired_totals(fired, 1, candidates.width) == pytest.approx({3: 1.0})


def test_a_row_does_not_depend_on_the_others(candidates, make_block) -> None:
    user = ["view milk", "view bread"]
    alone = candidates.rules(make_block(user))
    among = candidates.rules(make_block(["view milk"], ["view hammer"], user))
    assert alone is not None
    assert among is not None
    np.testing.assert_array_equal(alone.totals, among.totals[among.last.rows == 2])


def test_only_the_best_rules_of_an_item_are_used(artifact, make_block) -> None:
    candidates = Candidates(artifact, Serving(artifact), RankingSettings(rules_per_item=1))
    fired = candidates.rules(make_block(["view milk"]))
    assert fired is not None
    assert fired_totals(fired, 0, candidates.width) == pytest.approx({1: 1.0})


def test_a_model_without_rules_fires_none(artifact, make_block) -> None:
    none = np.full((8, 1), -1, np.int32), np.zeros((8, 1), np.float32)
    without = dataclasses.replace(
        artifact, rules_to=none[0], rules_weight=none[1], basket_to=none[0], basket_weight=none[1]
    )
    candidates = Candidates(without, Serving(without), RankingSettings())
    block = make_block(["view milk"])
    assert candidates.rules(block) is None
    assert candidates.basket(block) is None
