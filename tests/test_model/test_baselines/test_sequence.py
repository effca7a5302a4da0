"""Windows of histories, causal networks, the loss with drawn items."""

import numpy as np
import pytest
import torch

from model.baselines import sequence
from model.baselines.base import FitSettings
from model.baselines.gru4rec import GRU4Rec
from model.baselines.sasrec import SASRec
from model.baselines.sequence import SequenceModel, cut
from model.baselines.train import DescentSettings
from model.evaluation.questions import Questions
from model.training.dataset import Dataset, dataset_from_arrays
from state.weights import PURCHASE

NETWORKS = [lambda: GRU4Rec(dim=8, hidden=8), lambda: SASRec(dim=8)]


def circles(users: int, events: int, items: int) -> Dataset:
    """Each user goes round the catalogue from a place of their own."""
    user, step = np.repeat(np.arange(users), events), np.tile(np.arange(events), users)
    return dataset_from_arrays(
        user=user.astype(np.int32),
        item=((user * 5 + step) % items).astype(np.int32),
        type=np.full(len(user), PURCHASE, np.uint8),
        time_ms=step * 60_000,
        user_ids=[f"u{k}" for k in range(users)],
        item_ids=[f"i{k}" for k in range(items)],
    )


def test_cuts_every_row_into_one_window_of_one_user() -> None:
    borders = np.array([0, 3, 25, 26])  # users of 3, 22 and 1 rows
    draw = np.random.default_rng(1)
    starts = set()
    for _ in range(20):
        windows = cut(borders, 10, draw)
        rows = [row for first, last in windows for row in range(first, last)]
        assert sorted(rows) == list(range(26))
        assert ((windows[:, 1] - windows[:, 0]) <= 10).all()
        users = [np.searchsorted(borders, [first, last - 1], side="right") for first, last in windows]
        assert all(one == other for one, other in users)
        starts |= {int(first) for first, _ in windows if 3 < first < 25}
    assert len(starts) > 10  # other places each time


@pytest.mark.parametrize("make", NETWORKS)
def test_a_position_does_not_see_what_comes_after(make: type[SequenceModel]) -> None:
    torch.manual_seed(0)
    model = make()
    network = model.network(20).eval()
    tokens = torch.randint(20, (3, 12))
    changed = tokens.clone()
    changed[:, 7:] = (changed[:, 7:] + 1) % 20
    with torch.no_grad():
        one, other = network(tokens), network(changed)
    torch.testing.assert_close(one[:, :7], other[:, :7])
    assert not torch.allclose(one[:, 7:], other[:, 7:])


@pytest.mark.parametrize("make", NETWORKS)
def test_a_short_history_is_scored_as_it_was_trained(make: type[SequenceModel]) -> None:
    """Padding moves from the left to the right, and the start token stands before a user's first item."""
    torch.manual_seed(0)
    model, data = make(), circles(users=2, events=6, items=10)
    model.length = 8
    model._device = torch.device("cpu")
    model._network = model.network(10).eval()
    scores = model.score(Questions(data, np.array([3])))  # the history has 3 items
    tokens = torch.tensor([[10, *data.item[:3].tolist()]])
    with torch.no_grad():
        u = model._network(tokens)[0, -1]
        wanted = model._network.embedding.weight[:-1] @ u + model._network.bias
    np.testing.assert_allclose(scores[0], wanted.numpy(), atol=1e-5)


def test_a_long_history_is_scored_by_its_last_items() -> None:
    torch.manual_seed(0)
    model, data = GRU4Rec(dim=8, hidden=8), circles(users=1, events=12, items=10)
    model.length = 4
    model._device = torch.device("cpu")
    model._network = model.network(10).eval()
    scores = model.score(Questions(data, np.array([11])))
    with torch.no_grad():
        u = model._network(torch.tensor([data.item[7:11].tolist()]))[0, -1]
        wanted = model._network.embedding.weight[:-1] @ u + model._network.bias
    np.testing.assert_allclose(scores[0], wanted.numpy(), atol=1e-5)


def test_learns_with_drawn_items_in_a_large_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequence, "_FULL_SOFTMAX_ITEMS", 1)
    monkeypatch.setattr(sequence, "_NEGATIVES", 6)
    data = circles(users=40, events=12, items=12)
    model = GRU4Rec(dim=16, hidden=16, dropout=0.0)
    model.batch, model.descent = 16, DescentSettings(learning_rate=2e-2, epochs=25)
    model.fit(data.select(data.time_ms < 11 * 60_000), FitSettings(device="cpu"))
    questions = Questions(data, np.flatnonzero(data.time_ms == 11 * 60_000))
    assert (model.score(questions).argmax(axis=1) == questions.target).mean() > 0.95


def test_drawing_all_items_often_nears_the_loss_over_all(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = GRU4Rec(dim=8, hidden=8, dropout=0.0)
    model._device = torch.device("cpu")
    model._network = model.network(30)
    tokens, targets = torch.randint(30, (4, 5)), torch.randint(30, (4, 5))
    with torch.no_grad():
        full = model._loss(tokens, targets)
        monkeypatch.setattr(sequence, "_FULL_SOFTMAX_ITEMS", 1)
        monkeypatch.setattr(sequence, "_NEGATIVES", 100_000)
        drawn = model._loss(tokens, targets)
    torch.testing.assert_close(drawn, full, atol=0.01, rtol=0.0)
