"""How much each signal is worth, learnt from one answer after the other.

A candidate's score is w . x, x its signals; the softmax over a list's candidates is the chance that the user takes
it next (the conditional logit, McFadden 1974). Each answer moves w by one Newton step

    H <- f * H + (1 - f) * prior * I + Cov_p(x)        w <- w + H^-1 (x_taken - E_p(x))

with p the chances before the answer and H the curvature of all answers so far, of which old ones fade by f. There is
no learning rate to tune: steps are large while little is known and shrink as evidence comes. (Recursive estimation
by natural gradient; for squared loss it would be recursive least squares with forgetting.)

What a signal is worth depends on the moment: with two items known popularity speaks, with two hundred it does not.
So the signals enter twice, as they are and times the list's `context`, one number around 0.

Letters in shapes: F signals, k candidates.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

FADE = 0.9995
"""Half of an answer's say is gone after 1,400 answers: the blend follows as the counts below it grow."""
PRIOR = 20.0
"""The first weights are worth so many answers at a spread of 1."""


class OnlineBlend:
    """Weights of F signals, and of the same signals times a context."""

    def __init__(self, first: F64, fade: float = FADE, prior: float = PRIOR) -> None:
        """first: f64[F], the weights to begin with, at context 0."""
        self.weights: F64 = np.concatenate([first, np.zeros(len(first))])  # 2F
        self._curvature: F64 = np.eye(2 * len(first)) * prior  # 2F 2F
        self._fade = fade
        self._floor: F64 = np.eye(2 * len(first)) * (prior * (1.0 - fade))  # 2F 2F; keeps what never varies solvable

    def score(self, signals: F64, context: float) -> F64:
        """signals: f64[F, k]; result: f64[k], up to a constant of the list."""
        signals_at_0, by_context = np.split(self.weights, 2)
        score: F64 = (signals_at_0 + context * by_context) @ signals
        return score

    def learn(self, signals: F64, context: float, taken: int) -> None:
        """The user took candidate `taken` of those with these signals, f64[F, k]."""
        score = self.score(signals, context)
        chance = np.exp(score - score.max())  # k
        chance /= chance.sum()
        mean = signals @ chance  # F
        spread = (signals * chance) @ signals.T - np.outer(mean, mean)  # F F: Cov_p
        both = np.array([1.0, context])
        self._curvature *= self._fade
        self._curvature += self._floor + np.kron(np.outer(both, both), spread)
        self.weights += np.linalg.solve(self._curvature, np.kron(both, signals[:, taken] - mean))
