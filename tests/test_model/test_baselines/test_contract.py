"""One suite over every baseline, on a tiny log whose answer is obvious.

Two circles of eight items, a..h and i..p. Each user goes round one of them from a place of their own:

    user 0:  start a b c d e f g | h        user 9:  start j k l m n o p | i        after the bar: the question

So the answer is both what always follows and the only item of the circle that the user has not taken.
"""

from collections.abc import Callable

import numpy as np
import pytest

from model.baselines import BASELINES, FitSettings, Model
from model.baselines.gru4rec import GRU4Rec
from model.baselines.mf import ALS, BPR
from model.baselines.ncf import NCF
from model.baselines.sasrec import SASRec
from model.baselines.sequence import SequenceModel
from model.baselines.train import DescentSettings
from model.errors import DatasetError
from model.evaluation.questions import Questions
from model.training.dataset import Dataset, dataset_from_arrays
from state.weights import PURCHASE

USERS, CIRCLE = 48, 8
STRANGER = USERS
FIT = FitSettings(seed=3, threads=1, max_seconds=60.0, device="cpu")
QUICK = DescentSettings(learning_rate=2e-2, weight_decay=0.0, epochs=25)
KNOWS_CIRCLES = ["itemknn", "ease", "als", "bpr", "ncf", "gru4rec", "sasrec", "rules"]
KNOWS_ORDER = ["gru4rec", "sasrec", "rules"]
DRAWS = ["als", "bpr", "ncf", "gru4rec", "sasrec"]


def log() -> Dataset:
    """Eight items of each user, and one of the stranger; a start before each user's first."""
    user = np.append(np.repeat(np.arange(USERS), CIRCLE), STRANGER)
    step = np.append(np.tile(np.arange(CIRCLE), USERS), 0)
    item = (user + step) % CIRCLE + CIRCLE * (user % 2)
    return dataset_from_arrays(
        user=user.astype(np.int32),
        item=item.astype(np.int32),
        type=np.full(len(user), PURCHASE, np.uint8),
        time_ms=step.astype(np.int64) * 60_000,
        user_ids=[f"u{k}" for k in range(USERS + 1)],
        item_ids=list("abcdefghijklmnop"),
        new_session=step == 0,
    )


DATA = log()
LAST = Questions(DATA, np.flatnonzero(DATA.time_ms == (CIRCLE - 1) * 60_000))
TRAIN = DATA.select((DATA.time_ms < (CIRCLE - 1) * 60_000) & (DATA.user != STRANGER))
COLD = Questions(DATA, np.array([len(DATA) - 1]))


def untrained(name: str) -> Model:
    """A baseline with sizes and settings for 48 users instead of thousands."""
    small: dict[str, Callable[[], Model]] = {
        "als": lambda: ALS(factors=4),
        "bpr": lambda: BPR(factors=4, learning_rate=0.1),
        "ncf": lambda: NCF(factors=4),
        "gru4rec": lambda: GRU4Rec(dim=16, hidden=16, dropout=0.0),
        "sasrec": lambda: SASRec(dim=16, dropout=0.0),
    }
    if name in ("als", "bpr"):
        pytest.importorskip("implicit", reason="needs the extra driftline[baselines]")
    model = small.get(name, BASELINES[name])()
    if isinstance(model, SequenceModel | NCF):
        model.descent, model.batch = QUICK, 64 if isinstance(model, NCF) else 16
    return model


@pytest.fixture(scope="module")
def trained() -> dict[str, Model]:
    """Each baseline, trained once when first asked for."""
    return {}


@pytest.fixture(params=list(BASELINES))
def model(request: pytest.FixtureRequest, trained: dict[str, Model]) -> Model:
    return fitted(request.param, trained)


def fitted(name: str, trained: dict[str, Model]) -> Model:
    if name not in trained:
        new = untrained(name)
        new.fit(TRAIN, FIT)
        trained[name] = new
    return trained[name]


def test_has_the_name_it_is_listed_by() -> None:
    assert [BASELINES[name]().name for name in BASELINES] == list(BASELINES)


def test_scores_all_items_for_each_question(model: Model) -> None:
    scores = model.score(LAST)
    assert scores.shape == (USERS, 2 * CIRCLE)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()


def test_a_question_is_answered_alike_alone_and_among_others(model: Model) -> None:
    among = model.score(LAST)
    for k in (0, 7, USERS - 1):
        alone = model.score(LAST.select(slice(k, k + 1)))
        np.testing.assert_allclose(alone[0], among[k], rtol=1e-4, atol=1e-4)


def test_a_stranger_without_a_history_has_scores(model: Model) -> None:
    scores = model.score(COLD)
    assert scores.shape == (1, 2 * CIRCLE)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("name", KNOWS_CIRCLES)
def test_what_was_not_taken_yet_of_the_own_circle_comes_first(name: str, trained: dict[str, Model]) -> None:
    scores = fitted(name, trained).score(LAST)
    LAST.mask_seen(scores)
    assert (scores.argmax(axis=1) == LAST.target).mean() > 0.95


@pytest.mark.parametrize("name", KNOWS_ORDER)
def test_what_always_follows_comes_first(name: str, trained: dict[str, Model]) -> None:
    middle = Questions(DATA, np.flatnonzero(DATA.time_ms == 4 * 60_000))
    scores = fitted(name, trained).score(middle)
    assert (scores.argmax(axis=1) == middle.target).mean() > 0.95


@pytest.mark.parametrize("name", list(BASELINES))
def test_the_same_seed_gives_the_same_scores(name: str, trained: dict[str, Model]) -> None:
    again = untrained(name)
    again.fit(TRAIN, FIT)
    np.testing.assert_array_equal(again.score(LAST), fitted(name, trained).score(LAST))


@pytest.mark.parametrize("name", DRAWS)
def test_another_seed_gives_others(name: str, trained: dict[str, Model]) -> None:
    other = untrained(name)
    other.fit(TRAIN, FitSettings(seed=4, max_seconds=60.0, device="cpu"))
    assert not np.array_equal(other.score(LAST), fitted(name, trained).score(LAST))


@pytest.mark.parametrize("name", list(BASELINES))
def test_a_log_without_items_is_refused(name: str) -> None:
    with pytest.raises(DatasetError, match="give a longer log"):
        untrained(name).fit(TRAIN.select(~TRAIN.is_item), FIT)
