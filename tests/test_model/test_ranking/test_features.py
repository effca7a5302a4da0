import numpy as np
import pytest

from model.ranking.candidates import Candidates
from model.ranking.fallback import Popular
from model.ranking.features import FEATURES, FeatureTable
from model.ranking.settings import RankingSettings
from model.serving import BLOCK, Serving

USERS = [
    ["purchase milk", "view drill", "session_start", "view bread", "hide jam"],
    [],
    ["view hammer"],
]


@pytest.fixture
def parts(artifact, make_block):
    candidates = Candidates(artifact, Serving(artifact), RankingSettings(rules_age_decay=0.5))
    block = make_block(*USERS)
    network = np.full((BLOCK, candidates.width), -np.inf, np.float32)
    network[:, :8] = np.random.default_rng(0).standard_normal((BLOCK, 8))
    popular = Popular(np.array([0, 0, 0, 0, 0, 0, 0, 1], np.float32), 3)
    return candidates, block, network, popular


def test_features_are_what_they_say(artifact, parts) -> None:
    candidates, block, network, popular = parts
    table = FeatureTable(8, candidates.width, artifact.popularity, None)
    features = table.fill(block, network, candidates.rules(block), candidates.basket(block), popular)
    assert features.shape == (BLOCK, len(FEATURES), candidates.width)
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
    candidates, block, network, popular = parts
    network[2, :8] = [300, -300, 0, 0, 0, 0, 0, 0]
    table = FeatureTable(8, candidates.width, artifact.popularity, None)
    features = table.fill(block, network, candidates.rules(block), candidates.basket(block), popular)
    assert np.isfinite(features[:, :, :8]).all()
    assert np.abs(features[:, :, :8]).max() <= 4.0


def test_nothing_is_left_of_the_block_before(artifact, parts, make_block) -> None:
    candidates, block, network, popular = parts
    table = FeatureTable(8, candidates.width, artifact.popularity, None)
    table.fill(block, network, candidates.rules(block), candidates.basket(block), popular)
    empty = make_block([])
    again = table.fill(empty, network, candidates.rules(empty), candidates.basket(empty), popular)
    assert not again[0, [0, 1, 2, 4, 5], :8].any()


def test_some_candidates_have_the_features_that_they_have_among_all(artifact, parts) -> None:
    candidates, block, network, popular = parts
    width = candidates.width
    rules, basket = candidates.rules(block), candidates.basket(block)
    whole = FeatureTable(8, width, artifact.popularity, None).fill(block, network, rules, basket, popular)
    tokens = np.random.default_rng(1).permuted(np.tile(np.arange(8), (BLOCK, 1)), axis=1)[:, :5]
    some = FeatureTable(8, width, artifact.popularity, 5).fill(block, network, rules, basket, popular, tokens)
    np.testing.assert_array_equal(some, np.take_along_axis(whole, tokens[:, None, :], axis=2))
