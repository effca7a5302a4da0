"""The online hybrid: popularity and pairs of items, counted as events come, blended by what users took.

    signal of a candidate                                             learnt from an event
    popular       how often it was taken                              one count
    stage         the same, among users with about as many items      one count
    together      how often taken near the user's last items, in      a pair with each of the user's last 60 items
                  either order; read at three speeds: the last few
                  items, the last ten or so, the last thirty or so
    content       how alike it is to the last items, where told       nothing

Users often rate or buy several things at the same moment, and their order there is the order of a page or of a file.
So nearness is counted in *moments*: items of one moment are 0 apart, whatever their order.

Every event is first an answer to "which item next?" for the blend (model.online.blend) and then counted. Scores know
no more than what was learnt before, and not the time of the question: they are the list that could have been shown
after the user's last event.

It keeps one matrix of pairs (model.online.pairs), n bytes for each user (what was taken) and the user's last items.
Letters in shapes: n items, k items of a history or candidates, F signals.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from model.online.blend import OnlineBlend
from model.online.pairs import pair_counts
from model.training.dataset import Dataset

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

STAGES = 16
"""Users are told apart by the log of how many items they took: stage 1 is one item, 6 about ten, 15 above 320."""
STAGE_CAUTION = 20.0
"""So many events at a stage count as much as all others together."""
WHOLE_ITEMS = 10_000
"""A matrix of all pairs has 400 MB then."""
MANY_PAIRS = 400
EPSILON = 1e-5
"""Added before a log: one in a hundred thousand is as good as never."""


@dataclass(frozen=True)
class HybridSettings:
    """Constants, chosen on the first half of MovieLens-100k."""

    window: int = 60
    """Items of a history that are kept, and that a new one is paired with."""
    pairs_per_item: int | None = None
    """Pairs kept of each item; None: all of them up to WHOLE_ITEMS items, MANY_PAIRS of each beyond."""
    shortlist: int = 256
    """Candidates to blend; the others follow in the order of `together` and popularity."""
    from_exponent: float = 0.5
    to_exponent: float = 0.25
    """A count of x and y is divided by how often each was taken, to these powers: what is popular stays ahead."""
    few: float = 0.6
    ten: float = 0.9
    thirty: float = 0.97
    """The three speeds: what an item of the history weighs less than the one after it."""
    moment: float = 0.8
    """At the middle speed items also lose by this with each moment."""
    repeats: bool = False
    """Whether what a user took before is a candidate."""


class _User:
    """What is remembered of a user; newest first."""

    def __init__(self, items: int, window: int) -> None:
        self.items: deque[int] = deque(maxlen=window)
        self.moments: deque[int] = deque(maxlen=window)
        self.time_ms = 0
        self.taken = 0
        self.seen: Bool = np.zeros(items, np.bool_)  # n

    @property
    def stage(self) -> int:
        return min(int(1.8 * math.log2(self.taken + 1)), STAGES - 1)

    @property
    def context(self) -> float:
        """What the worth of the signals depends on: 0 at 32 items, -1 at 6, 1 at 148."""
        return (math.log1p(self.taken) - 3.5) / 1.5


class _Question(NamedTuple):
    """Which item will this user take next?"""

    user: int
    events: int
    """How many events were learnt before."""
    candidates: I64
    """i64[k], ascending."""
    signals: F64
    """f64[F, k]."""
    context: float
    first: F32
    """f32[n]: scores of all items, by which the candidates were chosen."""


class OnlineHybrid:
    """A Scorer (model.evaluation.baselines) that begins with nothing and learns all it knows from the events."""

    name = "online"

    def __init__(self, items: int, settings: HybridSettings | None = None, content: F32 | None = None) -> None:
        """content: f32[n, C], rows of length 1 (or 0): what is known of the items beside who took them."""
        self.settings = settings or HybridSettings()
        self._items = items
        self._content = content
        self._taken: F32 = np.zeros(items, np.float32)  # n
        self._at_stage: F32 = np.zeros((STAGES, items), np.float32)
        rows = self.settings.pairs_per_item
        self._pairs = pair_counts(items, MANY_PAIRS if rows is None and items > WHOLE_ITEMS else rows)
        self._users: dict[int, _User] = {}
        self._events = 0
        self._asked: _Question | None = None
        # Begin with the one signal that does best alone.
        self.blend = OnlineBlend(np.array([float(name == "together") for name in self.signals]))

    @property
    def signals(self) -> tuple[str, ...]:
        """Names of the F signals, in the order of the blend's weights."""
        counted = ("popular", "stage", "together", "together: few", "together: thirty")
        return counted if self._content is None else (*counted, "content")

    def begin(self, past: Dataset, users: I32) -> None:  # noqa: ARG002  # whoever is asked for, all users count
        """Learn a past, as if it came now."""
        for row in np.argsort(past.time_ms, kind="stable"):
            self.learn(int(past.user[row]), int(past.item[row]), int(past.time_ms[row]))

    def score(self, user: int, time_ms: int) -> F64:  # noqa: ARG002  # a list is made before the question's time
        """Scores of all items, f64[n]."""
        asked = self._ask(user)
        scores = asked.first.astype(np.float64) / (1.0 + float(asked.first.max(initial=0.0)))  # n, below 1
        if len(asked.candidates):
            blended = self.blend.score(asked.signals, asked.context)  # k
            scores[asked.candidates] = blended - blended.min() + 1.0
        return scores

    def learn(self, user: int, item: int, time_ms: int) -> None:
        """One event more; item n, a session's start, teaches nothing."""
        if item >= self._items:
            return
        asked = self._ask(user)
        place = int(np.searchsorted(asked.candidates, item))
        if place < len(asked.candidates) and asked.candidates[place] == item:
            self.blend.learn(asked.signals, asked.context, place)
        self._count(self._user(user), item, time_ms)
        self._events += 1

    def _user(self, user: int) -> _User:
        if user not in self._users:
            self._users[user] = _User(self._items, self.settings.window)
        return self._users[user]

    def _ask(self, user: int) -> _Question:
        """The question before the next event; kept, as `score` and then `learn` ask the same."""
        if self._asked is None or (self._asked.user, self._asked.events) != (user, self._events):
            self._asked = self._question(user, self._user(user))
        return self._asked

    def _question(self, number: int, user: _User) -> _Question:
        popular = self._taken / max(float(self._events), 1.0)  # n
        own = self._at_stage[user.stage]  # n
        stage = (own + STAGE_CAUTION * popular) / (float(own.sum()) + STAGE_CAUTION)  # n
        read = self._read(user)
        first = read[0] + np.float32(0.1) * popular  # n
        usable = self._taken > 0.0
        if not self.settings.repeats:
            usable &= ~user.seen
        candidates = np.flatnonzero(usable)  # k
        k = self.settings.shortlist
        if len(candidates) > k:
            candidates = np.sort(candidates[np.argpartition(-first[candidates], k)[:k]])
        values = np.array([signal[candidates] for signal in (popular, stage, *read)], np.float64)  # F k
        signals = np.log(values + EPSILON)
        if len(candidates):
            signals -= signals.mean(axis=1, keepdims=True)  # a constant changes no order, only the Newton step's size
        return _Question(number, self._events, candidates, signals, user.context, first)

    def _read(self, user: _User) -> list[F32]:
        """The signals that follow from a user's last items: f32[n] each."""
        chosen = self.settings
        if not user.items:
            return [np.zeros(self._items, np.float32)] * (len(self.signals) - 2)
        item = np.array(user.items)  # k, newest first
        age = np.arange(len(item))  # k
        moments = user.moments[0] - np.array(user.moments)  # k
        own = self._taken[item] ** -chosen.from_exponent  # k
        speeds = (chosen.ten**age * chosen.moment**moments, chosen.few**age, chosen.thirty**age)
        scale = np.maximum(self._taken, 1.0) ** -chosen.to_exponent  # n
        totals = self._pairs.total(item, (np.array(speeds) * own).astype(np.float32))  # 3 n
        signals = list(totals * scale)
        if self._content is not None:
            weight = (0.8**age).astype(np.float32)
            profile = (weight / weight.sum()) @ self._content[item]  # C
            signals.append(np.maximum(self._content @ profile, 0.0))
        return signals

    def _count(self, user: _User, item: int, time_ms: int) -> None:
        moment = 0
        if user.items:
            moment = user.moments[0] + (time_ms != user.time_ms)
            last, at = np.unique(np.array(user.items), return_index=True)  # each item once, where it was last
            last, at = last[last != item], at[last != item]
            gap = moment - np.array(user.moments)[at]  # in moments
            # 1/sqrt falls more slowly than the 1/gap of MODEL's rules: pairs far apart are many, and say something.
            self._pairs.add(item, last, (1.0 / np.sqrt(1.0 + gap)).astype(np.float32))
        self._at_stage[user.stage, item] += 1.0
        self._taken[item] += 1.0
        user.items.appendleft(item)
        user.moments.appendleft(moment)
        user.time_ms = time_ms
        user.taken += 1
        user.seen[item] = True
