"""Asks a model all questions of a split, with all items as candidates.

No sampled candidates: sampled metrics order models wrongly (Krichene, Rendle 2020).
Letters in shapes: n items, q questions, K length of the lists kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from model.errors import ModelError
from model.evaluation.metrics import ranks
from model.evaluation.questions import Questions

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]


class Scoring(Protocol):
    """What is asked of a model here; model.baselines.base.Model has it."""

    name: str

    def score(self, questions: Questions) -> F32:
        """f32[q, n]: scores of all items, larger is better; -inf: cannot be recommended."""


@dataclass(frozen=True, eq=False)
class Judged:
    """How one model answered q questions."""

    name: str
    questions: Questions
    """Those that were asked: with seen items filtered, questions whose answer had been seen are none."""
    rank: F64
    """f64[q]: place of the answer, 1 is best; equals share the middle of their places; inf: it was no candidate."""
    top: I32
    """i32[q, K]: the lists, best first, equals by token; n where there are no more candidates."""
    seen_filtered: bool
    k: tuple[int, ...]
    """Lengths of lists that metrics are asked for; the largest is K."""


def judge(
    model: Scoring,
    questions: Questions,
    *,
    seen_filtered: bool,
    k: tuple[int, ...] = (10,),
    progress: Callable[[int, int], None] | None = None,
) -> Judged:
    """Ask all questions, a block at a time; what the user has seen is masked here and not by the model.

    progress: called with the questions answered and their number.  Raises ModelError when the model gives a score
    that is no number.
    """
    if seen_filtered:
        questions = questions.select(~questions.repeats)
    size = min(max(k), questions.items)
    rank = np.empty(len(questions), np.float64)
    top = np.full((len(questions), size), questions.items, np.int32)
    start = 0
    for block in questions.blocks():
        scores = np.array(model.score(block), np.float32)  # a copy: it is masked below
        if scores.shape != (len(block), questions.items):
            raise ModelError(f"{model.name}: scores of shape {scores.shape}, not {(len(block), questions.items)}.")
        if np.isnan(scores).any():
            raise ModelError(f"{model.name}: a score is no number; it cannot be compared. Train the model again.")
        if seen_filtered:
            block.mask_seen(scores)
        part = slice(start, start + len(block))
        rank[part] = ranks(scores, block.target)
        top[part] = best_items(scores, size)
        start += len(block)
        if progress is not None:
            progress(start, len(questions))
    return Judged(model.name, questions, rank, top, seen_filtered, k)


def best_items(scores: F32, size: int) -> I32:
    """The `size` best of each row, best first, equals by token; n for places left. f32[q, n] -> i32[q, size]."""
    n = scores.shape[1]
    bounds = np.partition(scores, n - size, axis=1)[:, n - size]  # q: the size-th largest
    top = np.full((len(scores), size), n, np.int32)
    for row, bound, into in zip(scores, bounds, top, strict=True):
        place = np.flatnonzero((row >= bound) & (row > -np.inf))
        best = place[np.argsort(-row[place], kind="stable")[:size]]
        into[: len(best)] = best
    return top
