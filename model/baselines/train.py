"""The training loop of the neural baselines: AdamW, a stop by validation, a limit of time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from model.baselines.base import F32, FitSettings
from model.errors import TrainingError
from model.evaluation.metrics import hit_rate, ranks
from model.evaluation.questions import Questions

_VALIDATION_QUESTIONS = 5000
"""Asked after each epoch: HR@10 is then sure to 0.006, and asking costs less than learning."""


@dataclass(frozen=True)
class DescentSettings:
    """How to descend."""

    learning_rate: float = 1e-3
    """A fifth of it after the first stop by validation: worth 0.005 to 0.01 of HR@10 at the price of some epochs."""
    weight_decay: float = 1e-2
    epochs: int = 400
    """At most; the stop by validation comes long before."""
    patience: int = 6
    """Epochs without a better HR@10 before the rate falls, and then before the end."""
    largest_gradient: float = 5.0
    """Norm to which gradients are cut: recurrent networks need it."""


def pick_device(wanted: str | None) -> torch.device:
    """What is wanted, or the GPU if there is one."""
    return torch.device(wanted or ("cuda" if torch.cuda.is_available() else "cpu"))


def descend(
    network: nn.Module,
    losses: Callable[[], Iterator[Tensor]],
    score: Callable[[Questions], F32],
    fit: FitSettings,
    settings: DescentSettings,
) -> None:
    """Train in place, and leave the weights that were best on validation; without one, the last.

    losses: the losses of an epoch's batches, each made when it is asked for.  score: as Model.score.
    Raises TrainingError when a loss is no number.
    """
    clock = fit.clock
    began_s, step, best, worse, falls = clock(), 0, -1.0, 0, 0
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    kept = _copy(network)
    judged = fit.validation is not None and len(fit.validation) > 0
    for _ in range(settings.epochs):
        network.train()
        loss = torch.zeros(())
        for loss in losses():
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            nn.utils.clip_grad_norm_(network.parameters(), settings.largest_gradient)
            optimizer.step()
            step += 1
            if clock() - began_s > fit.max_seconds:
                break
        last = float(loss.detach())
        if not math.isfinite(last):
            raise TrainingError(f"The loss of step {step} is {last}; lower the learning rate.")
        network.eval()
        over = clock() - began_s > fit.max_seconds
        hits = validation_hits(score, fit.validation) if judged and fit.validation is not None else math.nan
        if fit.progress is not None:
            fit.progress(step, last, hits, max(fit.max_seconds - (clock() - began_s), 0.0))
        if not judged or hits > best:
            best, worse, kept = hits, 0, _copy(network)
        else:
            worse += 1
        if worse == settings.patience:
            worse, falls = 0, falls + 1
            network.load_state_dict(kept)
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate / 5.0
        if over or falls == 2:
            break
    network.load_state_dict(kept)
    network.eval()


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def validation_hits(score: Callable[[Questions], F32], questions: Questions) -> float:
    """HR@10 over a part of the questions; seen items are left out where fewer than half of the answers were seen."""
    if len(questions) > _VALIDATION_QUESTIONS:
        questions = questions.select(np.linspace(0, len(questions) - 1, _VALIDATION_QUESTIONS).astype(np.int64))
    filtered = float(questions.repeats.mean()) < 0.5
    if filtered:
        questions = questions.select(~questions.repeats)
    found = []
    for block in questions.blocks():
        scores = score(block)
        if filtered:
            block.mask_seen(scores)
        found.append(ranks(scores, block.target))
    return hit_rate(np.concatenate(found), 10)
