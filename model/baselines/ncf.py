"""NCF (He et al. 2017): a dense network over a user's and an item's vectors, beside their product (NeuMF)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.baselines.base import F32, FitSettings
from model.baselines.related import user_item_pairs
from model.baselines.train import DescentSettings, descend, pick_device
from model.evaluation.questions import Questions
from model.training.dataset import Dataset

_USERS_AT_ONCE = 16
"""Users scored side by side: the first dense layer of 16 users and 10,000 items is 82 MB."""


class NeuMf(nn.Module):
    """B users, n items, f factors; the dense tower is 4f -> 2f -> f."""

    def __init__(self, users: int, items: int, factors: int) -> None:
        super().__init__()
        self.user_product = nn.Embedding(users, factors)
        self.item_product = nn.Embedding(items, factors)
        self.user_dense = nn.Embedding(users, 2 * factors)
        self.item_dense = nn.Embedding(items, 2 * factors)
        for table in (self.user_product, self.item_product, self.user_dense, self.item_dense):
            nn.init.normal_(table.weight, std=0.01)
        # The first layer over (user, item) is a layer of each, added: all pairs then need it only once each.
        self.from_user = nn.Linear(2 * factors, 2 * factors)
        self.from_item = nn.Linear(2 * factors, 2 * factors, bias=False)
        self.tower = nn.Sequential(nn.ReLU(), nn.Linear(2 * factors, factors), nn.ReLU())
        self.out = nn.Linear(2 * factors, 1)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """Logits that each user takes each of k items of their own. i64[B], i64[B, k] -> f32[B, k]."""
        product = self.user_product(user)[:, None] * self.item_product(item)  # B k f
        first = self.from_user(self.user_dense(user))[:, None] + self.from_item(self.item_dense(item))  # B k 2f
        out: Tensor = self.out(torch.cat([product, self.tower(first)], dim=2))[..., 0]  # B k
        return out

    def all_items(self, user: Tensor) -> Tensor:
        """Logits of all items. i64[B] -> f32[B, n]."""
        of_product, of_dense = self.out.weight[0].chunk(2)  # f each
        product = (self.user_product(user) * of_product) @ self.item_product.weight.T  # B n
        first = self.from_user(self.user_dense(user))[:, None] + self.from_item(self.item_dense.weight)  # B n 2f
        out: Tensor = product + self.tower(first) @ of_dense + self.out.bias  # B n
        return out


class NCF:
    """The dense baseline. A user knows what training knew of them; one who is new gets the mean of all users."""

    name = "ncf"
    negatives = 4
    """Items not taken, drawn for each that was; the paper's."""
    batch = 1024
    """Taken items of a step: the paper's 256 pairs are four times slower and no better."""

    def __init__(self, factors: int = 32, learning_rate: float = 1e-3) -> None:
        self._factors = factors
        self.descent = DescentSettings(learning_rate=learning_rate, weight_decay=0.0)

    def fit(self, train: Dataset, fit: FitSettings) -> None:
        torch.set_num_threads(fit.threads)
        self._device = pick_device(fit.device)
        pairs = user_item_pairs(train)
        users, n = len(train.user_ids), train.items
        user, item = (torch.from_numpy(column).to(self._device) for column in pairs)  # p each
        keys = user * n + item  # p, ascending
        self._known = np.zeros(users, np.bool_)  # N
        self._known[pairs[0]] = True
        with torch.random.fork_rng():
            torch.manual_seed(fit.seed)
            self._network = NeuMf(users, n, self._factors).to(self._device)

            def losses() -> Iterator[Tensor]:
                for chosen in torch.split(torch.randperm(len(keys), device=self._device), self.batch):
                    drawn = torch.randint(n, (len(chosen), self.negatives), device=self._device)  # B negatives
                    key = user[chosen, None] * n + drawn
                    at = torch.searchsorted(keys, key).clamp(max=len(keys) - 1)
                    logits = self._network(user[chosen], torch.cat([item[chosen, None], drawn], dim=1))
                    truth, weight = torch.zeros_like(logits), torch.ones_like(logits)  # B 1+negatives
                    truth[:, 0] = 1.0
                    weight[:, 1:] = keys[at] != key  # those the user took are no negatives
                    yield F.binary_cross_entropy_with_logits(logits, truth, weight)

            descend(self._network, losses, self.score, fit, self.descent)

    def score(self, questions: Questions) -> F32:
        user = torch.from_numpy(questions.user.astype(np.int64)).to(self._device)  # q
        with torch.no_grad():
            self._average_strangers()
            blocks = [self._network.all_items(part) for part in torch.split(user, _USERS_AT_ONCE)]  # 16 n each
        return cast("F32", torch.cat(blocks).cpu().numpy())  # q n

    def _average_strangers(self) -> None:
        """Training leaves the vectors of users without events where they began: give them the mean of the others."""
        known = torch.from_numpy(self._known).to(self._device)  # N
        for table in (self._network.user_product, self._network.user_dense):
            table.weight[~known] = table.weight[known].mean(dim=0)
