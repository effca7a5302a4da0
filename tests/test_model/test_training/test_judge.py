from dataclasses import replace

import numpy as np
import pytest
import torch

from model.evaluation.questions import Questions
from model.evaluation.splits import leave_one_out
from model.interest_net import InterestNet, NetSettings
from model.training.dataset import Dataset, dataset_from_arrays
from model.training.judge import Judge
from model.training.settings import TrainSettings
from state.weights import PURCHASE

CPU = torch.device("cpu")
SETTINGS = TrainSettings(dim=8, hidden=8, window_events=16)


def a_log(users: int = 30, events: int = 12, items: int = 50, *, start: bool = False) -> Dataset:
    draw = np.random.default_rng(0)
    rows = users * events
    return dataset_from_arrays(
        user=np.repeat(np.arange(users, dtype=np.int32), events),
        item=np.concatenate([draw.permutation(items)[:events] for _ in range(users)]).astype(np.int32),
        type=np.full(rows, PURCHASE, np.uint8),
        time_ms=np.tile(np.arange(events, dtype=np.int64), users) // (3 if start else 1),
        user_ids=[f"u{k}" for k in range(users)],
        item_ids=[f"i{k}" for k in range(items)],
    )


def network_of(items: int) -> InterestNet:
    torch.manual_seed(0)
    return InterestNet(NetSettings(items, 8, 8))


def by_steps(network: InterestNet, questions: Questions, hidden: list[set[int]]) -> dict[str, float]:
    """The same figures from the network as it serves, one event at a time."""
    network.eval()
    ranks = []
    with torch.no_grad():
        for k, (begin, row) in enumerate(zip(questions.begin, questions.row, strict=True)):
            state = torch.zeros(1, network.state_size)
            for item in questions.data.item[begin:row]:
                state = network.step(state, torch.tensor([int(item)]), torch.tensor([PURCHASE]))
            scores = (network.query(state) @ network.item_matrix().T + network.item_bias)[0].numpy()
            own = scores[questions.target[k]]
            scores[list(hidden[k])] = -np.inf
            ranks.append(1 + int((scores > own).sum()))
    rank = np.array(ranks)
    return {"hr@10": float((rank <= 10).mean()), "ndcg@10": float(((rank <= 10) / np.log2(1 + rank)).mean())}


def test_seen_items_are_filtered_with_leave_one_out() -> None:
    data = a_log()
    questions = leave_one_out(data).validation
    judge = Judge(questions, replace(SETTINGS, protocol="leave-one-out"))
    network = network_of(data.items)
    found = judge(network, CPU)
    expected = by_steps(network, questions, [set(questions.seen(k).tolist()) for k in range(len(questions))])
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert found["hr@20"] >= found["hr@10"] > 0


def test_else_only_what_is_in_the_basket_is() -> None:
    data = a_log(start=True)  # baskets of three
    rows = np.flatnonzero(np.arange(len(data)) % 12 >= 9).astype(np.int64)  # the last basket of each user
    questions = Questions(data, rows)
    network = network_of(data.items)
    found = Judge(questions, SETTINGS)(network, CPU)
    basket = [set(data.item[row - row % 3 : row].tolist()) for row in rows]
    expected = by_steps(network, questions, basket)
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_users_are_drawn_until_there_are_enough_questions() -> None:
    data = a_log(users=100)
    questions = leave_one_out(data).validation
    settings = replace(SETTINGS, validation_questions=10, protocol="leave-one-out")
    judge = Judge(questions, settings)
    assert len(judge) == 10
    assert len(np.unique(judge.batches.data.user)) == 10
    assert judge.batches.data.user.tolist() == Judge(questions, settings).batches.data.user.tolist()
    other = Judge(questions, replace(settings, seed=2)).batches.data.user.tolist()
    assert judge.batches.data.user.tolist() != other


def test_nobody_to_ask() -> None:
    judge = Judge(Questions(a_log(), np.empty(0, np.int64)), SETTINGS)
    assert len(judge) == 0
    assert np.isnan(judge(network_of(50), CPU)["hr@10"])
