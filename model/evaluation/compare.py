"""One evaluation: an artifact beside other models, on the same questions, as one document.

    protocol        asked                                     who learns what
    leave-one-out   the last item of each user                baselines the train part, the artifact is as it came
    temporal        the newest tenth of the log               the same
    prequential     all of the log but a warm-up share        all learn each event after it was asked for

The artifact's network and rules are never trained here. Whether it has seen what it is asked is told by its manifest
(`trained_on_test`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from model.artifact import Artifact
from model.baselines.base import FitSettings, Model
from model.baselines.itemknn import LARGEST_INCREMENTAL_ITEMS, IncrementalItemKNN
from model.errors import DatasetError, EvaluationError, ModelError
from model.evaluation.baselines import DecayedPopularity, NetworkAlone, PersonalCounts, RulesAlone, Scorer
from model.evaluation.offline import Judged, Scoring, judge
from model.evaluation.ours import WEIGHTS, Ours, OursLive, unknown_items
from model.evaluation.prequential import live_through, warm_split
from model.evaluation.questions import Questions
from model.evaluation.report import LEVEL, Facts, facts_of, p_values, report, values_of
from model.evaluation.splits import Protocol, leave_one_out, temporal
from model.online.hybrid import HybridSettings, OnlineHybrid
from model.ranking.settings import RankingSettings
from model.training.dataset import Dataset
from state.settings import StateSettings

F32 = npt.NDArray[np.float32]

OURS, AGAINST = "ours", "against"
ONLINE = "online"
"""The hybrid that begins with nothing and learns from each event (model.online.hybrid)."""
_DAY_S = 86_400.0
_FOREVER_S = 1e12
"""A half-life at which nothing decays."""

Say = Callable[[str], None]
Progress = Callable[[str, str], None]
"""Called often, with the name of a model and how far it is."""


class _Serving(TypedDict):
    seen_filtered: bool
    state: StateSettings
    ranking: RankingSettings
    weights: Sequence[float]


@dataclass(frozen=True)
class Plan:
    """How to evaluate."""

    protocol: Protocol
    seen_filtered: bool = True
    k: tuple[int, ...] = (10,)
    warm_share: float = 0.0
    """Prequential: this share of the log is only learnt."""
    known_only: bool = False
    """Prequential: an item that nobody took before is not asked for."""
    seed: int = 1
    threads: int = 1
    seconds: float = 600.0
    """For each baseline that is trained by gradient."""
    state: StateSettings = field(default_factory=StateSettings)
    ranking: RankingSettings = field(default_factory=RankingSettings)
    weights: Sequence[float] = WEIGHTS

    @property
    def serving(self) -> _Serving:
        """What our own model needs of it."""
        return _Serving(seen_filtered=self.seen_filtered, state=self.state, ranking=self.ranking, weights=self.weights)


def scorers(artifact: Artifact | None, data: Dataset, *, seen_filtered: bool) -> dict[str, Callable[[], Scorer]]:
    """What can be asked prequentially beside ours, by name: each begins with nothing, but for the artifact's parts.

    Those need its own numbers of items, and the ItemKNN a matrix of all pairs: where that cannot be they are missing.
    """
    n = data.items
    found: dict[str, Callable[[], Scorer]] = {
        "popularity": lambda: DecayedPopularity(n, _FOREVER_S),
        "decayed-popularity": lambda: DecayedPopularity(n, 7 * _DAY_S),
        "personal": lambda: PersonalCounts(n, 120 * _DAY_S, 7 * _DAY_S, popularity_weight=10.0),
        ONLINE: lambda: OnlineHybrid(n, HybridSettings(repeats=not seen_filtered)),
    }
    if n <= LARGEST_INCREMENTAL_ITEMS:
        found["itemknn"] = lambda: IncrementalItemKNN(n)
    if artifact is not None and artifact.item_ids == data.item_ids:
        found["rules"] = lambda: RulesAlone(artifact)
        found["network"] = lambda: NetworkAlone(artifact)
    return found


def evaluate(
    artifact: Artifact | None,
    data: Dataset,
    plan: Plan,
    *,
    models: Mapping[str, Callable[[], Model]],
    wanted: Sequence[str] | None = None,
    against: Artifact | None = None,
    say: Say,
    warn: Say,
    progress: Progress,
) -> dict[str, Any]:
    """The document of one evaluation: JSON values.

    artifact: None is ONLINE, which only prequential asks. models: what can be fitted and asked, by name (prequential
    has its own: `scorers`). wanted: names of those to ask beside ours, None: only ours. say, warn: called with a line
    for people.  Raises DatasetError when the data cannot be asked by this protocol or the artifact knows none of its
    items, EvaluationError when a name is unknown or a model that learns is not asked prequentially.
    """
    if plan.protocol != "leave-one-out" and not data.has_time:
        raise DatasetError(f"{data.source}: has no times; use --protocol leave-one-out.")
    own = {name: one for name, one in ((OURS, artifact), (AGAINST, against)) if one is not None}
    if plan.protocol == "prequential":
        return _live(own, data, plan, wanted, warn, progress)
    if artifact is None:
        raise EvaluationError(
            f"{ONLINE} learns while it is asked; use --protocol prequential, or give a model's folder."
        )
    names = _known(wanted, models)
    split = leave_one_out(data) if plan.protocol == "leave-one-out" else temporal(data)
    document = _head(own, data, plan, int(split.test.time_ms.min()), warn)
    asked: dict[str, Judged] = {}
    took: dict[str, dict[str, float]] = {}

    def ask(name: str, model: Scoring, fit_s: float = 0.0) -> None:
        def tell(done: int, all_: int) -> None:
            progress(name, f"{done} of {all_} questions")

        started = time.perf_counter()
        asked[name] = judge(model, split.test, seen_filtered=plan.seen_filtered, k=plan.k, progress=tell)
        took[name] = {"fit_s": round(fit_s, 1), "score_s": round(time.perf_counter() - started, 1)}

    for name, one in own.items():
        ask(name, Ours(one, data, name=name, **plan.serving))
    left_out: dict[str, str] = {}
    for name in names:
        say(f"{name}: fitting ...")
        started = time.perf_counter()
        try:
            model = models[name]()
            model.fit(split.train, _fit_settings(name, plan, split.validation, progress))
        except ModelError as error:
            if name in (wanted or ()):
                raise
            # Of "all" those are meant that can be: a library may be missing, or the data too large for one.
            left_out[name] = str(error)
            say(f"{name}: left out. {error}")
            continue
        ask(name, model, time.perf_counter() - started)
    document |= _answers(asked, took, facts_of(split.train, _vectors(artifact, data)), plan, listed=wanted is not None)
    return document | ({"left_out": left_out} if left_out else {})


def _fit_settings(name: str, plan: Plan, validation: Questions, progress: Progress) -> FitSettings:
    def tell(step: int, loss: float, hit_rate: float, left_s: float) -> None:
        progress(name, f"step {step}, loss {loss:.3f}, validation hr@10 {hit_rate:.3f}, {left_s:.0f} s left")

    return FitSettings(plan.seed, plan.threads, plan.seconds, validation, tell)


def _live(
    own: Mapping[str, Artifact],
    data: Dataset,
    plan: Plan,
    wanted: Sequence[str] | None,
    warn: Say,
    progress: Progress,
) -> dict[str, Any]:
    """`evaluate`, prequentially."""
    artifact = own.get(OURS)
    known = scorers(artifact, data, seen_filtered=plan.seen_filtered)
    names = _known(wanted, known)
    _, stream = warm_split(data, plan.warm_share)
    asked_items = stream & data.is_item
    if not asked_items.any():
        raise DatasetError(f"{data.source}: nothing is left to ask; give a smaller --warm-up.")
    document = _head(own, data, plan, int(data.time_ms[asked_items].min()), warn)
    document |= {"warm_up": plan.warm_share, "known_only": plan.known_only}
    chosen: dict[str, Scorer] = {} if artifact is not None else {OURS: known[ONLINE]()}
    chosen |= {name: OursLive(one, data.select(stream), **plan.serving) for name, one in own.items()}
    asked = live_through(
        data,
        chosen | {name: known[name]() for name in names},
        warm_share=plan.warm_share,
        seen_filtered=plan.seen_filtered,
        known_only=plan.known_only,
        k=plan.k,
        progress=lambda done, all_: progress("prequential", f"{done} of {all_} events"),
    )
    document |= _answers(asked, {}, facts_of(data, _vectors(artifact, data)), plan, listed=wanted is not None)
    return document


def _known(wanted: Sequence[str] | None, models: Mapping[str, Any]) -> list[str]:
    """The names to ask beside ours. Raises EvaluationError for one that there is not."""
    names = list(models) if wanted is not None and "all" in wanted else list(wanted or ())
    for name in names:
        if name not in models and name != OURS:
            raise EvaluationError(
                f"there is no model {name!r} for this; take some of {', '.join((OURS, *models))}, or all."
            )
    return [name for name in dict.fromkeys(names) if name != OURS]


_TRAINED_ON_TEST = (
    "WARNING: by its manifest the model {} was trained on what it is asked here: its figures say nothing. Train one "
    "with `driftline train --protocol`, and the protocol that you evaluate with."
)


def _head(own: Mapping[str, Artifact], data: Dataset, plan: Plan, first_asked_ms: int, warn: Say) -> dict[str, Any]:
    """What is asked of what, before any answer; warns if one of our own models has seen the answers."""
    artifact = own.get(OURS)
    seen = [one for one in own.values() if _trained_on_test(one, data, plan, first_asked_ms)]
    for one in seen:
        warn(_TRAINED_ON_TEST.format(f"{one.name} {one.version}"))
    head = {
        "protocol": plan.protocol,
        "seen_filtered": plan.seen_filtered,
        "candidates": "all items",
        "data": data.source,
        "items": data.items,
        "unknown_items": 0 if artifact is None else unknown_items(artifact, data),
        "model": {"name": ONLINE} if artifact is None else {"name": artifact.name, "version": artifact.version},
        "trained_protocol": None if artifact is None else artifact.settings.get("protocol"),
        "trained_on_test": artifact in seen,
    }
    if AGAINST in own:
        other = own[AGAINST]
        head["against"] = {"name": other.name, "version": other.version, "trained_on_test": other in seen}
    return head


def _trained_on_test(artifact: Artifact, data: Dataset, plan: Plan, first_asked_ms: int) -> bool:
    """Whether, by its manifest, the artifact may have learnt what is asked."""
    if not artifact.settings.get("trained", True):
        return False
    until_ms = _learnt_until_ms(artifact, data)
    earlier = until_ms is not None and until_ms <= first_asked_ms
    return artifact.settings.get("protocol") != plan.protocol and not earlier


def _learnt_until_ms(artifact: Artifact, data: Dataset) -> int | None:
    """All that the artifact has learnt is older than this, epoch ms; None where that cannot be said."""
    last_ms = artifact.data.get("last_time_ms")
    if not data.has_time or not isinstance(last_ms, int):
        return None
    test_share = artifact.settings.get("test_share")
    if artifact.settings.get("protocol") == "temporal" and isinstance(test_share, float):
        times = np.sort(data.time_ms[data.is_item])
        if last_ms == int(data.time_ms.max()):  # trained on this very log, but for its test part
            return int(times[int(len(times) * (1.0 - test_share))])
    return last_ms + 1


def _answers(
    asked: Mapping[str, Judged],
    took: Mapping[str, dict[str, float]],
    facts: Facts,
    plan: Plan,
    *,
    listed: bool,
) -> dict[str, Any]:
    """Metrics and intervals of ours; with `listed`, or if there are others, the list of all models."""
    questions = asked[OURS].questions
    if not len(questions):
        raise DatasetError(
            f"{questions.data.source}: no question is left, for every answer was seen before; use --keep-seen."
        )
    values = {name: values_of(judged, facts) for name, judged in asked.items()}
    rows = []
    for name, judged in asked.items():
        row = {"name": name, **report(judged, facts, values[name], seed=plan.seed), **took.get(name, {})}
        if name != OURS:
            row["p_against_ours"] = p_values(values[OURS], values[name], questions, seed=plan.seed)
        rows.append(row)
    answers = {
        "k": list(plan.k),
        "questions": len(questions),
        "users": len(np.unique(questions.user)),
        "interval_level": LEVEL,
        "metrics": rows[0]["metrics"],
        "intervals": rows[0]["intervals"],
    }
    if listed or len(rows) > 1:
        answers["models"] = rows
    return answers


def _vectors(artifact: Artifact | None, data: Dataset) -> F32 | None:
    """The artifact's vector of each item of the data, zero where it has none: by these lists are called diverse."""
    if artifact is None:
        return None
    place = {item_id: token for token, item_id in enumerate(artifact.item_ids)}
    padded = np.concatenate([artifact.item_matrix, np.zeros((1, artifact.dim), np.float32)])
    found: F32 = padded[[place.get(item_id, -1) for item_id in data.item_ids]]
    return found
