import numpy as np
import pytest

from model.ranking.fallback import Fallback, Popular, PopularityCache
from model.ranking.index import ItemIndex
from state.keys import key_of
from state.trend import Trend


@pytest.fixture
def trend() -> Trend:
    return Trend(half_life_s=1000.0, refresh_events=2)


def cache(artifact, prior: float) -> PopularityCache:
    return PopularityCache(ItemIndex(artifact.item_ids), artifact.popularity, prior)


def test_without_counts_it_is_the_models_popularity(artifact, trend) -> None:
    popular = cache(artifact, prior=10.0).at(trend)
    np.testing.assert_allclose(popular.share, artifact.popularity, atol=1e-7)
    assert popular.order.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


def test_counts_weigh_against_the_prior(artifact, trend) -> None:
    trend.add(0, key_of("unsold"), weight=10.0, time_ms=0)
    trend.add(0, key_of("no such item"), weight=1000.0, time_ms=0)
    trend.enter(2)
    popular = cache(artifact, prior=10.0).at(trend)
    assert popular.share[7] == pytest.approx(0.5)
    assert popular.share[0] == pytest.approx(0.15)
    assert popular.order[0] == 7


def test_it_is_remade_when_the_snapshot_changes_and_only_then(artifact, trend) -> None:
    made = cache(artifact, prior=10.0)
    first = made.at(trend)
    trend.add(0, key_of("jam"), weight=10.0, time_ms=0)
    assert made.at(trend) is first
    trend.enter(2)
    assert made.at(trend) is not first
    assert made.at(trend) is made.at(trend)


def test_equal_popularity_goes_by_token() -> None:
    popular = Popular(np.full(4, 0.25, np.float32), shown_as_popular=2)
    assert popular.order.tolist() == [0, 1, 2, 3]
    assert popular.is_popular.tolist() == [True, True, False, False, False]


NO_BOOST = np.zeros(8, np.float32)


def test_the_list_is_the_popular_one_without_what_is_hidden(artifact, trend) -> None:
    popular = cache(artifact, prior=1.0).at(trend)
    tokens, scores = Fallback(8, size=3).list_of(popular, NO_BOOST, [np.array([1, 8])])
    assert tokens == [0, 2, 3]
    assert scores == sorted(scores, reverse=True)


def test_interest_raises_a_category(artifact, trend) -> None:
    popular = cache(artifact, prior=1.0).at(trend)
    tools = np.array([0, 0, 0, 0, 1, 1, 1, 0], np.float32)
    tokens, _ = Fallback(8, size=3).list_of(popular, tools, [])
    assert tokens == [4, 5, 6]


def test_the_list_is_never_empty(artifact, trend) -> None:
    popular = cache(artifact, prior=1.0).at(trend)
    tokens, _ = Fallback(8, size=3).list_of(popular, NO_BOOST, [np.arange(9)])
    assert tokens == [0, 1, 2]


def test_what_is_outside_stays_out_even_if_nothing_is_left(artifact, trend) -> None:
    popular = cache(artifact, prior=1.0).at(trend)
    outside = np.zeros(8, np.bool_)
    outside[0] = True
    assert Fallback(8, size=3).list_of(popular, NO_BOOST, [np.arange(9)], outside)[0] == [1, 2, 3]
    assert Fallback(8, size=3).list_of(popular, NO_BOOST, [], np.ones(8, np.bool_)) == ([], [])
