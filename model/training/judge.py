"""How well the network alone, without counts, answers the validation questions while it is trained."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch

from model.evaluation.metrics import hit_rate, ndcg, ranks
from model.evaluation.questions import Questions
from model.interest_net import InterestNet
from model.training.batches import Batches
from model.training.settings import TrainSettings

I64 = npt.NDArray[np.int64]
_PADDED_EVENTS = 16_384
"""Events of the histories that are read at once."""


class Judge:
    """Asks a network some questions; it may be asked again and again."""

    def __init__(self, questions: Questions, settings: TrainSettings) -> None:
        """The questions of some users, drawn by the seed, so that they are about settings.validation_questions.

        What the user has seen is filtered with leave-one-out, as that protocol is always told; else only what is in
        the basket already.
        """
        self.seen_filtered = settings.protocol == "leave-one-out"
        if self.seen_filtered:
            questions = questions.select(~questions.repeats)
        questions = _sample(questions, settings)
        data, self.row = questions.data, questions.row  # q
        self.batches = Batches(data, settings)
        self.batches.with_offset = False
        user = data.user[self.row]
        last = self.row[np.append(user[1:] != user[:-1], True)] if len(user) else self.row  # a user each
        begin = np.searchsorted(data.user, data.user[last])
        self.pieces = np.stack([np.maximum(begin, last + 1 - 2 * settings.window_events), last + 1], axis=1)

    def __len__(self) -> int:
        return len(self.row)

    def __call__(self, network: InterestNet, device: torch.device) -> dict[str, float]:
        """hr@10, ndcg@10, hr@20 and ndcg@20."""
        network.eval()
        with torch.no_grad():
            matrix = network.item_matrix()  # n d
            found = [self._ask(network, matrix, pieces, device) for pieces in self._blocks()]
        rank = np.concatenate(found) if found else np.empty(0)
        return {f"{name}@{k}": metric(rank, k) for k in (10, 20) for name, metric in (("hr", hit_rate), ("ndcg", ndcg))}

    def _blocks(self) -> Iterable[I64]:
        """The users' pieces of history, those of like length together."""
        length = self.pieces[:, 1] - self.pieces[:, 0]
        order = np.argsort(length, kind="stable")
        first = 0
        for k in range(1, len(order) + 1):
            if k == len(order) or (k - first + 1) * int(length[order[k]]) > _PADDED_EVENTS:
                yield self.pieces[order[first:k]]
                first = k

    def _ask(
        self, network: InterestNet, matrix: torch.Tensor, pieces: I64, device: torch.device
    ) -> npt.NDArray[np.float64]:
        data = self.batches.data
        batch = self.batches.make(pieces)
        later = np.flatnonzero(np.isin(batch.row + 1, self.row))  # positions before a question's row
        if not len(later):
            return np.empty(0)
        out = network.sequence(batch.tokens.to(device))  # T B d
        u = out.reshape(-1, out.shape[-1])[batch.position[later].to(device)]  # q d
        scores = torch.addmm(network.item_bias, u, matrix.T).cpu().numpy()  # q n
        if self.seen_filtered:
            Questions(data, batch.row[later] + 1).mask_seen(scores)
        else:
            where = np.full(len(batch.row), -1, np.int64)
            where[later] = np.arange(len(later))
            position = where[batch.done[0].numpy()]
            scores[position[position >= 0], batch.done[1].numpy()[position >= 0]] = -np.inf
        return ranks(scores, data.item[batch.row[later] + 1])


def _sample(questions: Questions, settings: TrainSettings) -> Questions:
    """The questions of users as they are drawn, until there are enough, over a log of these users only."""
    data = questions.data
    users, count = np.unique(questions.user, return_counts=True)
    order = np.random.default_rng(settings.seed).permutation(len(users))
    drawn = users[order[np.cumsum(count[order]) - count[order] < settings.validation_questions]]
    kept = np.isin(data.user, drawn)
    row = (np.cumsum(kept) - 1)[questions.row[np.isin(questions.user, drawn)]]
    return Questions(data.select(kept), row.astype(np.int64))
