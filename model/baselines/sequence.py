"""What networks over sequences share: windows of histories, the loss of the next item, scoring.

    taken:     milk    bread   eggs           the start token (n) stands before a user's first item
    tokens:    start   milk    bread   (pad)
    targets:   milk    bread   eggs    none

Windows are padded on the right, so that a causal network never meets the padding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.baselines.base import F32, I64, FitSettings, item_rows
from model.baselines.train import DescentSettings, descend, pick_device
from model.evaluation.questions import Questions
from model.training.dataset import Dataset

_FULL_SOFTMAX_ITEMS = 10_000
"""Above, the softmax is over the target and drawn items: all of them would take most of the time."""
_NEGATIVES = 2048


class SequenceNet(Protocol):
    """A network of sequences; an nn.Module."""

    embedding: nn.Embedding
    """f32[n + 1, d]: tied to the output."""
    bias: nn.Parameter
    """f32[n]."""

    def __call__(self, tokens: Tensor) -> Tensor:
        """i64[B, T] -> f32[B, T, d]; position t depends on tokens 0..t."""


class SequenceModel(ABC):
    """A Model around a network over the last `length` items."""

    name: str
    length = 200
    """T. MovieLens-1M has 165 items a user; the published figures are with 200."""
    batch = 128
    """B: windows of a step."""
    descent = DescentSettings()

    @abstractmethod
    def network(self, items: int) -> nn.Module:
        """A new network over n items, with the attributes of SequenceNet."""

    def fit(self, train: Dataset, fit: FitSettings) -> None:
        torch.set_num_threads(fit.threads)
        self._device = pick_device(fit.device)
        draw = np.random.default_rng(fit.seed)
        rows = item_rows(train)
        user, item = train.user[rows], train.item[rows].astype(np.int64)
        first = np.append(True, user[1:] != user[:-1])
        before = np.where(first, train.items, np.append(train.items, item[:-1]))
        borders = np.append(np.flatnonzero(first), len(item))
        with torch.random.fork_rng():
            torch.manual_seed(fit.seed)
            self._network = self.network(train.items).to(self._device)

            def losses() -> Iterator[Tensor]:
                windows = cut(borders, self.length, draw)  # w 2
                for k in range(0, len(windows), self.batch):
                    tokens, targets = self._pad(windows[k : k + self.batch], before, item)  # B T each
                    yield self._loss(tokens, targets)

            descend(self._network, losses, self.score, fit, self.descent)

    def _pad(self, windows: I64, before: I64, item: I64) -> tuple[Tensor, Tensor]:
        """Tokens and targets of some windows, i64[B, T] each; the targets of the padding are -1."""
        longest = int((windows[:, 1] - windows[:, 0]).max())
        row = windows[:, :1] + np.arange(longest)  # B T
        real = row < windows[:, 1:]  # B T
        row = np.where(real, row, 0)
        tokens, targets = np.where(real, before[row], 0), np.where(real, item[row], -1)  # B T
        return torch.from_numpy(tokens).to(self._device), torch.from_numpy(targets).to(self._device)

    def _loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        net: SequenceNet = self._network  # type: ignore[assignment]  # nn.Module hides what it holds
        real = targets >= 0  # B T
        u, target = net(tokens)[real], targets[real]  # P d, P
        matrix, bias = net.embedding.weight[:-1], net.bias  # n d, n
        if len(bias) <= _FULL_SOFTMAX_ITEMS:
            return F.cross_entropy(torch.addmm(bias, u, matrix.T), target)
        drawn = torch.randint(len(bias), (_NEGATIVES,), device=u.device)  # C
        # Uniform draws: the sum over C items, times n / C, stands for that over all (Jean et al. 2015).
        others = torch.addmm(bias[drawn] + np.log(len(bias) / _NEGATIVES), u, matrix[drawn].T)  # P C
        others = others.masked_fill(drawn == target[:, None], -torch.inf)  # P C
        own = (u * matrix[target]).sum(dim=1) + bias[target]  # P
        return F.cross_entropy(torch.cat([own[:, None], others], dim=1), torch.zeros_like(target))

    def score(self, questions: Questions) -> F32:
        net: SequenceNet = self._network  # type: ignore[assignment]  # nn.Module hides what it holds
        history = questions.histories(self.length).item  # q T, padded on the left
        shift = np.maximum((history == questions.items).sum(axis=1) - 1, 0)  # q: all of the padding but one start
        at = np.arange(self.length) + shift[:, None]  # q T
        tokens = np.take_along_axis(history, np.minimum(at, self.length - 1), axis=1)  # q T, padded on the right
        with torch.no_grad():
            x = net(torch.from_numpy(tokens.astype(np.int64)).to(self._device))  # q T d
            last = torch.from_numpy(self.length - 1 - shift).to(self._device)  # q
            u = x[torch.arange(len(x), device=x.device), last]  # q d
            scores: F32 = torch.addmm(net.bias, u, net.embedding.weight[:-1].T).cpu().numpy()  # q n
        return scores


def cut(borders: I64, length: int, draw: np.random.Generator) -> I64:
    """All rows in windows [first, last) of at most `length`, in random order: i64[w, 2].

    borders: first row of each user, and the end: i64[users + 1].  Where a user has more rows, the first window's
    length is drawn, so that no two epochs cut at the same places.
    """
    windows = []
    for begin, end in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True):
        first = begin if end - begin <= length else begin - int(draw.integers(length))
        windows += [(max(start, begin), min(start + length, end)) for start in range(first, end, length)]
    return draw.permutation(np.array(windows, np.int64))
