"""Which blend a model gets: the one that answers validation questions best, made of what they alone tell."""

import dataclasses

import msgspec
import numpy as np
import pytest

from model.artifact import Artifact, load_artifact, save_artifact, untrained_artifact
from model.errors import ArtifactError
from model.evaluation.metrics import ndcg
from model.evaluation.offline import judge
from model.evaluation.ours import Ours
from model.evaluation.questions import Questions
from model.evaluation.splits import Split, leave_one_out
from model.ranking.rerank import WEIGHTS, LogLinear, with_weights_of
from model.ranking.settings import RankingSettings
from model.training.choose import FEWEST_QUESTIONS, Lists, choose_blend
from model.training.dataset import dataset_from_arrays
from model.transitions import sequence_rules
from state.weights import PURCHASE

ITEMS, USERS, LENGTH = 60, 600, 12
LISTS = Lists(RankingSettings(exclude="none"))


def walk(seed: int) -> Split:
    """Users who walk round a ring of items, and miss a step now and then: rules know all there is to know."""
    draw = np.random.default_rng(seed)
    steps = np.where(draw.random((USERS, LENGTH)) < 0.9, 1, 7)
    item = (draw.integers(0, ITEMS, (USERS, 1)) + steps.cumsum(axis=1)) % ITEMS
    data = dataset_from_arrays(
        user=np.repeat(np.arange(USERS, dtype=np.int32), LENGTH),
        item=item.reshape(-1).astype(np.int32),
        type=np.full(USERS * LENGTH, PURCHASE, np.uint8),
        time_ms=1_700_000_000_000 + np.arange(USERS * LENGTH, dtype=np.int64) * 60_000,
        user_ids=[f"u{k}" for k in range(USERS)],
        item_ids=[f"i{k}" for k in range(ITEMS)],
    )
    return leave_one_out(data)


def with_rules(split: Split) -> Artifact:
    """A network that knows nothing, whose scores are loud, beside rules that know the ring."""
    train = split.train
    artifact = untrained_artifact(train.item_ids, seed=3)
    rules = sequence_rules(ITEMS, train.user, train.item).top()
    loud = (artifact.item_matrix * 300.0).astype(np.float32)
    return dataclasses.replace(artifact, item_matrix=loud, rules_to=rules[0], rules_weight=rules[1])


@pytest.fixture(scope="module")
def split() -> Split:
    return walk(1)


@pytest.fixture(scope="module")
def chosen(split: Split) -> Artifact:
    return choose_blend(with_rules(split), split.validation, LISTS)


def quality(artifact: Artifact, split: Split) -> float:
    """NDCG@10 on the test, which no blend was chosen by."""
    ours = Ours(artifact, split.test.data, seen_filtered=False)
    return ndcg(judge(ours, split.test, seen_filtered=False).rank, 10)


def test_the_chosen_blend_answers_the_test_better(split: Split, chosen: Artifact) -> None:
    before, after = quality(with_rules(split), split), quality(chosen, split)
    assert after > before + 0.1
    assert after > 0.8


def test_the_metrics_say_what_was_compared(chosen: Artifact) -> None:
    kinds = {name.split("_")[1]: value for name, value in chosen.metrics.items() if name.endswith("_ndcg@10")}
    assert set(kinds) == {"settings", "weights", "learnt"}
    best = chosen.settings["blend"]
    assert kinds[best] >= max(kinds.values()) - 0.001
    assert f"blend_{best}_hr@10" in chosen.metrics


def test_the_same_questions_choose_the_same(split: Split, chosen: Artifact) -> None:
    again = choose_blend(with_rules(split), split.validation, LISTS)
    assert again.blend is not None
    assert chosen.blend is not None
    assert again.blend.keys() == chosen.blend.keys()
    for name, array in again.blend.items():
        np.testing.assert_array_equal(array, chosen.blend[name])


def test_questions_are_asked_from_the_states_they_were_asked_in(split: Split) -> None:
    """Several questions of a user: each from its own history, though one state lives through them all."""
    rows = np.arange(USERS * LENGTH, dtype=np.int64).reshape(USERS, LENGTH)
    several = Questions(split.test.data, rows[:, 5:11].reshape(-1))
    chosen = choose_blend(with_rules(split), several, LISTS)
    assert quality(chosen, split) > 0.8
    best = chosen.settings["blend"]
    assert chosen.metrics[f"blend_{best}_ndcg@10"] > 0.8


def test_too_few_questions_choose_nothing(split: Split) -> None:
    artifact = with_rules(split)
    few = split.validation.select(slice(0, FEWEST_QUESTIONS - 1))
    assert choose_blend(artifact, few, Lists()) is artifact


def test_chosen_weights_are_saved_and_serve_in_place_of_the_settings(split: Split, chosen: Artifact, tmp_path) -> None:
    weights = np.array([1.0, 0.4, 0.0, 0.5, 0.1], np.float32)
    artifact = dataclasses.replace(with_rules(split), blend={WEIGHTS: weights})
    save_artifact(tmp_path / "model", artifact)
    loaded = load_artifact(tmp_path / "model")
    settings = dict(zip(LogLinear.WEIGHTS, weights.tolist(), strict=True))
    by_settings = msgspec.structs.replace(RankingSettings(), **settings)
    assert with_weights_of(loaded, RankingSettings()) == by_settings
    questions = split.test.select(slice(0, 50))
    own = Ours(loaded, split.test.data, seen_filtered=False).score(questions)
    bare = dataclasses.replace(artifact, blend=None)
    same = Ours(bare, split.test.data, seen_filtered=False, ranking=by_settings).score(questions)
    np.testing.assert_array_equal(own, same)
    other = Ours(bare, split.test.data, seen_filtered=False).score(questions)
    assert not np.array_equal(own, other)


@pytest.mark.parametrize("weights", [[1.0, 2.0], [1.0, np.nan, 0.0, 0.0, 0.0]])
def test_broken_weights_are_refused(split: Split, weights: list[float]) -> None:
    artifact = dataclasses.replace(with_rules(split), blend={WEIGHTS: np.array(weights, np.float32)})
    with pytest.raises(ArtifactError, match="5 finite numbers"):
        Ours(artifact, split.test.data, seen_filtered=True)
