"""A chunk of interactions and states in, states and lists out: what live, replay and tests call."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from time import thread_time
from typing import Literal

import msgspec

from model.artifact import Artifact
from model.ranking.block import Request
from model.ranking.index import ItemIndex
from model.ranking.lists import Interest, RankedItem, Reason, UserList
from model.ranking.pipeline import Pipeline
from model.ranking.settings import RankingSettings
from model.serving import Serving
from state.interaction import Interaction
from state.interest import RECENT, SESSION_MARK, Applied, InterestState
from state.settings import StateSettings
from state.trend import Trend
from state.weights import NEGATIVE_TYPES, SESSION_START

__all__ = ["Interest", "Processed", "RankedItem", "RankingSettings", "Reason", "Recommender", "UserList"]


class Processed(msgspec.Struct):
    """What came of a batch."""

    lists: list[UserList] = msgspec.field(default_factory=list)
    """In the order of their events."""
    duplicates: list[int] = msgspec.field(default_factory=list)
    """Indexes into the batch: events whose id the state had seen."""
    state_s: float = 0.0
    """CPU seconds of this thread spent applying events to states and to the trend,"""
    model_s: float = 0.0
    """stepping vectors,"""
    rank_s: float = 0.0
    """and making lists."""


class _Waiting:
    """What waits for a user until all of the batch is applied: steps of the network, in order, and a list."""

    __slots__ = ("copies", "last", "state", "tokens", "types")

    def __init__(self, state: InterestState) -> None:
        self.state = state
        self.last = -1
        """Index in the batch of the last event that was applied."""
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
        self,
        batch: Sequence[tuple[bytes, Interaction]],
        states: dict[bytes, InterestState],
        trend: Trend,
        *,
        every_event: bool = False,
    ) -> Processed:
        """Apply a batch of (user, interaction), in offset order and of one partition, and make fresh lists.

        Users missing in `states` are added. Each user of the batch gets one list, after the last of the user's
        events that was applied; with `every_event` one after each. An event whose id the state knows leaves state
        and trend as they are.
        """
        done = Processed()
        for _, wanted in self.updates(batch, states, trend, done, "every" if every_event else "last"):
            started = thread_time()
            done.lists.extend(self.pipeline.rank(wanted, trend))
            done.rank_s += thread_time() - started
        return done

    def absorb(
        self, batch: Sequence[tuple[bytes, Interaction]], states: dict[bytes, InterestState], trend: Trend
    ) -> Processed:
        """`process` without lists: to bring states up to date with a history."""
        done = Processed()
        for _ in self.updates(batch, states, trend, done, "none"):
            pass
        return done

    def updates(
        self,
        batch: Sequence[tuple[bytes, Interaction]],
        states: dict[bytes, InterestState],
        trend: Trend,
        done: Processed,
        lists: Literal["last", "every", "none"],
    ) -> Iterator[tuple[list[int], list[Request]]]:
        """`process` up to the lists: yields those to make, with the indexes of their events in the batch.

        One portion for each epoch of the trend that wants any; they are to be made before the next is asked for,
        while the trend's snapshot is that of their epoch. Durations and duplicates are added to `done`.
        """
        first_duplicate = len(done.duplicates)
        requests = self._update(batch, states, done, lists)
        started = thread_time()
        duplicates = set(done.duplicates[first_duplicate:])
        at: list[int] = []
        wanted: list[Request] = []
        next_epoch = -(2**63)  # the offset at which the next begins
        for index, ((_, interaction), request) in enumerate(zip(batch, requests, strict=True)):
            offset, weight = interaction.offset, interaction.weight
            if offset >= next_epoch:
                if wanted:
                    done.state_s += thread_time() - started
                    yield at, wanted
                    at, wanted = [], []
                    started = thread_time()
                next_epoch = (offset // trend.refresh_events + 1) * trend.refresh_events
                trend.enter(offset)
            if weight > 0.0 and index not in duplicates:
                for item in interaction.items:
                    trend.add(offset, item, weight, interaction.time_ms)
            if request is not None:
                at.append(index)
                wanted.append(request)
        done.state_s += thread_time() - started
        if wanted:
            yield at, wanted

    # --- states and vectors

    def _update(
        self,
        batch: Sequence[tuple[bytes, Interaction]],
        states: dict[bytes, InterestState],
        done: Processed,
        lists: Literal["last", "every", "none"],
    ) -> list[Request | None]:
        """Apply all events, then step all vectors. Returns for each event the list to make, if any.

        All of the batch is applied before the first list is made. That is safe: a list is made after a user's
        last event (of the state as it then is), or from a copy of the state.
        """
        started = thread_time()
        settings = self.state_settings
        token_of = self.index.tokens_by_key.get
        checksum = self.artifact.checksum
        duplicate, began = Applied.DUPLICATE, Applied.BEGAN
        users: dict[bytes, _Waiting] = {}
        requests: list[Request | None] = [None] * len(batch)
        for index, (user, interaction) in enumerate(batch):
            state = states.get(user)
            if state is None:
                state = states[user] = InterestState()
            recent = state.recent
            applied = state.advance(interaction, settings)
            if applied is duplicate:
                done.duplicates.append(index)
                continue
            waiting = users.get(user)
            if waiting is None:
                waiting = users[user] = _Waiting(state)
                if state.vector_model != checksum:
                    self._rebuild(state, recent, waiting)
            waiting.last = index
            if applied is began:
                waiting.tokens.append(self.serving.session_token)
                waiting.types.append(SESSION_START)
            if interaction.weight != 0.0 and interaction.type not in NEGATIVE_TYPES:
                for item in interaction.items:
                    token = token_of(item)
                    if token is not None:
                        waiting.tokens.append(token)
                        waiting.types.append(interaction.type)
            if lists == "every":
                snapshot = copy.copy(state)
                if waiting.copies is None:
                    waiting.copies = {}
                waiting.copies.setdefault(len(waiting.tokens), []).append(snapshot)
                requests[index] = Request(user, interaction, snapshot)
        if lists == "last":
            for user, waiting in users.items():
                requests[waiting.last] = Request(user, batch[waiting.last][1], waiting.state)
        stepped = thread_time()
        done.state_s += stepped - started
        self._step(list(users.values()))
        done.model_s += thread_time() - stepped
        return requests

    def _rebuild(self, state: InterestState, recent: bytes, waiting: _Waiting) -> None:
        """Start a vector of this model anew, from the interactions `recent` that came before the batch.

        A vector of another model means nothing to this one. The recent interactions bring back most of it: the
        network's memory fades over some tens of events.
        """
        state.vector = b""
        state.vector_model = self.artifact.checksum
        tokens_by_key, session_token = self.index.tokens_by_key, self.serving.session_token
        for key, kind, _ in RECENT.iter_unpack(recent):
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
