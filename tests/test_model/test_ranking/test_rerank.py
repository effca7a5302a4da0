import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.artifact import Artifact, untrained_artifact
from model.errors import ArtifactError
from model.ranking import rerank
from model.ranking.block import Block
from model.ranking.candidates import EPSILON, Candidates
from model.ranking.explain import Explainer
from model.ranking.fallback import Popular
from model.ranking.features import FEATURES
from model.ranking.index import ItemIndex
from model.ranking.lists import PARTS
from model.ranking.rerank import LearntBlend, LearntInputs, LogLinear, TopItems
from model.ranking.settings import RankingSettings
from model.serving import BLOCK, LANES, Serving
from state.settings import StateSettings

USERS = [["view milk", "purchase bread"], [], ["view hammer", "view drill"]]


def a_blend(seed: int = 0) -> dict[str, npt.NDArray[Any]]:
    draw = np.random.default_rng(seed)
    shapes = {"w1": (6, len(FEATURES)), "b1": (6,), "w2": (4, 6), "b2": (4,), "w3": (1, 4)}
    return {name: draw.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def popular_of(artifact: Artifact) -> Popular:
    return Popular(artifact.popularity, 3)


# --- log-linear


def test_the_log_linear_blend_orders_as_the_formula_does(artifact, make_block) -> None:
    """Against the formula written out, constants and all: scores differ by a constant a user."""
    draw = np.random.default_rng(0)
    artifact = dataclasses.replace(
        artifact,
        item_matrix=draw.standard_normal((8, artifact.dim)).astype(np.float32),
        item_bias=draw.standard_normal(8).astype(np.float32),
    )
    ranking = RankingSettings(
        exclude="none", network_weight=0.7, basket_weight=0.4, rules_age_decay=0.5, popularity_weight=0.3
    )
    serving = Serving(artifact)
    candidates = Candidates(artifact, serving, ranking)
    block = make_block(*USERS)
    vectors = draw.standard_normal((3, artifact.state_size)).astype(np.float16).astype(np.float32)
    for request, vector in zip(block.requests, vectors, strict=True):
        request.state.vector = vector.astype(np.float16).tobytes()
    scores = next(LogLinear(candidates, ranking).score(block).tiles)

    queries = vectors[:, -artifact.dim :]  # what the network's query reads
    network = queries @ artifact.item_matrix.T + artifact.item_bias
    rules, basket, counts = np.zeros((3, 8)), np.zeros((3, 8)), np.zeros((3, 8))
    rules[0, [1, 2]] = np.array([0.3, 0.2 + 0.5])  # bread -> butter .5; milk, an item older: .6/2 and .4/2
    basket[0, 3] = 1.0
    rules[2, 5] = 1.0
    counts[0, :2] = [1.0, 8.0]
    counts[2, 4] = 1.0
    expected = (
        0.7 * (network - np.log(np.exp(network).sum(axis=1, keepdims=True)))
        + np.log(rules + EPSILON)
        + 0.4 * np.log(basket + EPSILON)
        + np.log1p(counts)
        + 0.3 * np.log(artifact.popularity * 8 + 0.01)
    )
    got = scores[:3, :8]
    difference = got - expected
    np.testing.assert_allclose(difference - difference.mean(axis=1, keepdims=True), 0.0, atol=2e-3)
    assert (scores[:, 8:] == -np.inf).all()


def test_without_the_network_the_rest_decides(artifact, make_block) -> None:
    ranking = RankingSettings(network_weight=0.0)
    candidates = Candidates(artifact, Serving(artifact), ranking)
    scores = next(LogLinear(candidates, ranking).score(make_block([])).tiles)[0]
    assert np.argsort(-scores[:8], kind="stable").tolist() == list(range(8))  # by popularity
    assert (scores[8:] == -np.inf).all()


def test_a_weight_of_zero_saves_the_rules(artifact, make_block) -> None:
    candidates = Candidates(artifact, Serving(artifact), RankingSettings())
    scores = LogLinear(candidates, RankingSettings(rules_weight=0.0)).score(make_block(*USERS))
    assert scores.rules is None
    assert scores.basket is None


def listed_parts(scorer: LogLinear | LearntBlend, block: Block, tokens: list[int]) -> tuple[Any, Any]:
    """Scores [B, L] of the same tokens for each row, and their parts [B, L, P]."""
    scores = scorer.score(block)
    values = next(scores.tiles)
    listed = np.tile(np.array(tokens, np.int64), (block.rows, 1))
    best = np.take_along_axis(values[: block.rows], listed, axis=1)
    lowest = np.full(block.rows, -np.inf, np.float32)
    explainer = Explainer(untrained_artifact([f"i{k}" for k in range(8)]), StateSettings(), values.shape[1])
    hits = explainer.find(block, 0, values, listed, lowest, scores, personal=True)
    return best, scorer.parts(block, listed, best, scores, hits)


def test_the_log_linear_parts_are_its_terms(artifact, make_block) -> None:
    draw = np.random.default_rng(0)
    artifact = dataclasses.replace(artifact, item_bias=draw.standard_normal(8).astype(np.float32))
    ranking = RankingSettings(
        network_weight=0.7,
        basket_weight=0.4,
        personal_weight=2.0,
        popularity_weight=0.3,
        rules_age_decay=0.5,
        exclude="none",
    )
    scorer = LogLinear(Candidates(artifact, Serving(artifact), ranking), ranking)
    block = make_block(*USERS, ["view jam", "view milk"])
    # The last user's partition has another taste.
    other = Popular(artifact.popularity[::-1].copy(), 3)
    block.popular, block.popular_of = [popular_of(artifact), other], np.array([0, 0, 0, 1])
    best, parts = listed_parts(scorer, block, [2, 1, 3, 7])
    np.testing.assert_allclose(parts.sum(axis=2), best, atol=1e-4)
    network, rules, personal, popularity = parts[0].T
    np.testing.assert_allclose(network, 0.7 * artifact.item_bias[[2, 1, 3, 7]], atol=1e-4)
    # Bread -> butter .5; milk, an item older: .6/2 to bread and .4/2 to butter. Baskets: bread + jam.
    expected = [np.log1p(0.7 / EPSILON), np.log1p(0.3 / EPSILON), 0.4 * np.log1p(1.0 / EPSILON), 0.0]
    np.testing.assert_allclose(rules, expected, rtol=1e-5)
    np.testing.assert_allclose(personal, [0.0, 2.0 * np.log1p(8.0), 0.0, 0.0], rtol=1e-5)
    np.testing.assert_allclose(popularity, 0.3 * np.log(artifact.popularity[[2, 1, 3, 7]] * 8 + 0.01), rtol=1e-5)
    _, rules, _, popularity = parts[3].T
    np.testing.assert_allclose(popularity, 0.3 * np.log(other.share[[2, 1, 3, 7]] * 8 + 0.01), rtol=1e-5)
    # Bread follows milk, and is in baskets with jam.
    assert rules[1] == pytest.approx(np.log1p(0.6 / EPSILON) + 0.4 * np.log1p(1.0 / EPSILON), rel=1e-5)


@pytest.mark.parametrize(
    ("weights", "part"),
    [
        (("network_weight",), "network"),
        (("rules_weight", "basket_weight"), "rules"),
        (("personal_weight",), "personal"),
        (("popularity_weight",), "popularity"),
    ],
)
def test_a_part_of_no_weight_gives_nothing(artifact, make_block, weights: tuple[str, ...], part: str) -> None:
    artifact = dataclasses.replace(artifact, item_bias=np.arange(8, dtype=np.float32))
    for change in ({}, dict.fromkeys(weights, 0.0)):
        ranking = RankingSettings(**{"basket_weight": 0.5, "exclude": "none", **change})
        scorer = LogLinear(Candidates(artifact, Serving(artifact), ranking), ranking)
        _, parts = listed_parts(scorer, make_block(*USERS), [2, 1, 3, 7])
        assert bool(np.abs(parts[..., PARTS.index(part)]).max() < 1e-5) == bool(change)


# --- learnt


def by_hand(blend: dict[str, npt.NDArray[Any]], features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    hidden = np.maximum(blend["w1"] @ features + blend["b1"][:, None], 0)
    hidden = np.maximum(blend["w2"] @ hidden + blend["b2"][:, None], 0)
    return (blend["w3"] @ hidden)[0]


def test_the_learnt_blend_is_its_network_over_the_features(artifact, make_block) -> None:
    artifact = dataclasses.replace(artifact, blend=a_blend())
    candidates = Candidates(artifact, Serving(artifact), RankingSettings())
    block = make_block(*USERS)
    scores = next(LearntBlend(candidates, artifact, RankingSettings()).score(block).tiles)
    features, tokens, _, _ = LearntInputs(candidates, artifact, RankingSettings()).of(block)
    assert tokens is None
    for row in range(3):
        np.testing.assert_allclose(scores[row, :8], by_hand(a_blend(), features[row, :, :8]), rtol=1e-4)
    assert (scores[:, 8:] == -np.inf).all()


def test_of_a_large_catalogue_the_best_candidates_are_scored(monkeypatch, artifact, make_block) -> None:
    monkeypatch.setattr(rerank, "ALL_ITEMS_UP_TO", 7)
    monkeypatch.setattr(rerank, "CANDIDATES", 3)
    ranking = RankingSettings()
    artifact = dataclasses.replace(artifact, blend=a_blend())
    candidates = Candidates(artifact, Serving(artifact), ranking)
    block = make_block(*USERS)
    some = next(LearntBlend(candidates, artifact, ranking).score(block).tiles)
    monkeypatch.setattr(rerank, "ALL_ITEMS_UP_TO", 8)
    whole = next(LearntBlend(candidates, artifact, ranking).score(block).tiles)
    assert (np.isfinite(some[:3]).sum(axis=1) == 3).all()
    np.testing.assert_allclose(some[np.isfinite(some)][:9], whole[np.isfinite(some)][:9], rtol=1e-5)
    # Bought bread, a rule to butter, a basket rule to jam.
    assert set(np.flatnonzero(np.isfinite(some[0]))) == {1, 2, 3}


def test_for_evaluation_what_is_hidden_takes_no_candidates_place_and_the_rest_stands_behind(
    monkeypatch, artifact, make_block
) -> None:
    monkeypatch.setattr(rerank, "ALL_ITEMS_UP_TO", 7)
    monkeypatch.setattr(rerank, "CANDIDATES", 3)
    ranking = RankingSettings()
    artifact = dataclasses.replace(artifact, blend=a_blend())
    candidates = Candidates(artifact, Serving(artifact), ranking)
    block = make_block(*USERS)
    hidden = [np.array([2]), np.arange(8), np.empty(0, np.int64)][: block.rows]
    some = next(LearntBlend(candidates, artifact, ranking).score(block, hidden).tiles)[: block.rows].copy()
    chosen_by = LogLinear(candidates, RankingSettings(basket_weight=0.5, exclude="none"))
    first = next(chosen_by.score(block).tiles)[: block.rows].copy()
    monkeypatch.setattr(rerank, "ALL_ITEMS_UP_TO", 8)
    whole = next(LearntBlend(candidates, artifact, ranking).score(block).tiles)
    assert (some[:, 8:] == -np.inf).all()
    for row, out in enumerate(hidden):
        open_ = np.setdiff1d(np.arange(8), out)
        assert (some[row, out] == -np.inf).all()
        by_first = open_[np.argsort(-first[row, open_], kind="stable")]
        chosen, behind = by_first[:3], by_first[3:]
        np.testing.assert_allclose(some[row, chosen], whole[row, chosen], rtol=1e-5)
        if len(behind):
            assert some[row, behind].max() < some[row, chosen].min()
            assert (np.diff(some[row, behind]) <= 0).all()


def test_the_learnt_parts_add_up_alike_where_all_items_are_candidates_and_where_some_are(
    monkeypatch, artifact, make_block
) -> None:
    ranking = RankingSettings(list_size=3)
    artifact = dataclasses.replace(artifact, blend=a_blend())
    candidates = Candidates(artifact, Serving(artifact), ranking)
    block = make_block(USERS[0], USERS[0])
    listed = [3, 1, 2]
    best, parts = listed_parts(LearntBlend(candidates, artifact, ranking), block, listed)
    nothing = by_hand(a_blend(), np.zeros((len(FEATURES), 1), np.float32))
    np.testing.assert_allclose(parts.sum(axis=2), best - nothing, atol=1e-4)
    monkeypatch.setattr(rerank, "ALL_ITEMS_UP_TO", 7)
    monkeypatch.setattr(rerank, "CANDIDATES", 3)
    _, of_some = listed_parts(LearntBlend(candidates, artifact, ranking), block, listed)
    np.testing.assert_allclose(of_some, parts, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"w1": None},
        {"w1": np.zeros((6, 7), np.float32)},
        {"w3": np.zeros((4,), np.float32)},
        {"b2": np.full(4, np.nan, np.float32)},
    ],
)
def test_a_blend_for_other_features_is_refused(artifact, change) -> None:
    blend = {name: array for name, array in {**a_blend(), **change}.items() if array is not None}
    artifact = dataclasses.replace(artifact, blend=blend)
    candidates = Candidates(artifact, Serving(artifact), RankingSettings())
    with pytest.raises(ArtifactError, match="train the model again"):
        LearntBlend(candidates, artifact, RankingSettings())


# --- the best


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 1400),
    size=st.integers(1, 100),
    seed=st.integers(0, 10**6),
    distinct=st.integers(1, 50),
    left_out=st.floats(0, 1),
)
def test_the_best_are_those_of_a_stable_sort(n: int, size: int, seed: int, distinct: int, left_out: float) -> None:
    draw = np.random.default_rng(seed)
    width = (n // LANES + 1) * LANES
    scores = np.full((BLOCK, width), -np.inf, np.float32)
    scores[:, :n] = draw.integers(-distinct, distinct + 1, (BLOCK, n)) * 0.25  # many ties, zeros, negatives
    scores[:, :n][draw.random((BLOCK, n)) < left_out] = -np.inf
    scores[:, :n][draw.random((BLOCK, n)) < 0.1] *= -1.0  # negative zeros
    scores[scores == np.inf] = -np.inf
    tokens, best = TopItems(n, width, size).pick(scores)
    assert tokens.shape == best.shape == (BLOCK, min(size, n))
    for row in range(BLOCK):
        order = np.argsort(-scores[row, :n], kind="stable")
        order = order[scores[row, order] > -np.inf][: min(size, n)]
        assert tokens[row, : len(order)].tolist() == order.tolist()
        assert (tokens[row, len(order) :] == n).all()
        np.testing.assert_array_equal(best[row, : len(order)], scores[row, order])
        assert (best[row, len(order) :] == -np.inf).all()


def test_a_block_of_a_large_random_catalogue_is_scored_alike_wherever_a_row_stands() -> None:
    artifact = untrained_artifact([f"i{k}" for k in range(700)], rules=20, dim=16, hidden=16)
    candidates = Candidates(artifact, Serving(artifact), RankingSettings())
    blend = LearntBlend(candidates, dataclasses.replace(artifact, blend=a_blend()), RankingSettings())
    linear = LogLinear(candidates, RankingSettings())
    index, popular = ItemIndex(artifact.item_ids), popular_of(artifact)
    from model.ranking.block import Request
    from state.interaction import Interaction
    from state.interest import InterestState
    from state.keys import key_of

    draw = np.random.default_rng(0)
    requests = []
    for _ in range(40):
        state = InterestState(vector=draw.standard_normal(artifact.state_size).astype(np.float16).tobytes())
        for number in range(int(draw.integers(1, 30))):
            item = key_of(f"i{draw.integers(0, 720)}")
            event = Interaction(number + 1, 5, 10**12 + number, (item,), (), 8.0, number)
            state.apply(event, StateSettings())
        requests.append(Request(b"u", event, state, popular, {}))
    for scorer in (linear, blend):
        straight = next(scorer.score(Block(requests, index, StateSettings())).tiles)[:40].copy()
        turned = next(scorer.score(Block(requests[::-1], index, StateSettings())).tiles)[:40]
        assert straight.tobytes() == turned[::-1].tobytes()
        alone = next(scorer.score(Block(requests[7:8], index, StateSettings())).tiles)[0]
        assert alone.tobytes() == straight[7].tobytes()
