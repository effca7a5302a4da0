"""SASRec (Kang, McAuley 2018), with cross-entropy over all items: attention over the last items."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.baselines.sequence import SequenceModel


class Block(nn.Module):
    """Causal attention, then a feed-forward layer, each beside a residual path.

    B windows, T events, d width, H heads.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(dim)
        self.to_qkv = nn.Linear(dim, 3 * dim)
        self.from_attention = nn.Linear(dim, dim)
        self.norm_mix = nn.LayerNorm(dim)
        self.mix = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * dim, dim))
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        qkv = self.to_qkv(self.norm_attention(x)).view(b, t, 3, self.heads, d // self.heads)  # B T 3 H d/H
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # B H T d/H each
        rate = self.drop.p if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=rate, is_causal=True)  # B H T d/H
        x = x + self.drop(self.from_attention(mixed.transpose(1, 2).reshape(b, t, d)))  # B T d
        out: Tensor = x + self.drop(self.mix(self.norm_mix(x)))  # B T d
        return out


class SASRecNet(nn.Module):
    """Embedding and place, blocks, norm. B windows, T events, d width, n items."""

    def __init__(self, items: int, length: int, dim: int, blocks: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(items + 1, dim)
        nn.init.normal_(self.embedding.weight, std=dim**-0.5)
        self.bias = nn.Parameter(torch.zeros(items))  # n
        self.place = nn.Parameter(torch.randn(length, dim) * dim**-0.5)  # length d
        self.blocks = nn.ModuleList(Block(dim, heads, dropout) for _ in range(blocks))
        self.norm = nn.LayerNorm(dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.drop(self.embedding(tokens) + self.place[: tokens.shape[1]])  # B T d
        for block in self.blocks:
            x = block(x)  # B T d
        out: Tensor = self.norm(x)  # B T d
        return out


class SASRec(SequenceModel):
    """The attention baseline; the sizes are those of the published figures on MovieLens-1M."""

    name = "sasrec"

    def __init__(self, dim: int = 64, blocks: int = 2, heads: int = 2, dropout: float = 0.2) -> None:
        self._dim = dim
        self._blocks = blocks
        self._heads = heads
        self._dropout = dropout

    def network(self, items: int) -> SASRecNet:
        return SASRecNet(items, self.length, self._dim, self._blocks, self._heads, self._dropout)
