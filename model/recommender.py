"""Interactions and states in, states and lists out: what live, replay and tests call."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import islice
from time import thread_time
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from model.artifact import Artifact
from model.ranking.block import Request
from model.ranking.fallback import Popular
from model.ranking.index import ItemIndex
from model.ranking.lists import Interest, RankedItem, Reason, UserList
from model.ranking.pipeline import Pipeline
from model.ranking.settings import RankingSettings
from model.serving import Serving
from state.features import FeatureReader
from state.interaction import Interaction
from state.interest import RECENT, SESSION_MARK, Applied, InterestState
from state.names import Names
from state.settings import StateSettings
from state.trend import Trend
from state.weights import NEGATIVE_TYPES, SESSION_START

F32 = npt.NDArray[np.float32]

__all__ = ["Interest", "Portion", "RankedItem", "RankingSettings", "Reason", "Recommender", "Spent", "UserList"]


class Portion(msgspec.Struct):
    """A run of one partition's events, and what came of it.

    Users missing in `states` are added to it by processing, which also fills `lists` and `duplicates`.
    """

    batch: Sequence[tuple[bytes, Interaction]]
    """(user, interaction) in offset order."""
    states: dict[bytes, InterestState]
    """By user. A user's states in two partitions are two: portions share none."""
    trend: Trend
    """The partition's."""
    names: Names = msgspec.field(default_factory=Names)
    """The partition's: it learns the names of interests from the events."""
    lists: list[UserList] = msgspec.field(default_factory=list)
    """In the order of their events."""
    keep_since_ms: Sequence[int] = ()
    """For each event of the batch, or empty: a state whose newest event is older than this is forgotten before the
    event is applied, and begins anew (erasure, expiry: see state.erasure, state.expiry)."""
    duplicates: set[int] = msgspec.field(default_factory=set)
    """Indexes into the batch: events whose id the state had seen."""
    conflicts: set[int] = msgspec.field(default_factory=set)
    """Those among the duplicates whose content was another than that of the first."""
    features: dict[int, F32] = msgspec.field(default_factory=dict)
    """By the offset of a list's event f32[U], the user's features after it (state.features); empty unless asked for."""


class Spent(msgspec.Struct):
    """CPU seconds of this thread."""

    state_s: float = 0.0
    """Applying events to states and trends,"""
    model_s: float = 0.0
    """stepping vectors,"""
    rank_s: float = 0.0
    """and making lists."""


class _Waiting:
    """What waits for a user until all of the batch is applied: steps of the network, in order, and a list."""

    __slots__ = ("copies", "last", "popular", "state", "tokens", "types")

    def __init__(self, state: InterestState, popular: Popular) -> None:
        self.state = state
        self.last = -1
        """Index in the batch of the last event that was applied."""
        self.popular = popular
        """What was popular then."""
        self.tokens: list[int] = []
        self.types: list[int] = []
        self.copies: dict[int, list[InterestState]] | None = None
        """Copies of the state by the number of steps after which they take the vector."""


class Recommender:
    """Applies interactions, steps the network, makes lists. Holds no user: states are passed in and out.

    The same log gives the same states, byte for byte, and the same lists, however it is cut into batches.
    """

    def __init__(self, artifact: Artifact, state: StateSettings, ranking: RankingSettings) -> None:
        """Raises ArtifactError when the artifact cannot be ranked with."""
        self.artifact = artifact
        self.state_settings = state
        self.ranking_settings = ranking
        self.index = ItemIndex(artifact.item_ids)
        self.serving = Serving(artifact)
        self.pipeline = Pipeline(artifact, self.index, self.serving, state, ranking)

    def new_trend(self) -> Trend:
        """An empty trend for a partition, with this recommender's settings."""
        ranking = self.ranking_settings
        return Trend(ranking.popularity_half_life_s, ranking.trend_refresh_events)

    def process(
        self, portions: Sequence[Portion], *, every_event: bool = False, features: FeatureReader | None = None
    ) -> Spent:
        """Apply the events of `portions`, step the vectors and make fresh lists, all of them together.

        Together, because a call of the network and a block of lists cost as much for one user as for some; what
        comes of a portion does not depend on the others. Each user of a portion gets one list, after the last of the
        user's events that was applied; with `every_event` one after each. An event whose id the state knows leaves
        state and trend as they are. With `features`, what it reads of the users is put beside their lists.
        """
        spent = Spent()
        wanted = self.updates(portions, "every" if every_event else "last", spent)
        started = thread_time()
        lists = iter(self.pipeline.rank([request for requests in wanted for request in requests.values()]))
        for portion, requests in zip(portions, wanted, strict=True):
            portion.lists.extend(islice(lists, len(requests)))
        if features is not None:
            self._read_features(portions, wanted, features)
        spent.rank_s += thread_time() - started
        return spent

    @staticmethod
    def _read_features(portions: Sequence[Portion], wanted: list[dict[int, Request]], features: FeatureReader) -> None:
        """The features of the users of all lists, read together."""
        requests = [request for each in wanted for request in each.values()]
        read = features.read([r.state for r in requests], [r.event.time_ms for r in requests])
        rows = iter(read.users)
        for portion, each in zip(portions, wanted, strict=True):
            portion.features.update(zip([r.event.offset for r in each.values()], rows, strict=False))

    def absorb(self, portion: Portion) -> None:
        """`process` without lists: to bring states up to date with a history."""
        self.updates([portion], "none", Spent())

    def updates(
        self, portions: Sequence[Portion], lists: Literal["last", "every", "none"], spent: Spent
    ) -> list[dict[int, Request]]:
        """`process` up to the lists: for each portion those to make, by the index of their event in the batch."""
        started = thread_time()
        users: list[_Waiting] = []
        wanted = [self._apply(portion, lists, users) for portion in portions]
        applied = thread_time()
        spent.state_s += applied - started
        self._step(users)
        spent.model_s += thread_time() - applied
        return wanted

    # --- states and vectors

    def _apply(
        self, portion: Portion, lists: Literal["last", "every", "none"], users: list[_Waiting]
    ) -> dict[int, Request]:
        """Apply a portion's events to states and trend; its users join those that wait. Returns the lists to make.

        All events are applied before the first list is made. That is safe: a list is made after a user's last
        event (of the state as it then is), or from a copy of the state.
        """
        settings = self.state_settings
        token_of = self.index.tokens_by_key.get
        checksum = self.artifact.checksum
        duplicate, conflict, began = Applied.DUPLICATE, Applied.CONFLICT, Applied.BEGAN
        batch, states, trend, names = portion.batch, portion.states, portion.trend, portion.names
        limits = portion.keep_since_ms
        next_epoch = -(2**63)  # the offset at which the next begins
        popular = self.pipeline.popularity.at(trend)
        waiting_of: dict[bytes, _Waiting] = {}
        requests: dict[int, Request] = {}
        for index, (user, interaction) in enumerate(batch):
            offset, weight = interaction.offset, interaction.weight
            if offset >= next_epoch:
                next_epoch = (offset // trend.refresh_events + 1) * trend.refresh_events
                trend.enter(offset)
                popular = self.pipeline.popularity.at(trend)
            state = states.get(user)
            if state is None or (limits and state.last_time_ms < limits[index]):
                state = states[user] = InterestState()
                forgotten = waiting_of.pop(user, None)
                if forgotten is not None:  # its lists, with `every`, still wait for their vectors
                    users.append(forgotten)
            recent = state.recent
            applied = state.advance(interaction, settings)
            if applied is duplicate or applied is conflict:
                portion.duplicates.add(index)
                if applied is conflict:
                    portion.conflicts.add(index)
                continue
            waiting = waiting_of.get(user)
            if waiting is None:
                waiting = waiting_of[user] = _Waiting(state, popular)
                if state.vector_model != checksum:
                    self._rebuild(state, recent, waiting)
            waiting.last, waiting.popular = index, popular
            names.learn(interaction.interests, interaction.names)
            if weight > 0.0:
                for item in interaction.items:
                    trend.add(offset, item, weight, interaction.time_ms)
            if applied is began:
                waiting.tokens.append(self.serving.session_token)
                waiting.types.append(SESSION_START)
            if weight != 0.0 and interaction.type not in NEGATIVE_TYPES:
                # As many as `recent` keeps: an order of a thousand lines would be a thousand steps of one user.
                for item in interaction.items[-settings.recent_items :]:
                    token = token_of(item)
                    if token is not None:
                        waiting.tokens.append(token)
                        waiting.types.append(interaction.type)
            if lists == "every":
                snapshot = copy.copy(state)
                if waiting.copies is None:
                    waiting.copies = {}
                waiting.copies.setdefault(len(waiting.tokens), []).append(snapshot)
                requests[index] = Request(user, interaction, snapshot, popular, names.by_key)
        if lists == "last":
            in_order = sorted(waiting_of.items(), key=_last)
            requests = {
                w.last: Request(user, batch[w.last][1], w.state, w.popular, names.by_key) for user, w in in_order
            }
        users.extend(waiting_of.values())
        return requests

    def _rebuild(self, state: InterestState, recent: bytes, waiting: _Waiting) -> None:
        """Start a vector of this model anew, from the interactions `recent` that came before the batch.

        A vector of another model means nothing to this one. The recent interactions bring back most of it: the
        network's memory fades over some tens of events.
        """
        state.vector = b""
        state.vector_model = self.artifact.checksum
        tokens_by_key, session_token = self.index.tokens_by_key, self.serving.session_token
        for key, kind in RECENT.iter_unpack(recent):
            token = session_token if key == SESSION_MARK else tokens_by_key.get(key)
            if token is not None and kind not in NEGATIVE_TYPES:
                waiting.tokens.append(token)
                waiting.types.append(kind)

    def _step(self, waiting: list[_Waiting]) -> None:
        """Step all vectors, each user's tokens in order: one round for the first token of each, and so on."""
        turn = 0
        active = [user for user in waiting if user.tokens]
        while active:
            stepped = self.serving.step(
                [user.state.vector for user in active],
                [user.tokens[turn] for user in active],
                [user.types[turn] for user in active],
            )
            turn += 1
            for user, vector in zip(active, stepped, strict=True):
                user.state.vector = vector
                if user.copies is not None:
                    for snapshot in user.copies.get(turn, ()):
                        snapshot.vector = vector
            active = [user for user in active if len(user.tokens) > turn]


def _last(waiting: tuple[bytes, _Waiting]) -> int:
    return waiting[1].last
