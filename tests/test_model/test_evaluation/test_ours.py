"""Ours in an evaluation is ours in a worker: the same items in the same order."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from model.artifact import Artifact
from model.errors import DatasetError
from model.evaluation.offline import judge
from model.evaluation.ours import Ours, OursLive, unknown_items
from model.evaluation.prequential import live_through
from model.evaluation.questions import Questions
from model.evaluation.splits import leave_one_out
from model.ranking import rerank
from model.ranking.settings import RankingSettings
from model.recommender import Portion, Recommender
from model.training.dataset import Dataset, dataset_from_arrays
from state.interaction import Interaction
from state.keys import key_of
from state.settings import StateSettings
from state.weights import DEFAULT_WEIGHTS, EVENT_TYPES
from state.window import interest_key

ROOMY = StateSettings(recent_items=60, max_counted_items=60)
"""A state that forgets nothing of the crowd's histories: what it left out is then all that was seen."""


def interactions(data: Dataset, rows: np.ndarray) -> Iterator[tuple[bytes, Interaction]]:
    """Rows as an agent makes interactions of events, written down once more."""
    for offset, row in enumerate(rows.tolist()):
        item, kind = data.item[row], int(data.type[row])
        category = data.item_categories[item]
        yield (
            data.user_ids[data.user[row]].encode(),
            Interaction(
                event=key_of(f"event {row}"),
                type=kind,
                time_ms=int(data.time_ms[row]),
                items=(key_of(data.item_ids[item]),),
                interests=(interest_key(category),) if category else (),
                weight=DEFAULT_WEIGHTS[EVENT_TYPES[kind]],
                offset=offset,
            ),
        )


@pytest.mark.parametrize("exclude", ["seen", "none"])
def test_the_list_of_a_worker_is_the_list_that_is_judged(crowd, artifact, exclude: str) -> None:
    questions = leave_one_out(crowd).test
    ours = Ours(artifact, crowd, seen_filtered=exclude == "seen", state=ROOMY)
    judged = judge(ours, questions, seen_filtered=exclude == "seen", k=(10,))
    worker = Recommender(artifact, ROOMY, RankingSettings(list_size=10, exclude=exclude))
    for row, top in zip(judged.questions.row.tolist(), judged.top, strict=True):
        begin = int(np.searchsorted(crowd.user, crowd.user[row]))
        portion = Portion(list(interactions(crowd, np.arange(begin, row))), {}, worker.new_trend())
        worker.process([portion])
        (shown,) = portion.lists
        assert [item.item_id for item in shown.items] == [crowd.item_ids[k] for k in top if k < crowd.items]
    assert len(judged.rank) > 20


def test_many_questions_of_a_user_each_see_their_own_history(crowd, artifact) -> None:
    ours = Ours(artifact, crowd, seen_filtered=True)
    rows = np.random.default_rng(0).permutation(len(crowd))[:150]
    together = ours.score(Questions(crowd, rows))
    for k in range(0, 150, 10):
        assert np.array_equal(together[k], ours.score(Questions(crowd, rows[k : k + 1]))[0])


def test_nobody_known_is_answered_by_popularity(crowd, artifact) -> None:
    first = Questions(crowd, np.array([0]))
    scores = Ours(artifact, crowd, seen_filtered=True).score(first)[0]
    assert np.argsort(-scores).tolist() == np.argsort(-artifact.popularity).tolist()


def test_all_items_have_a_rank_though_few_are_candidates(crowd, artifact, monkeypatch) -> None:
    questions = leave_one_out(crowd).test
    whole = Ours(artifact, crowd, seen_filtered=True).score(questions)
    monkeypatch.setattr(rerank, "ALL_ITEMS_UP_TO", 10)
    monkeypatch.setattr(rerank, "CANDIDATES", 6)
    some = Ours(artifact, crowd, seen_filtered=True).score(questions)
    for k in range(len(questions)):
        seen = np.isin(np.arange(crowd.items), questions.seen(k))
        assert (np.isneginf(some[k]) == seen).all()
        if artifact.blend:
            # The six that were chosen from the unseen stand first, as the blend of all items orders them.
            best = np.argsort(-some[k], kind="stable")[: min(6, (~seen).sum())]
            assert (np.diff(whole[k, best]) <= 0).all()
            assert some[k, best] == pytest.approx(whole[k, best], rel=1e-4, abs=1e-5)


def test_items_have_the_numbers_of_the_data(crowd, artifact) -> None:
    """The same log with its items numbered otherwise, and one that the model does not know."""
    order = np.random.default_rng(1).permutation(crowd.items)
    place = np.argsort(order)
    other = dataset_from_arrays(
        user=crowd.user,
        item=place[crowd.item].astype(np.int32),
        type=crowd.type,
        time_ms=crowd.time_ms,
        user_ids=crowd.user_ids,
        item_ids=[*(crowd.item_ids[k] for k in order), "news"],
        item_categories=[*(crowd.item_categories[k] for k in order), ""],
    )
    assert unknown_items(artifact, other) == 1
    rows = leave_one_out(crowd).test.row
    known = Ours(artifact, crowd, seen_filtered=True).score(Questions(crowd, rows))
    scores = Ours(artifact, other, seen_filtered=True).score(Questions(other, rows))
    assert np.isneginf(scores[:, -1]).all()
    assert np.array_equal(scores[:, :-1], known[:, order])


def test_a_model_of_other_items_is_refused(crowd, artifact, make_log) -> None:
    with pytest.raises(DatasetError, match="trained on others"):
        Ours(artifact, make_log("abc"), seen_filtered=True)


def live_lists(artifact: Artifact, data: Dataset) -> dict[int, list[str]]:
    """By row of the user's next event, the list that a worker shows before it."""
    ranking = RankingSettings(list_size=10, exclude="seen", trend_refresh_events=10**6)
    worker = Recommender(artifact, ROOMY, ranking)
    order = np.argsort(data.time_ms, kind="stable")
    portion = Portion(list(interactions(data, order)), {}, worker.new_trend())
    worker.process([portion], every_event=True)
    found = {}
    for shown in portion.lists:
        row = int(order[shown.offset])
        if row + 1 < len(data) and data.user[row + 1] == data.user[row]:
            found[row + 1] = [item.item_id for item in shown.items]
    return found


@pytest.mark.parametrize("warm_share", [0.0, 0.4])
def test_live_it_shows_what_a_worker_shows(crowd, artifact, warm_share: float) -> None:
    stream = crowd.select(crowd.time_ms >= np.sort(crowd.time_ms)[int(len(crowd) * warm_share)])
    ranking = RankingSettings(trend_refresh_events=10**6)
    ours = OursLive(artifact, stream, seen_filtered=True, state=ROOMY, ranking=ranking)
    judged = live_through(crowd, {"ours": ours}, warm_share=warm_share, seen_filtered=True, known_only=False, k=(10,))[
        "ours"
    ]
    shown = live_lists(artifact, crowd)
    compared = 0
    for row, top in zip(judged.questions.row.tolist(), judged.top, strict=True):
        if row in shown:
            assert shown[row] == [crowd.item_ids[k] for k in top if k < crowd.items]
            compared += 1
    assert compared > 100


def test_live_popularity_follows_the_stream(crowd, artifact) -> None:
    plain = dataclasses.replace(artifact, popularity=np.full(crowd.items, 1 / crowd.items, np.float32))
    ranking = RankingSettings(trend_refresh_events=1, popularity_prior=1.0)
    ours = OursLive(plain, crowd, seen_filtered=False, ranking=ranking)
    ours.begin(crowd.select(np.arange(0)), np.arange(60, dtype=np.int32))
    busy = int(np.bincount(crowd.user).argmax())
    for _ in range(3):
        ours.learn(busy, 7, int(crowd.time_ms[-1]))
    assert ours.score(busy + 1, int(crowd.time_ms[-1])).argmax() == 7  # of that user nothing is known
