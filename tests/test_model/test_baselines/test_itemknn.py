"""ItemKNN against the library implicit, and the one that learns from each event against the one that counts once."""

import numpy as np
import pytest

from model.baselines.base import FitSettings
from model.baselines.itemknn import LARGEST_INCREMENTAL_ITEMS, IncrementalItemKNN, ItemKNN
from model.baselines.related import user_item_pairs
from model.errors import DatasetError
from model.evaluation.questions import Questions
from model.training.dataset import Dataset, dataset_from_arrays
from state.weights import PURCHASE

USERS, ITEMS = 25, 15


def log(repeats: bool) -> Dataset:
    draw = np.random.default_rng(5)
    if repeats:
        user, item = draw.integers(USERS, size=300), draw.integers(ITEMS, size=300)
    else:
        user = np.repeat(np.arange(USERS), 6)
        item = np.concatenate([draw.permutation(ITEMS)[:6] for _ in range(USERS)])
    return dataset_from_arrays(
        user=user.astype(np.int32),
        item=item.astype(np.int32),
        type=np.full(len(user), PURCHASE, np.uint8),
        time_ms=draw.permutation(len(user)).astype(np.int64),
        user_ids=[f"u{k}" for k in range(USERS)],
        item_ids=[f"i{k}" for k in range(ITEMS)],
    )


def last_of_each(data: Dataset) -> Questions:
    return Questions(data, np.searchsorted(data.user, np.arange(USERS), side="right") - 1)


@pytest.mark.filterwarnings("ignore:Method expects CSR input")  # of the library to itself
def test_cosines_are_those_of_the_library() -> None:
    neighbours = pytest.importorskip("implicit.nearest_neighbours", reason="needs the extra driftline[baselines]")
    from scipy.sparse import csr_matrix

    data = log(repeats=True)
    user, item = user_item_pairs(data)
    took = csr_matrix((np.ones(len(user)), (user, item)), shape=(USERS, ITEMS))
    library = neighbours.CosineRecommender(K=ITEMS, num_threads=1)
    library.fit(took, show_progress=False)
    wanted = library.similarity.toarray()
    np.fill_diagonal(wanted, 0.0)
    # A history of one item fires its row alone.
    model = ItemKNN(neighbours=ITEMS, decay=1.0, history=1)
    model.fit(data, FitSettings())
    questions = last_of_each(data)
    newest = questions.histories(1).item[:, 0]
    np.testing.assert_allclose(model.score(questions), wanted[newest], atol=1e-6)


def test_keeps_the_nearest_neighbours() -> None:
    data = log(repeats=False)
    all_, few = ItemKNN(neighbours=ITEMS, history=1), ItemKNN(neighbours=3, history=1)
    for model in (all_, few):
        model.fit(data, FitSettings())
    questions = last_of_each(data)
    for every, kept in zip(all_.score(questions), few.score(questions), strict=True):
        assert np.count_nonzero(kept) <= 3
        np.testing.assert_allclose(np.sort(kept)[-3:], np.sort(every)[-3:])


def test_learning_event_by_event_ends_where_counting_once_does() -> None:
    data = log(repeats=False)
    once = ItemKNN(neighbours=ITEMS, decay=0.8, history=30)
    once.fit(data, FitSettings())
    scorer = IncrementalItemKNN(ITEMS, decay=0.8, history=30)
    scorer.begin(data.select(np.zeros(len(data), np.bool_)), np.arange(USERS, dtype=np.int32))
    for row in np.argsort(data.time_ms):
        scorer.learn(int(data.user[row]), int(data.item[row]), int(data.time_ms[row]))
    # The scorer knows all events; a question one row after the last would, so the last item is fired by hand.
    questions = last_of_each(data)
    before = once.score(questions)
    for user in range(USERS):
        last = int(questions.target[user])
        alone = once._cosine[last][np.argsort(once._to[last])]
        np.testing.assert_allclose(scorer.score(user, 0), 0.8 * before[user] + alone, atol=1e-5)


def test_an_item_taken_again_counts_once_and_becomes_the_newest() -> None:
    scorer = IncrementalItemKNN(3, decay=0.5)
    for user, item in ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2)):
        scorer.learn(user, item, 0)
    newest_b = scorer.score(0, 0).copy()
    scorer.learn(0, 0, 0)
    newest_a = scorer.score(0, 0)
    # cosine(a, b) = 1, of a and b with c 1/sqrt(2): what is fired is mirrored, c's sum stays.
    np.testing.assert_allclose(newest_b, [1.0, 0.5, 1.5 / 2**0.5], rtol=1e-6)
    np.testing.assert_allclose(newest_a, [0.5, 1.0, 1.5 / 2**0.5], rtol=1e-6)


def test_a_session_start_teaches_nothing_and_a_stranger_has_zeros() -> None:
    scorer = IncrementalItemKNN(3)
    scorer.learn(0, 3, 0)
    scorer.learn(0, 1, 0)
    assert scorer.score(7, 0).tolist() == [0.0, 0.0, 0.0]
    assert scorer.score(0, 0).tolist() == [0.0, 0.0, 0.0]


def test_too_many_items_for_the_incremental_one_are_refused() -> None:
    with pytest.raises(DatasetError, match=r"20,001 items .* leave it out, or drop rare items"):
        IncrementalItemKNN(LARGEST_INCREMENTAL_ITEMS + 1)
