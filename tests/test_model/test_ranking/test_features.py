import numpy as np
import pytest

from model.ranking.candidates import Candidates
from model.ranking.fallback import Popular
from model.ranking.features import FEATURES, FeatureTable
from model.ranking.settings import RankingSettings
from model.serving import Serving

USERS = [
    ["purchase milk", "view drill", "session_start", "view bread", "hide jam"],
    [],
    ["view hammer"],
]


@pytest.fixture
def popular():
    return Popular(np.array([0, 0, 0, 0, 0, 0, 0, 1], np.float32), 3)


@pytest.fixture
def parts(artifact, make_block):
    candidates = Candidates(artifact, Serving(artifact), RankingSettings(rules_age_decay=0.5))
    block = make_block(*USERS)
    network = np.full((len(USERS), candidates.width), -np.inf, np.float32)
    network[:, :8] = np.random.default_rng(0).standard_normal((len(USERS), 8))
    return candidates, block, network


def test_features_are_what_they_say(artifact, parts) -> None:
    candidates, block, network = parts
    table = FeatureTable(8, candidates.width, artifact.popularity, None)
    features = table.fill(block, network, candidates.rules(block), candidates.basket(block))
    assert features.shape == (len(USERS), len(FEATURES), candidates.width)
    first = dict(zip(FEATURES, features[0, :, :8], strict=True))
    minute = 2 ** -(60 / 86_400)
    expected = np.log1p([8 * minute**4, 1 * minute, 0, 0, 0, 0, 0, 0])  # jam is below zero
    np.testing.assert_allclose(first["personal_frequency"], expected, rtol=1e-4)
    assert first["seen"].tolist() == [1, 1, 0, 1, 0, 0, 0, 0]
    np.testing.assert_allclose(first["recency"][[0, 1, 3]], 1.0, rtol=1e-3)
    assert first["recency"][2] == 0.0
    log_softmax = network[0, :8] - np.log(np.exp(network[0, :8]).sum())
    np.testing.assert_allclose(first["network"], (log_softmax + np.log(8)) / 5, rtol=1e-4)
    # milk and bread fire: butter and bread; of the session bread alone: jam.
    assert np.flatnonzero(first["rules"]).tolist() == [1, 2]
    assert np.flatnonzero(first["basket_rules"]).tolist() == [3]
    assert first["popularity"].argmax() == 0
    assert first["popularity_7d"].argmax() == 7


def test_features_are_finite_and_scaled(artifact, parts) -> None:
    candidates, block, network = parts
    network[2, :8] = [300, -300, 0, 0, 0, 0, 0, 0]
    table = FeatureTable(8, candidates.width, artifact.popularity, None)
    features = table.fill(block, network, candidates.rules(block), candidates.basket(block))
    assert np.isfinite(features[:, :, :8]).all()
    assert np.abs(features[:, :, :8]).max() <= 4.0


def test_nothing_is_left_of_the_block_before(artifact, parts, make_block) -> None:
    candidates, block, network = parts
    table = FeatureTable(8, candidates.width, artifact.popularity, None)
    table.fill(block, network, candidates.rules(block), candidates.basket(block))
    empty = make_block([])
    again = table.fill(empty, network[:1], candidates.rules(empty), candidates.basket(empty))
    assert not again[0, [0, 1, 2, 4, 5], :8].any()


def test_some_candidates_have_the_features_that_they_have_among_all(artifact, parts) -> None:
    candidates, block, network = parts
    width = candidates.width
    rules, basket = candidates.rules(block), candidates.basket(block)
    whole = FeatureTable(8, width, artifact.popularity, None).fill(block, network, rules, basket)
    tokens = np.random.default_rng(1).permuted(np.tile(np.arange(8), (len(USERS), 1)), axis=1)[:, :5]
    some = FeatureTable(8, width, artifact.popularity, 5).fill(block, network, rules, basket, tokens)
    np.testing.assert_array_equal(some, np.take_along_axis(whole, tokens[:, None, :], axis=2))


def test_each_row_has_the_popularity_of_its_own_partition(artifact, parts, make_block, popular) -> None:
    candidates, block, network = parts
    other = Popular(np.full(8, 1 / 8, np.float32), 3)
    mixed = make_block(*USERS)
    mixed.popular, mixed.popular_of = [popular, other], np.array([1, 0, 1])
    table = FeatureTable(8, candidates.width, artifact.popularity, None)
    at = FEATURES.index("popularity_7d")

    def shares(of) -> np.ndarray:
        return table.fill(of, network, None, None)[:, at, :8].copy()

    alone, both, again = shares(block), shares(mixed), shares(block)
    np.testing.assert_array_equal(alone, again)
    np.testing.assert_array_equal(both[1], alone[1])
    assert np.ptp(both[0]) == np.ptp(both[2]) == 0
