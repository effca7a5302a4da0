"""From ranks and lists to named metrics with their intervals.

Every question has one right item, so that at k: recall is hr, precision hr / k, and F1 2 hr / (k + 1). Accuracy is hr
at 1: how often the first item is the next.

Letters in shapes: n items, c categories, q questions, M metrics.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from model.evaluation import metrics
from model.evaluation.offline import Judged
from model.evaluation.questions import Questions
from model.evaluation.significance import intervals, paired_p
from model.training.dataset import Dataset

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

LEVEL = 0.95
"""Of the intervals."""


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known of the items, for the metrics beside right or wrong."""

    share: F64
    """f64[n]: each item's share of the events that models learnt from, one added to each count; sums to 1."""
    category: I64
    """i64[n + 1]: a code for each item, -1 for no category."""
    categories: int
    """c."""
    vectors: F32 | None = None
    """f32[n, d]: of each item, zero for none; for the distance of items in a list."""


def facts_of(learnt: Dataset, vectors: F32 | None = None) -> Facts:
    """The facts of a dataset's items, popularity by its own events."""
    n = learnt.items
    counts = np.bincount(learnt.item[learnt.is_item], minlength=n) + 1.0
    names = {name: code for code, name in enumerate(sorted(set(learnt.item_categories) - {""}))}
    codes = [names.get(name, -1) for name in learnt.item_categories]
    return Facts(counts / counts.sum(), np.array([*codes, -1], np.int64), len(names), vectors)


@dataclass(frozen=True, eq=False)
class Values:
    """A value of every metric for every question."""

    names: list[str]
    values: F64
    """f64[q, M], nan where a question has none."""


def values_of(judged: Judged, facts: Facts) -> Values:
    """The metrics that are means over questions."""
    rank, top = judged.rank, judged.top
    columns: dict[str, F64] = {"accuracy": (rank <= 1).astype(np.float64)}
    for k in judged.k:
        hit = (rank <= k).astype(np.float64)
        columns[f"hr@{k}"] = columns[f"recall@{k}"] = hit
        columns[f"precision@{k}"] = hit / k
        columns[f"f1@{k}"] = 2.0 * hit / (k + 1)
        columns[f"ndcg@{k}"] = np.where(rank <= k, 1.0 / np.log2(1.0 + rank), 0.0)
        columns[f"mrr@{k}"] = np.where(rank <= k, 1.0 / rank, 0.0)
        columns[f"novelty@{k}"] = metrics.novelty(top, facts.share, k)
        if facts.categories:
            columns[f"diversity@{k}"] = metrics.diversity(top, facts.category, k)
            columns[f"calibration@{k}"] = _calibration(judged, facts, k)
        if facts.vectors is not None:
            columns[f"distance@{k}"] = metrics.distance(top, facts.vectors, k)
    return Values(list(columns), np.stack(list(columns.values()), axis=1))


def _calibration(judged: Judged, facts: Facts, k: int) -> F64:
    """f64[q]. In blocks: a catalogue may have thousands of categories."""
    found = [np.empty(0)]
    start = 0
    for block in judged.questions.blocks():
        history = _history_categories(block, facts)
        found.append(metrics.calibration(history, judged.top[start : start + len(block)], facts.category, k))
        start += len(block)
    return np.concatenate(found)


def _history_categories(questions: Questions, facts: Facts) -> F64:
    """How often each category stands in each history. f64[q, c]."""
    counts = np.zeros((len(questions), facts.categories))
    for k, (begin, row) in enumerate(zip(questions.begin.tolist(), questions.row.tolist(), strict=True)):
        codes = facts.category[questions.data.item[begin:row]]
        counts[k] = np.bincount(codes[codes >= 0], minlength=facts.categories)
    return counts


def whole_metrics(judged: Judged, facts: Facts) -> dict[str, float]:
    """The metrics that no single question has: coverage, and how popular the lists' items are.

    popularity_lift: mean popularity of the lists' items against that of the items that were then taken, minus 1; above
    0 a model recommends what is popular more than people take it (after Abdollahpouri et al. 2019).
    """
    taken = facts.share[judged.questions.target].mean() if len(judged.questions) else math.nan
    found = {}
    for k in judged.k:
        found[f"coverage@{k}"] = metrics.top_coverage(judged.top, len(facts.share), k)
        shown = metrics.popularity(judged.top, facts.share, k)
        shown = shown[~np.isnan(shown)]
        found[f"popularity_lift@{k}"] = float(shown.mean() / taken - 1.0) if len(shown) else math.nan
    return found


def report(judged: Judged, facts: Facts, values: Values, *, seed: int = 0) -> dict[str, Any]:
    """`metrics` and `intervals` of one model, by name: JSON values, None for what nothing can be said of.

    values: those of `judged`.
    """
    spans = intervals(values.values, judged.questions.user, level=LEVEL, seed=seed)
    means = {name: _mean(column) for name, column in zip(values.names, values.values.T, strict=True)}
    return {
        "metrics": {name: _json(value) for name, value in {**means, **whole_metrics(judged, facts)}.items()},
        "intervals": {
            name: [_json(span.low), _json(span.high)] for name, span in zip(values.names, spans, strict=True)
        },
    }


def p_values(ours: Values, theirs: Values, questions: Questions, *, seed: int = 0) -> dict[str, float | None]:
    """For each metric the two-sided p of the difference of two models that were asked the same questions."""
    found = paired_p(ours.values, theirs.values, questions.user, seed=seed)
    return {name: _json(p) for name, p in zip(ours.names, found.tolist(), strict=True)}


def _mean(column: F64) -> float:
    there = column[~np.isnan(column)]
    return float(there.mean()) if len(there) else math.nan


def _json(value: float) -> float | None:
    return None if math.isnan(value) else value
