"""GRU4Rec (Hidasi et al. 2016), with full cross-entropy: a recurrent network over the last items."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.baselines.sequence import SequenceModel


class GRU4RecNet(nn.Module):
    """One layer of GRU. B windows, T events, d width, h units, n items."""

    def __init__(self, items: int, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(items + 1, dim)
        nn.init.normal_(self.embedding.weight, std=dim**-0.5)
        self.bias = nn.Parameter(torch.zeros(items))  # n
        self.drop = nn.Dropout(dropout)
        self.gru = nn.GRU(dim, hidden, batch_first=True)
        self.out = nn.Linear(hidden, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.drop(self.embedding(tokens))  # B T d
        x, _ = self.gru(x)  # B T h
        out: Tensor = self.out(self.drop(x))  # B T d
        return out


class GRU4Rec(SequenceModel):
    """The recurrent baseline."""

    name = "gru4rec"

    def __init__(self, dim: int = 64, hidden: int = 256, dropout: float = 0.2) -> None:
        self._dim = dim
        self._hidden = hidden
        self._dropout = dropout

    def network(self, items: int) -> GRU4RecNet:
        return GRU4RecNet(items, self._dim, self._hidden, self._dropout)
