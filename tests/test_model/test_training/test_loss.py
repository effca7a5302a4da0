import math

import numpy as np
import pytest
import torch

from model.training.loss import full_cross_entropy, sampled_cross_entropy

P, N, D, G = 4, 7, 3, 2
Problem = dict[str, torch.Tensor]


@pytest.fixture
def problem() -> Problem:
    torch.manual_seed(0)
    return {
        "u": torch.randn(P, D, dtype=torch.double, requires_grad=True),
        "items": torch.randn(N, D, dtype=torch.double, requires_grad=True),
        "bias": torch.randn(N, dtype=torch.double, requires_grad=True),
        "weight": torch.tensor(0.7, dtype=torch.double, requires_grad=True),
        "offset": torch.rand(G, N, dtype=torch.double),
        "group": torch.tensor([0, 0, 1, 1]),
    }


PAIRS = (
    torch.tensor([0, 0, 1, 2, 3]),
    torch.tensor([1, 2, 2, 6, 0]),
    torch.tensor([0.5, 0.5, 1.0, 1.0, 1.0], dtype=torch.double),
)
DONE = (torch.tensor([1, 3]), torch.tensor([1, 6]))


def ours(u: torch.Tensor, items: torch.Tensor, bias: torch.Tensor, weight: torch.Tensor, p: Problem) -> torch.Tensor:
    return full_cross_entropy(u, items, bias, PAIRS, done=DONE, offset=(p["offset"], p["group"]), offset_weight=weight)


def by_autograd(p: Problem) -> torch.Tensor:
    logits = p["u"] @ p["items"].T + p["bias"] + p["weight"] * p["offset"][p["group"]]
    logits = logits.index_put(DONE, torch.tensor(-1e9, dtype=torch.double))
    chances = torch.log_softmax(logits, dim=1)
    return -(chances[PAIRS[0], PAIRS[1]] * PAIRS[2]).sum() / P


def test_loss_is_that_of_plain_softmax(problem: Problem) -> None:
    loss = ours(problem["u"], problem["items"], problem["bias"], problem["weight"], problem)
    torch.testing.assert_close(loss, by_autograd(problem))


def test_gradient_is_that_of_autograd(problem: Problem) -> None:
    names = ["u", "items", "bias", "weight"]
    leaves = [problem[name] for name in names]
    (3.0 * ours(*leaves, problem)).backward()
    got = [leaf.grad.clone() for leaf in leaves if leaf.grad is not None]
    want = torch.autograd.grad(3.0 * by_autograd(problem), leaves)
    assert len(got) == 4
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other)


def test_without_offset_the_weight_is_not_needed(problem: Problem) -> None:
    problem["offset"].zero_()
    loss = full_cross_entropy(problem["u"], problem["items"], problem["bias"], PAIRS, done=DONE)
    torch.testing.assert_close(loss, by_autograd(problem))


def test_sampling_every_item_is_nearly_the_full_loss() -> None:
    # One position, one target of zero logit among N zeros: each of the N - 1 others stands for N / N items.
    loss = sampled_cross_entropy(
        torch.zeros(1, D),
        torch.zeros(N, D),
        torch.zeros(N),
        (torch.tensor([0]), torch.tensor([2]), torch.tensor([1.0])),
        negatives=torch.arange(N),
        log_q=torch.full((N,), -math.log(N)),
    )
    torch.testing.assert_close(loss, torch.log(torch.tensor(float(N))))


def test_a_sample_stands_for_all_items() -> None:
    loss = sampled_cross_entropy(
        torch.zeros(1, D),
        torch.zeros(100, D),
        torch.zeros(100),
        (torch.tensor([0]), torch.tensor([2]), torch.tensor([1.0])),
        negatives=torch.tensor([5, 9]),
        log_q=torch.full((2,), -math.log(100)),
    )
    torch.testing.assert_close(loss, torch.log(torch.tensor(101.0)))


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_however_negatives_are_drawn_they_estimate_the_same(power: float) -> None:
    draw = np.random.default_rng(0)
    q = (draw.integers(1, 50, 40).astype(float)) ** power
    q /= q.sum()
    drawn = draw.choice(40, 200_000, p=q)
    generator = torch.Generator().manual_seed(1)
    u, items, bias = (torch.randn(*shape, generator=generator) for shape in ((3, D), (40, D), (40,)))
    pairs = (torch.arange(3), torch.tensor([2, 0, 39]), torch.ones(3))
    loss = sampled_cross_entropy(
        u, items, bias, pairs, negatives=torch.from_numpy(drawn), log_q=torch.from_numpy(np.log(q[drawn])).float()
    )
    whole = torch.nn.functional.cross_entropy(torch.addmm(bias, u, items.T), pairs[1])
    torch.testing.assert_close(loss, whole, rtol=0.01, atol=0.0)
