"""Fits the learnt ranker: a small network over the features of a candidate, by what users took next.

The recommender runs over the tuning period as it would live, one event after the other; before each of a user's
next items the features of the candidates are noted, and which of them it was. Features and candidates come from the
code that makes live lists, so nothing can differ between fitting and serving.

Letters in shapes: L lists, F features, K columns (candidates kept of a list), H and H2 hidden units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from model.artifact import Artifact
from model.errors import ModelError
from model.ranking.block import Request
from model.ranking.features import FEATURES
from model.ranking.filters import excluded
from model.ranking.pipeline import Pipeline
from model.ranking.rerank import LearntBlend, LearntInputs
from model.ranking.settings import RankingSettings
from model.recommender import Portion, Recommender, Spent
from model.serving import BLOCK
from state.interaction import Interaction
from state.interest import InterestState
from state.trend import Trend
from state.weights import SESSION_START

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class BlendSettings:
    """How the learnt ranker is fitted."""

    hidden: int = 24
    """H; a candidate costs F*H + H*H2 multiplications, and a list has one candidate for each item."""
    hidden2: int = 12
    max_lists: int = 24_000
    """Lists to learn from, drawn evenly from the period; more brings nothing and takes memory."""
    positives: int = 32
    """So many of the items that the user took in the rest of the session count as right, each the same. Where a
    session's order means nothing (the items of a basket), one alone would be a dice's answer; 1 asks for the
    very next item."""
    hard: int = 96
    """Candidates of a list that speak for themselves the most: by these the order of a list is decided."""
    drawn: int = 96
    """Candidates drawn evenly from all others, standing for them in the softmax."""
    epochs: int = 6
    batch_lists: int = 64
    learning_rate: float = 1e-2
    seed: int = 0

    @property
    def columns(self) -> int:
        """K."""
        return self.positives + self.hard + self.drawn


class Examples(NamedTuple):
    """Lists to learn from."""

    features: F32
    """f32[L, F, K]."""
    log_weights: F32
    """f32[L, K]: log of how many candidates a column stands for; -inf: none."""
    rightness: F32
    """f32[L, K]: share of the right answer, 0 where a candidate was not taken; sums to 1."""


def fit_blend(
    recommender: Recommender,
    events: Sequence[tuple[bytes, Interaction]],
    states: dict[bytes, InterestState],
    trend: Trend,
    settings: BlendSettings | None = None,
) -> dict[str, F32]:
    """Fit the learnt ranker on a period of the log, and return the arrays for an artifact's `blend`.

    recommender: over the artifact to fit for; its exclusion is kept to. events: the period, in log order (of one
    partition). states, trend: as they were before the period (`Recommender.absorb` brings them there); they are
    taken through it. The loss is the cross-entropy of what the user took next, among the candidates.
    Raises ModelError when the period holds no list with a known next item.
    """
    chosen = settings or BlendSettings()
    return fit_examples(collect_examples(recommender, events, states, trend, chosen), chosen)


def next_tokens(
    recommender: Recommender, events: Sequence[tuple[bytes, Interaction]], limit: int
) -> list[tuple[int, ...]]:
    """For each event the tokens of at most `limit` items that its user took next, up to the session's end.

    The very next item stands first. Empty where the session ended, or where the model does not know the next item.
    """
    tokens = recommender.index.tokens_by_key
    upcoming: dict[bytes, tuple[int, ...]] = {}
    found: list[tuple[int, ...]] = [()] * len(events)
    for index in range(len(events) - 1, -1, -1):
        user, interaction = events[index]
        rest = upcoming.get(user, ())
        found[index] = rest
        if interaction.type == SESSION_START:
            upcoming[user] = ()
        elif interaction.items and interaction.weight > 0.0:
            token = tokens.get(interaction.items[0])
            upcoming[user] = () if token is None else (token, *rest[: limit - 1])
    return found


def collect_examples(
    recommender: Recommender,
    events: Sequence[tuple[bytes, Interaction]],
    states: dict[bytes, InterestState],
    trend: Trend,
    settings: BlendSettings,
) -> Examples:
    """Run the period and note the lists to learn from. Raises ModelError when there is none."""
    draw = np.random.default_rng(settings.seed)
    targets = next_tokens(recommender, events, settings.positives)
    possible = np.array([index for index, tokens in enumerate(targets) if tokens], np.int64)
    if len(possible) > settings.max_lists:
        possible = draw.choice(possible, settings.max_lists, replace=False)
    wanted = np.zeros(len(events), np.bool_)
    wanted[possible] = True
    pipeline = recommender.pipeline
    inputs = LearntInputs(pipeline.candidates, recommender.artifact, recommender.ranking_settings)
    examples: list[Examples] = []
    chunk = 1024
    for start in range(0, len(events), chunk):
        portion = Portion(events[start : start + chunk], states, trend)
        (requests,) = recommender.updates([portion], "every", Spent())
        picked = [(targets[start + at], request) for at, request in requests.items() if wanted[start + at]]
        for first in range(0, len(picked), BLOCK):
            part = picked[first : first + BLOCK]
            block = pipeline.read([request for _, request in part])
            features, tokens, _, _ = inputs.of(block)
            left_out = np.concatenate(excluded(block, recommender.ranking_settings.exclude), axis=1)
            rows = _usable(tokens, list(left_out[: len(part)]), block.n, features.shape[2])
            for row, (target, _) in enumerate(part):
                example = _choose(features[row], *rows[row], target, settings, draw)
                if example is not None:
                    examples.append(example)
    if not examples:
        raise ModelError(
            "the tuning period holds no list whose next item the model knows; give a longer one, or leave it out."
        )
    return Examples(*(np.stack(parts) for parts in zip(*examples, strict=True)))


def examples_of(
    artifact: Artifact,
    pipeline: Pipeline,
    requests: Sequence[Request],
    hidden: Sequence[I64],
    right: Sequence[tuple[int, ...]],
    ranking: RankingSettings,
    settings: BlendSettings,
) -> list[Examples]:
    """The lists of some requests: an example each, none where no answer is a candidate.

    hidden: for each request the tokens i64[any] that its list may not hold; right: those that answer it. ranking: by
    whose weights the candidates of a large catalogue are chosen.
    """
    draw = np.random.default_rng(settings.seed)
    inputs = LearntInputs(pipeline.candidates, artifact, ranking)
    examples: list[Examples] = []
    for first in range(0, len(requests), BLOCK):
        block = pipeline.read(requests[first : first + BLOCK])
        own = hidden[first : first + BLOCK]
        features, tokens, _, _ = inputs.of(block, own)
        rows = _usable(tokens, own, block.n, features.shape[2])
        for row, (usable, answers) in enumerate(zip(rows, right[first : first + BLOCK], strict=True)):
            example = _choose(features[row], *usable, answers, settings, draw)
            if example is not None:
                examples.append(example)
    return examples


def _usable(tokens: I64 | None, left_out: Sequence[I64], n: int, columns: int) -> list[tuple[I64, Bools]]:
    """For each row the token of each column, and whether it may be on the list; left_out: i64[any] of each row."""
    rows = len(left_out)
    all_tokens = np.broadcast_to(np.arange(columns), (rows, columns)) if tokens is None else tokens[:rows]
    all_tokens = np.minimum(all_tokens, n)
    hidden = np.zeros((rows, n + 1), np.bool_)
    for row, own in enumerate(left_out):
        hidden[row, own] = True
    hidden[:, n] = True
    return list(zip(all_tokens, ~np.take_along_axis(hidden, all_tokens, axis=1), strict=True))


def _choose(
    features: F32,
    tokens: I64,
    usable: Bools,
    target: tuple[int, ...],
    settings: BlendSettings,
    draw: np.random.Generator,
) -> Examples | None:
    """Of one list the items taken, the hard candidates and some of the others; None if nothing taken is among them."""
    taken = np.isin(tokens, target) & usable
    if not taken.any():
        return None
    # What an even sum of the signals puts on top: frequency, recency, network, rules, popularity.
    signal = features[[0, 1, 3, 4, 5, 7]].sum(axis=0)
    signal[~usable | taken] = -np.inf
    order = np.argsort(-signal, kind="stable")[: int((usable & ~taken).sum())]
    right, hard, rest = np.flatnonzero(taken), order[: settings.hard], order[settings.hard :]
    drawn = draw.choice(rest, min(settings.drawn, len(rest)), replace=False)
    picked = np.concatenate([right, hard, drawn])
    values = np.zeros((len(FEATURES), settings.columns), np.float32)
    values[:, : len(picked)] = features[:, picked]
    log_weights = np.full(settings.columns, -np.inf, np.float32)
    log_weights[: len(picked)] = 0.0
    if len(drawn):
        log_weights[len(picked) - len(drawn) : len(picked)] = np.log(len(rest) / len(drawn))
    rightness = np.zeros(settings.columns, np.float32)
    rightness[: len(right)] = 1.0 / len(right)
    return Examples(values, log_weights, rightness)


class _Blend(nn.Module):
    """F -> H -> H2 -> 1 for each candidate: what rerank.LearntBlend computes."""

    def __init__(self, settings: BlendSettings) -> None:
        super().__init__()
        self.first = nn.Linear(len(FEATURES), settings.hidden)
        self.second = nn.Linear(settings.hidden, settings.hidden2)
        self.third = nn.Linear(settings.hidden2, 1, bias=False)  # a constant changes no order

    def forward(self, features: Tensor) -> Tensor:
        """features: f32[L, K, F]; result: f32[L, K]."""
        hidden = functional.relu(self.first(features))  # L K H
        hidden = functional.relu(self.second(hidden))  # L K H2
        out: Tensor = self.third(hidden).squeeze(-1)  # L K
        return out


def fit_examples(examples: Examples, settings: BlendSettings) -> dict[str, F32]:
    """Fit the network by Adam; the same examples and settings give the same arrays on one machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _fitted(examples, settings)
    finally:
        torch.set_num_threads(threads)


def _fitted(examples: Examples, settings: BlendSettings) -> dict[str, F32]:
    lists = len(examples.features)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = _Blend(settings)
        inputs = torch.from_numpy(np.ascontiguousarray(examples.features.transpose(0, 2, 1)))  # L K F
        log_weights = torch.from_numpy(examples.log_weights)  # L K
        rightness = torch.from_numpy(examples.rightness)  # L K
        optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
        steps = settings.epochs * -(-lists // settings.batch_lists)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, settings.learning_rate, total_steps=steps, pct_start=0.1
        )
        for _ in range(settings.epochs):
            order = torch.randperm(lists)
            for start in range(0, lists, settings.batch_lists):
                rows = order[start : start + settings.batch_lists]
                logits = network(inputs[rows])  # rows K
                whole = torch.logsumexp(logits + log_weights[rows], dim=1)  # rows
                loss = (whole - (logits * rightness[rows]).sum(dim=1)).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    layers = (network.first, network.second, network.third)
    arrays = [layers[0].weight, layers[0].bias, layers[1].weight, layers[1].bias, layers[2].weight]
    return {name: array.detach().numpy().copy() for name, array in zip(LearntBlend.ARRAYS, arrays, strict=True)}
