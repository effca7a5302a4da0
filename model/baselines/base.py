"""What every model of the evaluation can do: learn a log, then score all items for a question.

Letters in shapes, here and in the models: n items, q questions, B sequences or users of a batch, T their length,
d width, N users of the log.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from model.errors import DatasetError
from model.evaluation.questions import Questions
from model.training.dataset import Dataset

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

Progress = Callable[[int, float, float, float], None]
"""Called with step, loss, validation HR@10 (nan without validation) and remaining seconds."""


@dataclass(frozen=True)
class FitSettings:
    """What every model is given beside the log."""

    seed: int = 1
    threads: int = 1
    max_seconds: float = 600.0
    """Of the fit, by `clock`; models that count instead of descending need a small part of it and do not look."""
    validation: Questions | None = None
    """Questions to stop by. Models without a stop do not read them."""
    progress: Progress | None = None
    device: str | None = None
    """Where networks are: cpu or cuda; None: the GPU if there is one."""
    clock: Callable[[], float] = time.perf_counter
    """Seconds; time.process_time counts those of the CPU, which other work on the machine does not shorten."""


class Model(Protocol):
    """A model of the evaluation."""

    name: str

    def fit(self, train: Dataset, fit: FitSettings) -> None:
        """Learn from all rows of `train`; on a CPU the same data, seed and threads give the same scores.

        Raises DatasetError where the data is too large or has nothing to learn from.
        """

    def score(self, questions: Questions) -> F32:
        """Score all items for each question: f32[q, n], larger is better, finite.

        A question's history may hold rows that were not trained on, and its user may be new. Items of the history
        are scored like others; leaving them out is the caller's business.
        """


def item_rows(train: Dataset) -> Bool:
    """Rows that are items: bool[m].  Raises DatasetError where there is none."""
    rows = train.is_item
    if not rows.any():
        raise DatasetError(f"{train.source}: has no event of an item, so there is nothing to learn; give a longer log.")
    return rows
