"""Ways to cut a log into what a model learns and what it is asked.

    leave one out   user a:  t t t v q      temporal   user a:  t t t | v v | q
                    user b:  t t v q                   user b:  t     | v   | q q
                                                                time ->
    t: train, v: validation, q: test

A question's history is all of the user's rows before it, those of validation and test included: it is what a live
system would know.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from model.errors import DatasetError
from model.evaluation.questions import Questions
from model.training.dataset import Dataset

Protocol = Literal["leave-one-out", "temporal", "prequential"]
PROTOCOLS: tuple[Protocol, ...] = ("leave-one-out", "temporal", "prequential")


@dataclass(frozen=True, eq=False)
class Split:
    """A log in three parts; the questions refer to the whole of it."""

    train: Dataset
    validation: Questions
    test: Questions


def leave_one_out(data: Dataset) -> Split:
    """The last item of each user is the test, the one before it the validation, the rows before that the train part.

    Users with fewer than three items only train.  Raises DatasetError when no user has three.
    """
    rows = np.flatnonzero(data.is_item)
    users, first, count = np.unique(data.user[rows], return_index=True, return_counts=True)
    asked = count >= 3
    if not asked.any():
        raise DatasetError(
            f"{data.source}: no user has 3 items, so none can be asked by leave-one-out; give longer histories, or "
            "use --protocol temporal."
        )
    last = (first + count - 1)[asked]  # place in `rows` of the last item of each asked user
    validation = rows[last - 1].astype(np.int64)
    end = np.searchsorted(data.user, users, side="right").astype(np.int64)  # after the user's last row
    end[asked] = validation
    learnt = np.zeros(len(data), np.bool_)
    learnt[np.isin(data.user, users, invert=True)] = True  # users of session starts only
    for start, stop in zip(np.searchsorted(data.user, users).tolist(), end.tolist(), strict=True):
        learnt[start:stop] = True
    return Split(data.select(learnt), Questions(data, validation), Questions(data, rows[last].astype(np.int64)))


def temporal(data: Dataset, validation_share: float = 0.05, test_share: float = 0.1) -> Split:
    """The newest `test_share` of the items are the test, the `validation_share` before them the validation.

    Rows of one time are never cut apart: they go to the later part.  Raises DatasetError when a part is empty.
    """
    times = np.sort(data.time_ms[data.is_item])
    if not 0.0 < validation_share + test_share < 1.0 or len(times) == 0:
        raise DatasetError(f"{data.source}: shares of validation and test must be above 0 and below 1 together.")
    validation_from_ms, test_from_ms = (
        times[int(len(times) * (1.0 - share))] for share in (validation_share + test_share, test_share)
    )
    validation = data.is_item & (data.time_ms >= validation_from_ms) & (data.time_ms < test_from_ms)
    test = data.is_item & (data.time_ms >= test_from_ms)
    train = data.time_ms < validation_from_ms
    if not (data.is_item & train).any() or not validation.any():
        raise DatasetError(
            f"{data.source}: too few distinct times to cut into train, validation and test; give more data, or use "
            "--protocol leave-one-out."
        )
    return Split(
        data.select(train),
        Questions(data, np.flatnonzero(validation).astype(np.int64)),
        Questions(data, np.flatnonzero(test).astype(np.int64)),
    )
