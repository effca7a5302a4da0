"""Chooses how a model's signals are blended: by weights or by a small learnt ranker, whichever answers better.

    users with validation questions
    one half      weights are tried and a learnt ranker is fitted
    other half    the blends are judged, by NDCG@10
    both          the best kind is fitted again, and stored in the artifact

Scores come from the code that makes live lists, so what is chosen is what is served.

Letters in shapes: q questions, n items.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from model.artifact import Artifact
from model.evaluation.metrics import hit_rate, ndcg, ranks
from model.evaluation.ours import Ours
from model.evaluation.questions import Questions
from model.ranking.block import Request
from model.ranking.pipeline import Pipeline
from model.ranking.rerank import WEIGHTS, LearntBlend, LogLinear
from model.ranking.settings import RankingSettings
from model.training.blend import BlendSettings, Examples, examples_of, fit_examples
from state.settings import StateSettings

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

MOST_QUESTIONS = 8_000
"""NDCG@10 then settles to about 0.003."""
MOST_OF_A_USER = 4
"""Drawn from all of a user's, so that first items of sessions and later ones are asked as often as they are answered:
by first items alone long habits look better than they are."""
FEWEST_QUESTIONS = 200
"""Below, a difference between blends is chance, and the weights stay those of the settings."""
LEARNT_MUST_WIN_BY = 0.001
"""Of NDCG@10: as good, weights are cheaper and can be read."""
TRIED: dict[str, tuple[float, ...]] = {
    "rules_weight": (0.0, 0.2, 0.4, 0.6, 0.8, 1.2, 1.8, 2.5),
    "popularity_weight": (0.0, 0.1, 0.2, 0.4),
    "basket_weight": (0.0, 0.25, 0.5, 1.0),
    "personal_weight": (0.0, 0.5, 1.0, 2.0),
}
"""Of each weight in turn, the network's being 1; what the lists cannot use is not tried."""
_ROUNDS = 2
_FIT = BlendSettings(epochs=20)
"""Lists in thousands: more passes than over a whole stream's."""


class Lists(NamedTuple):
    """How a model's lists will be made."""

    ranking: RankingSettings = RankingSettings()
    """What they leave out, and the weights to begin with."""
    state: StateSettings = StateSettings()


class _Asked(NamedTuple):
    """Questions that are ready to be ranked."""

    user: I32
    """i32[q]."""
    requests: list[Request]
    hidden: list[I64]
    """i64[any] each: tokens that the list may not hold."""
    target: I64
    """i64[q]: the answers, as the artifact numbers items."""
    right: list[tuple[int, ...]]
    """The answer, and what the user took in the rest of the session: the ranker learns from all of it."""

    def part(self, which: Bool) -> _Asked:
        """Those where `which` bool[q] is true."""
        chosen = np.flatnonzero(which).tolist()
        return _Asked(
            self.user[which],
            [self.requests[k] for k in chosen],
            [self.hidden[k] for k in chosen],
            self.target[which],
            [self.right[k] for k in chosen],
        )


def choose_blend(artifact: Artifact, questions: Questions, lists: Lists, *, seed: int = 1) -> Artifact:
    """The artifact with the blend that answers these questions best; as it was when they are too few to tell.

    questions: that neither network nor counts have learnt. Where lists leave out "seen" items, it is all of a
    question's history. Metrics of the choice go to the artifact's metrics (`blend_*`).
    """
    ranking = lists.ranking
    plain = replace(artifact, blend=None)
    asked, pipeline = _ask(plain, questions, lists, seed)
    if len(asked.target) < FEWEST_QUESTIONS:
        return artifact
    users, number = np.unique(asked.user, return_inverse=True)
    half = np.random.default_rng(seed).permutation(len(users))[number] % 2 == 0
    first, second = asked.part(half), asked.part(~half)

    weights = _tuned(pipeline, first, ranking)
    learnt = _learnt(plain, pipeline, first, weights)
    judged = {
        "settings": _rank(LogLinear(pipeline.candidates, ranking), pipeline, second),
        "weights": _rank(LogLinear(pipeline.candidates, weights), pipeline, second),
    }
    if learnt is not None:
        judged["learnt"] = _rank(LearntBlend(pipeline.candidates, learnt, ranking), pipeline, second)
    found = {name: ndcg(rank, 10) for name, rank in judged.items()}
    best = "weights" if found["weights"] >= found["settings"] else "settings"
    if learnt is not None and found["learnt"] > found[best] + LEARNT_MUST_WIN_BY:
        best = "learnt"

    weights = _tuned(pipeline, asked, ranking) if best != "settings" else ranking
    chosen = replace(plain, blend=_arrays(weights))
    if best == "learnt":
        chosen = _learnt(plain, pipeline, asked, weights) or chosen
    metrics = {f"blend_{name}_ndcg@10": value for name, value in found.items()}
    metrics[f"blend_{best}_hr@10"] = hit_rate(judged[best], 10)
    return replace(
        chosen,
        version=f"{artifact.version}-blend",
        metrics={**artifact.metrics, **metrics},
        settings={**artifact.settings, "blend": best},
    )


def with_blend_of(chosen: Artifact, artifact: Artifact) -> Artifact:
    """An artifact with the blend that was chosen for one of the same kind, and what is said of it."""
    if chosen.blend is None:
        return artifact
    told = {name: value for name, value in chosen.metrics.items() if name.startswith("blend_")}
    return replace(
        artifact,
        version=f"{artifact.version}-blend",
        blend=chosen.blend,
        metrics={**artifact.metrics, **told},
        settings={**artifact.settings, "blend": chosen.settings["blend"]},
    )


def _ask(artifact: Artifact, questions: Questions, lists: Lists, seed: int) -> tuple[_Asked, Pipeline]:
    """Some of the questions, with the states that they are answered from."""
    ranking = lists.ranking
    if ranking.exclude == "seen":
        questions = questions.select(~questions.repeats)
    drawn = _drawn(questions, seed)
    rest = [_rest_of_session(questions, k) for k in drawn.tolist()]
    questions = questions.select(drawn)
    ours = Ours(artifact, questions.data, seen_filtered=ranking.exclude == "seen", state=lists.state, ranking=ranking)
    requests: list[Request] = []
    hidden: list[I64] = []
    order: list[int] = []
    for turn, of_turn, seen in ours.rounds(questions):
        order += turn.tolist()
        # Copies, for the next round changes the states.
        requests += [msgspec.structs.replace(request, state=copy.copy(request.state)) for request in of_turn]
        if ranking.exclude == "session":
            seen = [ours.tokens(_of_session(questions, k)) for k in turn.tolist()]
        hidden += seen
    target = ours.tokens(questions.target[order], known=False)
    right = [tuple(ours.tokens(rest[k]).tolist()) for k in order]
    asked = _Asked(questions.user[order], requests, hidden, target, right)
    return asked.part(target < artifact.items), ours.pipeline


def _drawn(questions: Questions, seed: int) -> I64:
    """Numbers of the questions that are asked, ascending. i64[any]."""
    shuffled = np.random.default_rng(seed).permutation(len(questions))
    by_user = shuffled[np.argsort(questions.user[shuffled], kind="stable")]
    user = questions.user[by_user]
    place = np.arange(len(user)) - np.searchsorted(user, user)  # within the user's
    few = np.zeros(len(questions), np.bool_)
    few[by_user[place < MOST_OF_A_USER]] = True
    kept: I64 = np.sort(shuffled[few[shuffled]][:MOST_QUESTIONS]).astype(np.int64)
    return kept


def _rest_of_session(questions: Questions, k: int) -> I32:
    """The answer of question k and of those that follow it in its session, as many as the ranker takes. i32[any]."""
    data, rows = questions.data, questions.row[k : k + _FIT.positives]
    same = (data.session[rows] == data.session[rows[0]]) & (data.user[rows] == data.user[rows[0]])
    items: I32 = data.item[rows[same]]
    return items


def _of_session(questions: Questions, k: int) -> I32:
    """The items that the session of question k held before it. i32[any]."""
    data, begin, row = questions.data, int(questions.begin[k]), int(questions.row[k])
    items: I32 = data.item[begin:row][data.session[begin:row] == data.session[row]]
    return items[items < data.items]


def _rank(scorer: LogLinear | LearntBlend, pipeline: Pipeline, asked: _Asked) -> F64:
    """f64[q]: places of the answers."""
    found: list[F64] = []
    for start in range(0, len(asked.target), 1024):
        part = slice(start, start + 1024)
        scores = pipeline.scores(asked.requests[part], asked.hidden[part], scorer)
        found.append(ranks(scores, asked.target[part]))
    return np.concatenate(found)


def _tuned(pipeline: Pipeline, asked: _Asked, ranking: RankingSettings) -> RankingSettings:
    """The best of the weights tried, one weight after the other, some rounds."""
    names = list(TRIED)
    if not pipeline.candidates.has_basket_rules:
        names.remove("basket_weight")
    if ranking.exclude == "seen":
        names.remove("personal_weight")
    best = msgspec.structs.replace(ranking, network_weight=1.0)
    value = ndcg(_rank(LogLinear(pipeline.candidates, best), pipeline, asked), 10)
    for _ in range(_ROUNDS):
        before = best
        for name in names:
            for weight in TRIED[name]:
                tried = msgspec.structs.replace(best, **{name: weight})
                found = ndcg(_rank(LogLinear(pipeline.candidates, tried), pipeline, asked), 10)
                if found > value:
                    best, value = tried, found
        if best == before:
            break
    return best


def _learnt(artifact: Artifact, pipeline: Pipeline, asked: _Asked, weights: RankingSettings) -> Artifact | None:
    """The artifact with a ranker fitted on these questions; None where no list holds an answer."""
    examples: list[Examples] = examples_of(artifact, pipeline, asked.requests, asked.hidden, asked.right, weights, _FIT)
    if not examples:
        return None
    fitted = fit_examples(Examples(*(np.stack(parts) for parts in zip(*examples, strict=True))), _FIT)
    return replace(artifact, blend={**_arrays(weights), **fitted})


def _arrays(weights: RankingSettings) -> dict[str, npt.NDArray[np.float32]]:
    return {WEIGHTS: np.array([getattr(weights, name) for name in LogLinear.WEIGHTS], np.float32)}
