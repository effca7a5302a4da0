"""What is added around the library: users solved for from their history, strangers, and the library's absence."""

import numpy as np
import pytest

from model.baselines import mf
from model.baselines.base import FitSettings
from model.baselines.mf import ALS, BPR
from model.errors import ModelError
from model.evaluation.questions import Questions
from model.training.dataset import Dataset, dataset_from_arrays
from state.weights import PURCHASE

USERS, ITEMS = 30, 12


def log() -> Dataset:
    """Six items of each of 30 users, and nothing of user 30."""
    draw = np.random.default_rng(4)
    return dataset_from_arrays(
        user=np.repeat(np.arange(USERS), 6).astype(np.int32),
        item=np.concatenate([draw.permutation(ITEMS)[:6] for _ in range(USERS)]).astype(np.int32),
        type=np.full(USERS * 6, PURCHASE, np.uint8),
        time_ms=np.tile(np.arange(6), USERS),
        user_ids=[f"u{k}" for k in range(USERS + 1)],
        item_ids=[f"i{k}" for k in range(ITEMS)],
    )


def test_als_solves_for_a_user_as_the_library_does() -> None:
    pytest.importorskip("implicit", reason="needs the extra driftline[baselines]")
    from implicit.cpu.als import AlternatingLeastSquares
    from scipy.sparse import csr_matrix
    from threadpoolctl import threadpool_limits

    data = log()
    train = data.select(data.time_ms < 5)  # the histories of the last questions are what was trained on
    model = ALS(factors=4, iterations=3, l2=0.1, confidence=2.0)
    model.fit(train, FitSettings(seed=2))
    took = csr_matrix((np.ones(len(train), np.float32), (train.user, train.item)), shape=(USERS + 1, ITEMS))
    with threadpool_limits(1, "blas"):
        library = AlternatingLeastSquares(
            factors=4, iterations=3, regularization=0.1, alpha=3.0, num_threads=1, random_state=2
        )
    library.fit(took, show_progress=False)
    users = library.recalculate_user(np.arange(USERS), took[:USERS])
    scores = model.score(Questions(data, np.flatnonzero(data.time_ms == 5)))
    np.testing.assert_allclose(scores, users @ library.item_factors.T, atol=1e-3)


def test_bpr_gives_a_stranger_the_mean_of_all_users() -> None:
    pytest.importorskip("implicit", reason="needs the extra driftline[baselines]")
    data = log()
    model = BPR(factors=4, iterations=20)
    model.fit(data, FitSettings())
    scores = model.score(Questions(data, np.flatnonzero(data.time_ms == 5)))
    stranger = model._users[USERS] @ model._items.T
    np.testing.assert_allclose(stranger, scores.mean(axis=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", [ALS, BPR])
def test_says_what_to_install(model: type[ALS] | type[BPR], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mf, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install 'driftline\[baselines\]'"):
        model().fit(log(), FitSettings())
