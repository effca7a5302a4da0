"""Questions to a model: which item did this user take next?

    rows of a user:   milk   bread   start   eggs   butter
    question:                                       ^ row: the answer; all before it is the history

Letters in shapes: m rows, n items, q questions, L length of a history.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from model.training.dataset import Dataset

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

BLOCK = 256
"""Questions scored at once: at 50,000 items a block of scores takes 51 MB."""


class Histories(NamedTuple):
    """The last L item rows before each question (no session starts), the newest last."""

    item: I32
    """i32[q, L], left-padded with n."""
    type: U8
    """u8[q, L], left-padded with 0."""
    time_ms: I64
    """i64[q, L], left-padded with 0."""


@dataclass(frozen=True, eq=False)
class Questions:
    """q questions: which item did this user take at row `row`, given the user's rows before it?

    The history of question k is rows begin[k] .. row[k] - 1 of `data`, session starts among them.
    """

    data: Dataset
    """The whole log: rows of a question's user before it, whatever a model was trained on."""
    row: I64
    """i64[q]: rows of `data` whose item is the answer."""

    def __len__(self) -> int:
        return len(self.row)

    @property
    def items(self) -> int:
        """n."""
        return self.data.items

    @cached_property
    def user(self) -> I32:
        """i32[q]."""
        return self.data.user[self.row]

    @cached_property
    def target(self) -> I32:
        """i32[q]: the answers."""
        return self.data.item[self.row]

    @cached_property
    def time_ms(self) -> I64:
        """i64[q]: when the answer was given."""
        return self.data.time_ms[self.row]

    @cached_property
    def begin(self) -> I64:
        """i64[q]: the first row of the question's user."""
        return np.searchsorted(self.data.user, self.user).astype(np.int64)

    def select(self, which: Bool | I64 | slice) -> Questions:
        """The part with these questions, in their order."""
        return Questions(self.data, self.row[which])

    def blocks(self, size: int = BLOCK) -> Iterator[Questions]:
        """All questions in order, at most `size` at once."""
        for start in range(0, len(self), size):
            yield self.select(slice(start, start + size))

    def histories(self, length: int) -> Histories:
        """The last `length` item rows before each question."""
        n, data = self.items, self.data
        found = Histories(
            np.full((len(self), length), n, np.int32),
            np.zeros((len(self), length), np.uint8),
            np.zeros((len(self), length), np.int64),
        )
        for k, (begin, row) in enumerate(zip(self.begin.tolist(), self.row.tolist(), strict=True)):
            rows = np.flatnonzero(data.item[begin:row] < n)[-length:] + begin
            place = slice(length - len(rows), length)
            found.item[k, place] = data.item[rows]
            found.type[k, place] = data.type[rows]
            found.time_ms[k, place] = data.time_ms[rows]
        return found

    def seen(self, k: int) -> I32:
        """The items of the history of question k, each once, ascending. i32[any]."""
        items = self.data.item[self.begin[k] : self.row[k]]
        return np.unique(items[items < self.items])

    @cached_property
    def repeats(self) -> Bool:
        """bool[q]: the answer is an item of the history."""
        item = self.data.item
        pairs = zip(self.begin.tolist(), self.row.tolist(), strict=True)
        return np.array([bool((item[begin:row] == item[row]).any()) for begin, row in pairs], np.bool_)

    def mask_seen(self, scores: F32) -> None:
        """Set the scores f32[q, n] of the items of each history to -inf."""
        for k in range(len(self)):
            scores[k, self.seen(k)] = -np.inf
