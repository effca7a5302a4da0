"""Test, then learn: every event is first a question to all scorers, then a lesson.

    time ->   start   milk   bread   eggs   start   milk ...
    asked              x       x      x              x        with all the scorer has learnt until then

This is how a live system meets its data; no event is ever used before it was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from model.evaluation.baselines import Scorer
from model.evaluation.metrics import hit_rate, mrr, ndcg
from model.training.dataset import Dataset

F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
Hide = Literal["session", "seen", "none"]


@dataclass(frozen=True)
class Judged:
    """Ranks of one scorer; q questions."""

    rank: F64
    """f64[q]: of the next item among all candidates."""
    new_rank: F64
    """f64[r]: of those next items that were new to their user, among all items new to the user."""

    def metrics(self, k: int = 20) -> dict[str, float]:
        """HR, NDCG and MRR at k, and how many questions; names begin with new_ for items new to the user."""
        return {
            f"hr@{k}": hit_rate(self.rank, k),
            f"ndcg@{k}": ndcg(self.rank, k),
            f"mrr@{k}": mrr(self.rank, k),
            f"new_hr@{k}": hit_rate(self.new_rank, k),
            f"new_ndcg@{k}": ndcg(self.new_rank, k),
            "questions": float(len(self.rank)),
            "new_questions": float(len(self.new_rank)),
        }


def prequential(
    past: Dataset,
    stream: Dataset,
    scorers: Mapping[str, Scorer],
    *,
    hide: Hide = "session",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Judged]:
    """Let scorers learn `past`, then ask and teach them the stream in order of time.

    hide: items that are no candidates: those of the running session, all the user took before, or none (a film is
    not seen twice; bread is bought twice, but not in one basket). An item asked for that is hidden is no question.
    progress: called with questions asked so far and all events now and then.
    """
    n = stream.items
    users = np.unique(stream.user)
    for scorer in scorers.values():
        scorer.begin(past, users)
    seen: dict[int, Bool] = {int(user): np.zeros(n, np.bool_) for user in users}
    for user in users:
        first, last = np.searchsorted(past.user, [user, user + 1])
        items = past.item[first:last]
        seen[int(user)][items[items < n]] = True
    basket: dict[int, Bool] = {int(user): np.zeros(n, np.bool_) for user in users}
    session: dict[int, int] = {}
    ranks: dict[str, list[tuple[float, float]]] = {name: [] for name in scorers}
    order = np.argsort(stream.time_ms, kind="stable")
    columns = (stream.user[order], stream.item[order], stream.time_ms[order], stream.session[order])
    for count, (user, item, time_ms, number) in enumerate(zip(*(c.tolist() for c in columns), strict=True)):
        own, in_basket = seen[user], basket[user]
        if session.get(user) != number:
            session[user] = number
            in_basket[:] = False
        if item < n:
            hidden = {"session": in_basket, "seen": own, "none": None}[hide]
            if hidden is None or not hidden[item]:
                for name, scorer in scorers.items():
                    scores = scorer.score(user, time_ms)
                    new = np.nan if own[item] else _rank(scores, item, own | in_basket)
                    ranks[name].append((_rank(scores, item, hidden), new))
            own[item] = in_basket[item] = True
        for scorer in scorers.values():
            scorer.learn(user, item, time_ms)
        if progress is not None and count % 5000 == 0:
            progress(count, len(stream))
    found = {name: np.array(pairs).reshape(-1, 2) for name, pairs in ranks.items()}
    return {name: Judged(both[:, 0], both[~np.isnan(both[:, 1]), 1]) for name, both in found.items()}


def _rank(scores: npt.NDArray[Any], item: int, hidden: Bool | None) -> float:
    """Place of an item by falling score; equals share the middle of their places."""
    better, equal = scores > scores[item], scores == scores[item]
    if hidden is not None:
        better, equal = better & ~hidden, equal & ~hidden
    return 1.0 + float(np.count_nonzero(better)) + (float(np.count_nonzero(equal)) - 1.0) / 2.0
