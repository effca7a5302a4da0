"""What the network is asked: windows of histories side by side, and for each position the items that came next.

The network is trained on what counting does not know.  How often a user took an item before is the strongest single
fact in shops and costs nothing to keep, so its logarithm enters the training logits as an offset with a learnt
weight: the gradient then pulls at what is left over. The offset is not part of the model; the ranker adds the
counts again, with weights of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.training.dataset import Dataset
from model.training.settings import TrainSettings

I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]
DAY_MS = 86_400_000
_LARGEST_GROUP = 256
"""A larger group (a log whose times are days, an import) is cut: its pairs grow with the square of its size."""


@dataclass(frozen=True)
class Targets:
    """For every row of a dataset, the rows that are its targets: [row + 1, end[row])."""

    begin: I64
    """i64[m]: begin of the group (items of one user, session and time) that the row belongs to."""
    end: I64
    """i64[m]: row + 1 where there is no target: the user's end, or a session's start comes next."""


def find_targets(data: Dataset) -> Targets:
    """Groups and targets of all rows."""
    m = len(data)
    row = np.arange(m, dtype=np.int64)
    if m == 0:
        return Targets(row, row)
    is_item = data.is_item
    together = np.zeros(m, np.bool_)  # with the row before
    together[1:] = (
        is_item[1:] & is_item[:-1] & (data.session[1:] == data.session[:-1]) & (data.time_ms[1:] == data.time_ms[:-1])
    )
    begin = np.maximum.accumulate(np.where(together, 0, row))
    together &= (row - begin) % _LARGEST_GROUP != 0
    begin = np.maximum.accumulate(np.where(together, 0, row))
    group = np.cumsum(~together) - 1
    group_end = np.append(np.flatnonzero(~together)[1:], m)[group]  # m
    end = row + 1
    asks = np.zeros(m, np.bool_)
    asks[:-1] = is_item[1:] & (data.user[1:] == data.user[:-1])
    end[asks] = group_end[row[asks] + 1]
    return Targets(begin, end)


def windows(data: Dataset, longest: int) -> I64:
    """Pieces [first, last) of the users' histories, none longer than `longest`. i64[w, 2]."""
    starts = np.flatnonzero(np.append(True, data.user[1:] != data.user[:-1]))
    ends = np.append(starts[1:], len(data))
    pieces = [
        (first, min(first + longest, int(end)))
        for start, end in zip(starts, ends, strict=True)
        for first in range(int(start), int(end), longest)
    ]
    return np.array(pieces, np.int64).reshape(-1, 2)


@dataclass(frozen=True)
class Batch:
    """Windows side by side, and what is asked of them."""

    tokens: Tensor
    """i64[T, B], padded with the start token."""
    position: Tensor
    """i64[P]: flat index into [T, B] of each position that has targets."""
    row: I64
    """i64[P]: its row in the dataset."""
    pairs: tuple[Tensor, Tensor, Tensor]
    """Position (into P), target item, share."""
    done: tuple[Tensor, Tensor]
    """Position (into P) and item of the basket that is in it already."""
    offset: tuple[Tensor, Tensor] | None
    """log(1 + count / floor) f32[G, n], and each position's row in it."""

    def to(self, device: torch.device) -> Batch:
        """The same on a device; `row` stays."""
        if device.type == "cpu":
            return self

        def moved(tensors: tuple[Tensor, ...]) -> tuple[Any, ...]:
            return tuple(tensor.to(device, non_blocking=True) for tensor in tensors)

        tokens, position = moved((self.tokens, self.position))
        offset = None if self.offset is None else moved(self.offset)
        return Batch(tokens, position, self.row, moved(self.pairs), moved(self.done), offset)


class Batches:
    """Makes batches of a dataset."""

    def __init__(self, data: Dataset, settings: TrainSettings) -> None:
        self.data = data
        self.settings = settings
        self.item = data.item
        self.targets = find_targets(data)
        self.windows = windows(data, settings.window_events)
        last_user = int(data.user[-1]) if len(data) else -1
        self.user_begin = np.searchsorted(data.user, np.arange(last_user + 1))
        self.with_offset = settings.offset and data.has_time and data.items <= settings.full_softmax_items

    @property
    def asks(self) -> bool:
        """Whether any position has a target."""
        return bool((self.targets.end > np.arange(len(self.data)) + 1).any())

    def epoch(self, draw: np.random.Generator, skip: int = 0) -> Iterator[tuple[int, int, Batch]]:
        """All windows once, those of like length together, the batches in random order.

        Gives the number of a batch from 1 on, of how many, and the batch; none is made of the first `skip`. The
        order inside a group says nothing, so each epoch has another one.
        """
        order = np.lexsort((draw.random(len(self.item)), self.targets.begin))
        self.item = self.data.item[order]
        length = self.windows[:, 1] - self.windows[:, 0]
        order = np.argsort(length + draw.random(len(length)) * 0.2 * length)
        batches: list[I64] = []
        first = 0
        for k in range(1, len(order) + 1):
            # Padded size of the batch with one window more.
            if k == len(order) or (k - first + 1) * int(length[order[k]]) > self.settings.batch_events:
                batches.append(order[first:k])
                first = k
        for number, index in enumerate(draw.permutation(len(batches)), 1):
            if number > skip:
                batch = self.make(self.windows[batches[index]])
                if len(batch.row):
                    yield number, len(batches), batch

    def make(self, pieces: I64) -> Batch:
        """The batch of some windows. pieces: i64[B, 2], rows of the dataset."""
        n = self.data.items
        longest = int((pieces[:, 1] - pieces[:, 0]).max())
        tokens = np.full((longest, len(pieces)), n, np.int64)  # T B
        flat, rows = [], []
        for column, (first, last) in enumerate(pieces):
            tokens[: last - first, column] = self.item[first:last]
            asking = np.arange(first, last)[self.targets.end[first:last] > np.arange(first, last) + 1]
            rows.append(asking)
            flat.append((asking - first) * len(pieces) + column)
        row = np.concatenate(rows)
        count = self.targets.end[row] - row - 1  # P
        pair_position, pair_row = _ranges(row + 1, count)
        group = self.targets.begin[row + 1]  # P: where the asked group begins
        done_position, done_row = _ranges(group, row + 1 - group)
        # What the user takes once more is still to be found.
        again = np.isin(done_position * n + self.item[done_row], pair_position * n + self.item[pair_row])
        done_position, done_row = done_position[~again], done_row[~again]
        return Batch(
            tokens=torch.from_numpy(tokens),
            position=torch.from_numpy(np.concatenate(flat)),
            row=row,
            pairs=(
                torch.from_numpy(pair_position),
                torch.from_numpy(self.item[pair_row].astype(np.int64)),
                torch.from_numpy((1.0 / count)[pair_position].astype(np.float32)),
            ),
            done=(
                torch.from_numpy(done_position),
                torch.from_numpy(self.item[done_row].astype(np.int64)),
            ),
            offset=self._offset(pieces, rows) if self.with_offset else None,
        )

    def _offset(self, pieces: I64, rows: list[I64]) -> tuple[Tensor, Tensor]:
        """What each user's decayed counts were when each group of targets began.

        Inside a window all amounts are taken at one time, that of its first group, and summed up group by group;
        a factor per group then brings the sums to its own time (forward decay, Cormode et al. 2009).
        """
        data, n = self.data, self.data.items
        half_life_ms = self.settings.offset_half_life_days * DAY_MS
        counts: list[F32] = []
        of_position: list[I64] = []
        groups = 0
        for (first, _), asking in zip(pieces, rows, strict=True):
            if not len(asking):
                continue
            begins, index = np.unique(self.targets.begin[asking + 1], return_inverse=True)  # g
            of_position.append(index + groups)
            groups += len(begins)
            history = np.arange(self.user_begin[data.user[first]], begins[-1])
            history = history[self.item[history] < n]
            time = data.time_ms[begins]  # g
            # 1000 half-lives either way are beyond any double's range, and beyond any meaning.
            amount = np.exp2(np.clip((data.time_ms[history] - time[0]) / half_life_ms, -1000, 1000))
            into = np.searchsorted(begins, history, side="right")  # the first group that begins after the row
            sums = np.bincount(into * n + self.item[history], weights=amount, minlength=len(begins) * n)
            sums = np.cumsum(sums.reshape(len(begins), n), axis=0, dtype=np.float64)  # g n
            sums *= np.exp2(np.clip(-(time - time[0]) / half_life_ms, -1000, 0))[:, None]
            counts.append(np.log1p(sums / self.settings.offset_floor).astype(np.float32))
        if not counts:
            return torch.zeros(0, n), torch.zeros(0, dtype=torch.long)
        return torch.from_numpy(np.concatenate(counts)), torch.from_numpy(np.concatenate(of_position))


def _ranges(first: I64, count: I64) -> tuple[I64, I64]:
    """For each k, first[k] ... first[k] + count[k] - 1: the k and the value of each."""
    which = np.repeat(np.arange(len(first)), count)
    within = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
    return which, first[which] + within
