"""Our own model in an evaluation: the artifact, asked by the code that serves it.

States are built from histories by `Recommender.absorb`, and scores come from the ranking pipeline that makes live
lists, with the state's bounds as they are live: a user's network vector has read all of the history, counts and
recent items hold as much as a state does. Two things differ from a live list, both on purpose. What the user has seen
is masked by the question's whole history, before the candidates of a large catalogue are chosen, where a live list
leaves out what the state remembers. And items that are no candidates still have a rank, behind all candidates.

`Ours` answers questions of a split: popularity stays that of the artifact, since a question tells its user's history
alone. `OursLive` lives through a stream: states, counts and popularity follow it as in a worker, and the network is
frozen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from model.artifact import Artifact
from model.errors import DatasetError
from model.evaluation.questions import Questions
from model.ranking.block import Request
from model.ranking.pipeline import Pipeline
from model.ranking.settings import RankingSettings
from model.recommender import Portion, Recommender
from model.training.dataset import Dataset
from state.interaction import Interaction
from state.interest import InterestState
from state.keys import key_of
from state.names import Names
from state.settings import StateSettings
from state.trend import Trend
from state.weights import DEFAULT_WEIGHTS, EVENT_TYPES, SESSION_START
from state.window import interest_key

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

WEIGHTS: tuple[float, ...] = tuple(DEFAULT_WEIGHTS[name] for name in EVENT_TYPES)
"""Of each type of event, by code."""
_NEVER = 2**32 - 1
"""Offsets between two snapshots of a popularity that stays as it is; the largest that a trend takes."""
_NOTHING = Interaction(0, SESSION_START, 0, (), (), 0.0, 0)


class _Events:
    """Events of a dataset's catalogue as the state sees them, and its items as the artifact numbers them."""

    def __init__(self, recommender: Recommender, catalog: Dataset, weights: Sequence[float]) -> None:
        """weights: of each type of event, by code.  Raises DatasetError when the artifact knows none of the items."""
        self.keys = [key_of(item_id) for item_id in catalog.item_ids]  # n
        self.token: I64 = recommender.index.tokens(np.array(self.keys, np.uint64))
        """i64[n]: the artifact's token of each item, its number of items where it does not know the item."""
        self._weights = weights
        self._interests = [(interest_key(name),) if name else () for name in catalog.item_categories]
        self._known = recommender.artifact.items
        if not (self.token < self._known).any():
            raise DatasetError(
                f"{catalog.source}: the model {recommender.artifact.name!r} knows none of its {len(self.keys)} items "
                f"(such as {catalog.item_ids[0]!r}), for it was trained on others (such as "
                f"{recommender.artifact.item_ids[0]!r}); give the data that the model belongs to."
            )

    def event(self, number: int, item: int, type: int, time_ms: int) -> Interaction:
        """The event of that number; item n is a session's start."""
        if item >= len(self.keys):
            return Interaction(number + 1, SESSION_START, time_ms, (), (), 0.0, number)
        return Interaction(
            number + 1, type, time_ms, (self.keys[item],), self._interests[item], self._weights[type], number
        )

    def rows(self, data: Dataset, begin: int, end: int) -> list[Interaction]:
        """Rows begin .. end - 1 of the dataset."""
        columns = (data.item[begin:end], data.type[begin:end], data.time_ms[begin:end])
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return [self.event(number, *row) for number, row in enumerate(rows, begin)]

    def seen(self, items: I32) -> I64:
        """Tokens of those items that the artifact knows. i32[any] -> i64[any]."""
        tokens: I64 = self.token[items]
        return tokens[tokens < self._known]

    def of_all(self, scores: F32) -> F32:
        """From the artifact's items to the dataset's: f32[q, artifact's n] -> f32[q, n], -inf where unknown."""
        unknown = np.full((len(scores), 1), -np.inf, np.float32)
        found: F32 = np.concatenate([scores, unknown], axis=1).take(self.token, axis=1)
        return found


def unknown_items(artifact: Artifact, catalog: Dataset) -> int:
    """How many of the dataset's items the artifact does not know: it cannot recommend these."""
    return len(set(catalog.item_ids) - set(artifact.item_ids))


class Ours:
    """An artifact as a model that is asked questions (model.evaluation.offline)."""

    def __init__(
        self,
        artifact: Artifact,
        catalog: Dataset,
        *,
        seen_filtered: bool,
        name: str = "ours",
        state: StateSettings | None = None,
        ranking: RankingSettings | None = None,
        weights: Sequence[float] = WEIGHTS,
    ) -> None:
        """catalog: whose items scores are for.  Raises DatasetError when the artifact knows none of them."""
        self.name = name
        self._seen_filtered = seen_filtered
        self._recommender = recommender_of(artifact, seen_filtered=seen_filtered, state=state, ranking=ranking)
        self._events = _Events(self._recommender, catalog, weights)

    def score(self, questions: Questions) -> F32:
        """f32[q, n]: scores of all items; -inf for items that the artifact does not know, or that were seen.

        In rounds, the first question of every user, then the second: all users' vectors are stepped together.
        """
        found = np.empty((len(questions), questions.items), np.float32)
        for turn, requests, hidden in self.rounds(questions):
            found[turn] = self._events.of_all(self.pipeline.scores(requests, hidden))
        return found

    def rounds(self, questions: Questions) -> Iterator[tuple[I64, list[Request], list[I64]]]:
        """Questions by number, one of a user each time, as requests; tokens that their lists may not hold.

        The states in the requests are those of this round: the next one changes them.
        """
        states: dict[bytes, InterestState] = {}
        read: dict[int, int] = {}  # by user: the row up to which the state has read
        trend = Trend(self._recommender.ranking_settings.popularity_half_life_s, _NEVER)
        rest = np.lexsort((questions.row, questions.user))
        while len(rest):
            users = questions.user[rest]
            first = np.concatenate([[True], users[1:] != users[:-1]])
            turn, rest = rest[first], rest[~first]
            batch = []
            for k in turn.tolist():
                user, row = int(questions.user[k]), int(questions.row[k])
                key = b"%d" % user
                events = self._events.rows(questions.data, read.get(user, int(questions.begin[k])), row)
                batch += [(key, event) for event in events]
                read[user] = row
            self._recommender.absorb(Portion(batch, states, trend))
            yield turn, *self._requests(questions, turn, states, trend)

    def _requests(
        self, questions: Questions, turn: I64, states: dict[bytes, InterestState], trend: Trend
    ) -> tuple[list[Request], list[I64]]:
        popular = self.pipeline.popularity.at(trend)
        requests, hidden = [], []
        for k in turn.tolist():
            key = b"%d" % questions.user[k]
            requests.append(Request(key, _NOTHING, states.get(key) or InterestState(), popular, {}))
            seen = questions.seen(k) if self._seen_filtered else np.empty(0, np.int32)
            hidden.append(self._events.seen(seen))
        return requests, hidden

    @property
    def pipeline(self) -> Pipeline:
        """What makes the lists."""
        return self._recommender.pipeline

    def tokens(self, items: I32, *, known: bool = True) -> I64:
        """The artifact's tokens of some items: i32[any] -> i64[any]; without those that it does not know, if `known`.

        With known=False such an item has the artifact's number of items.
        """
        return self._events.seen(items) if known else self._events.token[items]


class OursLive:
    """An artifact as a scorer that learns from each event (model.evaluation.prequential), all in one partition."""

    def __init__(
        self,
        artifact: Artifact,
        stream: Dataset,
        *,
        seen_filtered: bool,
        state: StateSettings | None = None,
        ranking: RankingSettings | None = None,
        weights: Sequence[float] = WEIGHTS,
    ) -> None:
        """stream: what will be asked and learnt; its types of events are read here, as `learn` is not told them."""
        self._recommender = recommender_of(artifact, seen_filtered=seen_filtered, state=state, ranking=ranking)
        self._events = _Events(self._recommender, stream, weights)
        self._stream = stream
        self._learnt: Counter[int] = Counter()
        self._seen_filtered = seen_filtered
        self._seen: dict[int, set[int]] = {}
        self._states: dict[bytes, InterestState] = {}
        self._trend = self._recommender.new_trend()
        self._names = Names()
        self._offset = 0

    def begin(self, past: Dataset, users: npt.NDArray[np.int32]) -> None:
        """The past of all users, in order of time: others' events count for popularity."""
        order = np.argsort(past.time_ms, kind="stable")
        columns = (past.user[order], past.item[order], past.type[order], past.time_ms[order])
        events = list(zip(*(column.tolist() for column in columns), strict=True))
        for start in range(0, len(events), 65_536):
            self._absorb(events[start : start + 65_536])
        wanted = {b"%d" % user for user in users.tolist()}
        self._states = {key: state for key, state in self._states.items() if key in wanted}

    def score(self, user: int, time_ms: int) -> F32:  # noqa: ARG002  # a state's time is that of its newest event
        """f32[n]."""
        key = b"%d" % user
        self._trend.enter(self._offset)
        popular = self._recommender.pipeline.popularity.at(self._trend)
        request = Request(key, _NOTHING, self._states.get(key) or InterestState(), popular, self._names.by_key)
        hidden = np.array(sorted(self._seen.get(user, ())), np.int32) if self._seen_filtered else np.empty(0, np.int32)
        scores = self._recommender.pipeline.scores([request], [self._events.seen(hidden)])
        own: F32 = self._events.of_all(scores)[0]
        return own

    def learn(self, user: int, item: int, time_ms: int) -> None:
        """One event more, of the type that the stream has there: a user's rows are in order of time in both."""
        row = int(np.searchsorted(self._stream.user, user)) + self._learnt[user]
        self._learnt[user] += 1
        self._absorb([(user, item, int(self._stream.type[row]), time_ms)])

    def _absorb(self, events: list[tuple[int, int, int, int]]) -> None:
        batch = []
        for user, item, type, time_ms in events:
            batch.append((b"%d" % user, self._events.event(self._offset, item, type, time_ms)))
            self._offset += 1
            if item < len(self._events.keys):
                self._seen.setdefault(user, set()).add(item)
        self._recommender.absorb(Portion(batch, self._states, self._trend, self._names))


def recommender_of(
    artifact: Artifact, *, seen_filtered: bool, state: StateSettings | None, ranking: RankingSettings | None
) -> Recommender:
    """A recommender that leaves out what was seen, or nothing; without settings, those by default."""
    chosen = ranking or RankingSettings()
    exclude = "seen" if seen_filtered else "none"
    return Recommender(
        artifact, state or StateSettings(), msgspec.structs.replace(chosen, exclude=exclude, domains="all")
    )
