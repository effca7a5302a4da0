"""The training loop: when it stops, and which weights it leaves."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model.baselines.base import FitSettings
from model.baselines.train import DescentSettings, descend
from model.errors import TrainingError
from model.evaluation.questions import Questions
from model.training.dataset import dataset_from_arrays
from state.weights import PURCHASE

ITEMS = 30
DATA = dataset_from_arrays(
    user=np.repeat(np.arange(4), 2).astype(np.int32),
    item=np.array([1, 0, 2, 0, 3, 0, 4, 0], np.int32),
    type=np.full(8, PURCHASE, np.uint8),
    time_ms=np.arange(8),
    user_ids=list("uvwx"),
    item_ids=[f"i{k}" for k in range(ITEMS)],
)
VALIDATION = Questions(DATA, np.array([1, 3, 5, 7]))


class One(nn.Module):
    """One weight, pushed up by one each step (plain AdamW at rate 1 without decay)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.scored: list[float] = []

    def losses(self) -> Iterator[Tensor]:
        yield -self.weight

    def score(self, questions: Questions) -> np.ndarray:
        """Knows the answer while the weight is near 4."""
        self.scored.append(float(self.weight.detach()))
        scores = np.zeros((len(questions), ITEMS), np.float32)
        scores[:, 0] = 1.0 if 3.5 < self.scored[-1] < 4.5 else -1.0
        return scores


STEP_OF_ONE = DescentSettings(learning_rate=1.0, weight_decay=0.0, patience=3, epochs=50)


def test_stops_after_two_stands_and_leaves_the_best_weights() -> None:
    network = One()
    descend(network, network.losses, network.score, FitSettings(validation=VALIDATION), STEP_OF_ONE)
    # 1, 2, 3: worse than nothing known; at 4 the best; three worse; back to 4 and on by a fifth; three not better.
    assert [round(value, 1) for value in network.scored[:7]] == [1, 2, 3, 4, 5, 6, 7]
    assert [round(value, 1) for value in network.scored[7:]] == [4.2, 4.4, 4.6]
    assert float(network.weight.detach()) == pytest.approx(4.0, abs=0.01)
    assert not network.training


@pytest.mark.parametrize("validation", [None, VALIDATION.select(slice(0, 0))])
def test_without_validation_the_last_weights_stay(validation: Questions | None) -> None:
    network = One()
    settings = DescentSettings(learning_rate=1.0, weight_decay=0.0, epochs=9)
    descend(network, network.losses, network.score, FitSettings(validation=validation), settings)
    assert network.scored == []
    assert float(network.weight.detach()) == pytest.approx(9.0, abs=0.05)


def test_stops_in_the_middle_of_an_epoch_when_time_is_up() -> None:
    network = One()
    now_s = iter(range(1000))

    def many() -> Iterator[Tensor]:
        for _ in range(100):
            yield -network.weight

    calls: list[tuple[int, float, float, float]] = []
    fit = FitSettings(max_seconds=10.0, clock=lambda: float(next(now_s)), progress=lambda *call: calls.append(call))
    descend(network, many, network.score, fit, STEP_OF_ONE)
    assert len(calls) == 1
    assert calls[0][0] == 11  # the eleventh look at the clock is beyond ten seconds
    assert calls[0][3] == 0.0


def test_a_loss_that_is_no_number_stops_it() -> None:
    network = One()

    def broken() -> Iterator[Tensor]:
        yield network.weight * torch.nan

    with pytest.raises(TrainingError, match=r"loss of step 1 is nan"):
        descend(network, broken, network.score, FitSettings(), STEP_OF_ONE)
