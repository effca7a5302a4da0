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

from model.evaluation import offline
from model.evaluation.baselines import Scorer
from model.evaluation.metrics import hit_rate, mrr, ndcg
from model.evaluation.questions import Questions
from model.training.dataset import Dataset

F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
Hide = Literal["session", "seen", "none"]


@dataclass(frozen=True)
class Judged:
    """Ranks of one scorer; q questions."""

    rank: F64
    """f64[q]: of the next item among all candidates."""
    new_rank: F64
    """f64[r]: of those next items that were new to their user, among all items new to the user."""
    row: I64
    """i64[q]: rows of the stream that were asked for, in order of time."""
    top: I32
    """i32[q, K]: the lists, best first, n for places left; K is 0 unless lists were wanted."""

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
    known_only: bool = False,
    lists: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Judged]:
    """Let scorers learn `past`, then ask and teach them the stream in order of time.

    hide: items that are no candidates: those of the running session, all the user took before, or none (a film is
    not seen twice; bread is bought twice, but not in one basket). An item asked for that is hidden is no question.
    known_only: an item that nobody took before is no question: who learns from the stream alone cannot know it.
    lists: how many of the best items to keep of each question.
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
    known = np.zeros(n + 1, np.bool_)
    known[past.item] = True
    ranks: dict[str, list[tuple[float, float]]] = {name: [] for name in scorers}
    tops: dict[str, list[I32]] = {name: [] for name in scorers}
    asked: list[int] = []
    order = np.argsort(stream.time_ms, kind="stable")
    columns = (stream.user[order], stream.item[order], stream.time_ms[order], stream.session[order])
    for count, (user, item, time_ms, number) in enumerate(zip(*(c.tolist() for c in columns), strict=True)):
        own, in_basket = seen[user], basket[user]
        if session.get(user) != number:
            session[user] = number
            in_basket[:] = False
        if item < n:
            hidden = {"session": in_basket, "seen": own, "none": None}[hide]
            if (hidden is None or not hidden[item]) and (known[item] or not known_only):
                asked.append(count)
                for name, scorer in scorers.items():
                    scores = scorer.score(user, time_ms)
                    new = np.nan if own[item] else _rank(scores, item, own | in_basket)
                    ranks[name].append((_rank(scores, item, hidden), new))
                    if lists:
                        left = scores if hidden is None else np.where(hidden, -np.inf, scores)
                        tops[name].append(offline.best_items(left[None].astype(np.float32), min(lists, n))[0])
            own[item] = in_basket[item] = known[item] = True
        for scorer in scorers.values():
            scorer.learn(user, item, time_ms)
        if progress is not None and count % 5000 == 0:
            progress(count, len(stream))
    row = order[asked].astype(np.int64)
    judged = {}
    for name, pairs in ranks.items():
        both = np.array(pairs).reshape(-1, 2)
        top = np.array(tops[name], np.int32).reshape(len(row), min(lists, n))
        judged[name] = Judged(both[:, 0], both[~np.isnan(both[:, 1]), 1], row, top)
    return judged


def live_through(
    data: Dataset,
    scorers: Mapping[str, Scorer],
    *,
    warm_share: float,
    seen_filtered: bool,
    known_only: bool,
    k: tuple[int, ...] = (10,),
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, offline.Judged]:
    """All of a log prequentially: the first `warm_share` of its rows is only learnt, the rest asked, then learnt."""
    past, stream = warm_split(data, warm_share)
    rows = np.flatnonzero(stream)
    found = prequential(
        data.select(past),
        data.select(stream),
        scorers,
        hide="seen" if seen_filtered else "none",
        known_only=known_only,
        lists=max(k),
        progress=progress,
    )
    return {
        name: offline.Judged(name, Questions(data, rows[one.row]), one.rank, one.top, seen_filtered, k)
        for name, one in found.items()
    }


def warm_split(data: Dataset, warm_share: float) -> tuple[Bool, Bool]:
    """The rows to begin with and those to be asked, bool[m] both; rows of one time are not cut apart."""
    times = np.sort(data.time_ms)
    first = int(len(times) * warm_share)
    if first >= len(times):
        return np.ones(len(times), np.bool_), np.zeros(len(times), np.bool_)
    stream = data.time_ms >= times[first]
    return ~stream, stream


def _rank(scores: npt.NDArray[Any], item: int, hidden: Bool | None) -> float:
    """Place of an item by falling score; equals share the middle of their places."""
    if scores[item] == -np.inf:
        return np.inf  # it was no candidate
    better, equal = scores > scores[item], scores == scores[item]
    if hidden is not None:
        better, equal = better & ~hidden, equal & ~hidden
    return 1.0 + float(np.count_nonzero(better)) + (float(np.count_nonzero(equal)) - 1.0) / 2.0
