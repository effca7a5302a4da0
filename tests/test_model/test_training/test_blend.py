import dataclasses
import random

import numpy as np
import pytest

from model.artifact import untrained_artifact
from model.errors import ModelError
from model.ranking import rerank
from model.recommender import Portion, RankingSettings, Recommender
from model.training.blend import BlendSettings, collect_examples, fit_blend, next_tokens
from state.interaction import Interaction
from state.keys import key_of
from state.settings import StateSettings
from state.weights import PURCHASE, SESSION_START

N = 60
SETTINGS = BlendSettings(max_lists=600, hard=10, drawn=8, positives=4, epochs=8, hidden=8, hidden2=4)
Log = list[tuple[bytes, Interaction]]


@pytest.fixture(scope="module")
def recommender() -> Recommender:
    artifact = untrained_artifact([f"item-{k}" for k in range(N)], dim=8, hidden=8)
    return Recommender(artifact, StateSettings(), RankingSettings(exclude="session", list_size=5))


def a_shop(baskets: int, seed: int) -> Log:
    """Households that buy three of their own five items in every basket: personal counts say all."""
    draw = random.Random(seed)
    log: Log = []

    def add(user: int, kind: int, items: tuple[int, ...]) -> None:
        number = len(log)
        keys = tuple(key_of(f"item-{item}") for item in items)
        weight = 8.0 if items else 0.0
        log.append(
            (
                b"user-%d" % user,
                Interaction(key_of(f"{seed}/{number}"), kind, 10**12 + number * 60_000, keys, (), weight, number),
            )
        )

    for _ in range(baskets):
        user = draw.randrange(20)
        add(user, SESSION_START, ())
        for item in draw.sample(range(5), 3):
            add(user, PURCHASE, ((user * 7 + item * 11) % N,))
    return log


def hits(recommender: Recommender, log: Log, skip: int) -> float:
    """Share of the next items that are on the list before them, after the first `skip` events."""
    targets = next_tokens(recommender, log, 1)
    done = Portion(log, {}, recommender.new_trend())
    recommender.process([done], every_event=True)
    asked = [(made, targets[made.offset]) for made in done.lists if made.offset >= skip and targets[made.offset]]
    found = [f"item-{target[0]}" in {item.item_id for item in made.items} for made, target in asked]
    return sum(found) / len(found)


def test_the_fitted_blend_finds_what_decides(recommender: Recommender) -> None:
    log = a_shop(400, seed=1)
    blend = fit_blend(recommender, log, {}, recommender.new_trend(), SETTINGS)
    # A blend of which nothing was learnt, and one that was.
    silent = {name: np.zeros_like(array) for name, array in blend.items()}
    fresh = a_shop(200, seed=2)
    scores = []
    for arrays in (silent, blend):
        artifact = dataclasses.replace(recommender.artifact, blend=arrays)
        fitted = Recommender(artifact, recommender.state_settings, recommender.ranking_settings)
        scores.append(hits(fitted, fresh, skip=500))
    assert scores[0] < 0.25
    assert scores[1] > 0.9


def test_the_same_log_gives_the_same_blend(recommender: Recommender) -> None:
    log = a_shop(60, seed=3)
    first, second = (fit_blend(recommender, log, {}, recommender.new_trend(), SETTINGS) for _ in range(2))
    assert first.keys() == {"w1", "b1", "w2", "b2", "w3"}
    for name, array in first.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, second[name])


def test_what_a_user_took_next_ends_with_the_session(recommender: Recommender) -> None:
    items = [None, 3, 4, 5, None, 6]
    log = []
    for number, item in enumerate(items):
        keys = () if item is None else (key_of(f"item-{item}"),)
        kind = SESSION_START if item is None else PURCHASE
        log.append((b"u", Interaction(number + 1, kind, number, keys, (), 1.0 if keys else 0.0, number)))
    stranger = Interaction(9, PURCHASE, 9, (key_of("telescope"),), (), 1.0, 9)
    log.insert(2, (b"v", stranger))
    assert next_tokens(recommender, log, 2) == [(3, 4), (4, 5), (), (5,), (), (6,), ()]


def test_examples_hold_the_taken_items_first_and_stand_for_all(recommender: Recommender) -> None:
    log = a_shop(30, seed=4)
    examples = collect_examples(recommender, log, {}, recommender.new_trend(), SETTINGS)
    lists = 30 * 3  # before each of the three items of a basket
    assert examples.features.shape == (lists, 8, SETTINGS.columns)
    np.testing.assert_allclose(examples.rightness.sum(axis=1), 1.0, rtol=1e-6)
    assert (examples.rightness[:, 0] > 0).all()
    # A list stands for every item but those of the running session: none, one or two.
    standing_for = np.exp(examples.log_weights).sum(axis=1).round(3)
    assert set(standing_for.tolist()) == {60.0, 59.0, 58.0}
    assert np.isfinite(examples.features).all()


def test_a_large_catalogue_is_fitted_on_its_candidates(
    monkeypatch: pytest.MonkeyPatch, recommender: Recommender
) -> None:
    monkeypatch.setattr(rerank, "ALL_ITEMS_UP_TO", 10)
    monkeypatch.setattr(rerank, "CANDIDATES", 20)
    log = a_shop(30, seed=5)
    examples = collect_examples(recommender, log, {}, recommender.new_trend(), SETTINGS)
    # Where no candidate was taken there is nothing to learn from.
    assert 0 < len(examples.features) < 90
    assert np.exp(examples.log_weights).sum(axis=1).max() <= 20.001


def test_a_period_without_a_known_next_item_is_refused(recommender: Recommender) -> None:
    log = [(b"u", Interaction(1, SESSION_START, 0, (), (), 0.0, 0))]
    with pytest.raises(ModelError, match="give a longer one"):
        fit_blend(recommender, log, {}, recommender.new_trend(), SETTINGS)
