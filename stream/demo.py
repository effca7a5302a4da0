"""The demo: real purchases through a real worker, and every list asked what the household bought next.

    Complete Journey   Jan ........ 15 Apr | 16 - 30 Apr | May ........................ Dec
    all households     train the network   | fit the blend
    every 8th          ── history: through the worker ──> ── stream: through the worker, each list judged ──>

A visit begins with a `session_start` event; its list and those after each purchase are asked for the next product of
the basket, products already in it aside. The same question goes to three others: popularity of seven days, the
household's own counts with popularity, and the worker's own list of the day's first visit, kept all day.

Nothing here is a shortcut: the events go to the embedded broker, the lists come back from it.
"""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition

from model.artifact import Artifact, save_artifact
from model.evaluation.baselines import DecayedPopularity, PersonalCounts, Scorer
from model.recommender import Portion, Recommender
from model.training.blend import fit_blend
from model.training.dataset import Dataset
from model.training.journey import STREAM_EVERY, Journey, train_journey
from state.interaction import Interaction
from state.interest import InterestState
from state.keys import key_of
from state.weights import EVENT_TYPES
from state.window import interest_key
from stream.brokers import EmbeddedBroker
from stream.child import dies_with_parent
from stream.contract.recommendation import Recommendation, decode_recommendation
from stream.errors import StreamError
from stream.settings import Settings, load_settings
from stream.topics import create_topics

K = 20
"""Lists are judged on their first 20 items, as in the figures they are held against."""
LIVE, DAILY, PERSONAL, POPULAR = "live", "daily", "personal", "popular"
_DAY_MS = 86_400_000
_DAY_S = 86_400.0
# The strongest of the baseline's settings that were tried on the stream itself (half-lives of 60 to 240 days, weights
# of 1 and 10): the list to beat must not be a weak one.
_COUNTS_HALF_LIFE_S = 120 * _DAY_S
_POPULARITY_WEIGHT = 10.0
# The embedded broker keeps about 5 MB of a partition, and a list has some 6 kB: so many may be under way at most.
_IN_FLIGHT = 256
_SILENCE_S = 60.0
_SHOWN_ITEMS = 5

# What the demo's shop sets otherwise than the defaults.
SHOP: dict[str, Any] = {
    "worker.group": "demo",
    "worker.lists": "event",  # every event's list is judged, so none may be left out
    "worker.web_port": 0,
    "topics.partitions": 1,  # one worker; popularity is counted by partition, and here every household counts
    "state.max_counted_items": 256,  # groceries: most of what is bought was bought before
    "ranking.exclude": "session",  # bread is bought twice, but not in one basket
    "ranking.list_size": 40,  # a list kept all day loses what is bought from it, and must still have 20
    "ranking.popularity_half_life_s": 7 * _DAY_S,
    "ranking.trend_refresh_events": 128,
}


def demo_settings(servers: str, folder: Path) -> Settings:
    """The demo's settings: defaults and `SHOP`, on the given broker, everything in `folder`."""
    values = {
        **SHOP,
        "kafka.bootstrap_servers": servers,
        "worker.data_dir": folder / "data",
        "model.path": str(folder / "model"),
    }
    return load_settings(overrides=values, environ={})


# ---------------------------------------------------------------------- before: the model


def prepare_model(
    journey: Journey,
    folder: Path,
    steps: int,
    progress: Callable[[int, float, float, float], None] | None,
    say: Callable[[str], None],
) -> Artifact:
    """Train the network, fit the blend, save both as one artifact under `folder`/model.

    Args:
        journey: the data.
        folder: where the model goes.
        steps: of the network's training.
        progress: see model.training.loop.train.
        say: told what happens.

    Raises:
        ModelError: see model.training.
    """
    artifact = train_journey(None, steps, progress, journey=journey)
    say("fitting the blend of network, rules, counts and popularity on the last two weeks of April")
    settings = demo_settings("127.0.0.1:1", folder)
    recommender = Recommender(artifact, settings.state_settings(), settings.ranking_settings())
    weights = settings.event_weights()
    states: dict[bytes, InterestState] = {}
    trend = recommender.new_trend()
    history = interactions(journey.train(), weights, first_offset=0)
    for batch in _chunks(history, 4096):
        recommender.absorb(Portion(batch, states, trend))
    tuning = interactions(journey.tune(), weights, first_offset=len(history))
    blend = fit_blend(recommender, tuning, states, trend)
    blended = replace(artifact, version=f"{artifact.version}-blend", blend=blend)
    save_artifact(folder / "model", blended)
    return blended


def interactions(data: Dataset, weights: dict[str, float], first_offset: int) -> list[tuple[bytes, Interaction]]:
    """The rows of `data` in order of time, as the worker would make them of their events."""
    keys = [key_of(item) for item in data.item_ids]
    interests = [interest_key(name) if name else 0 for name in data.item_categories]
    users = [user.encode() for user in data.user_ids]
    rows = zip(*_columns(data), strict=True)
    made = []
    for index, (user, item, code, time_ms) in enumerate(rows):
        known = item < data.items
        made.append(
            (
                users[user],
                Interaction(
                    event=first_offset + index + 1,
                    type=code,
                    time_ms=time_ms,
                    items=(keys[item],) if known else (),
                    interests=(interests[item],) if known and interests[item] else (),
                    names=(data.item_categories[item],) if known and interests[item] else (),
                    weight=weights[EVENT_TYPES[code]],
                    offset=first_offset + index,
                ),
            )
        )
    return made


def _columns(data: Dataset) -> tuple[list[int], list[int], list[int], list[int]]:
    """user, item, type, time of all rows in order of time; rows of one time stay in their order."""
    order = np.argsort(data.time_ms, kind="stable")
    return (
        data.user[order].tolist(),
        data.item[order].tolist(),
        data.type[order].tolist(),
        data.time_ms[order].tolist(),
    )


def _chunks(rows: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


# ---------------------------------------------------------------------- the worker


@contextlib.contextmanager
def running_worker(settings: Settings, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A `driftline worker` process on `settings`; ended, and gone, when left."""
    flags = [f"--set={name}={value}" for name, value in settings.changed()]
    with log.open("wb") as out:
        process = subprocess.Popen(
            dies_with_parent([sys.executable, "-m", "stream.cli", "worker", *flags]), stdout=out, stderr=out
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# ---------------------------------------------------------------------- the judge


@dataclass
class Score:
    """Hits of one kind of list."""

    questions: int = 0
    hits: int = 0
    gain: float = 0.0

    def ask(self, rank: int | None) -> None:
        """`rank`: of the next item, from 1; None when the list does not have it."""
        self.questions += 1
        if rank is not None and rank <= K:
            self.hits += 1
            self.gain += 1.0 / math.log2(rank + 1)

    @property
    def hr(self) -> float:
        """Share of next items in the first 20: HR@20."""
        return self.hits / max(self.questions, 1)

    @property
    def ndcg(self) -> float:
        """NDCG@20 with one right item a question."""
        return self.gain / max(self.questions, 1)


@dataclass
class Moment:
    """A household as the screen shows it: what it just bought, and its list after that."""

    household: str
    at: str
    bought: str
    before: list[str]
    after: list[tuple[str, str]]
    """Name and reason of the first items."""


class Judge:
    """Asks every list for the next item of its basket. Fed in log order."""

    def __init__(self, journey: Journey, stream: Dataset, households: Sequence[int]) -> None:
        self.stream = stream
        self._names = stream.item_names
        self._tokens = {item: token for token, item in enumerate(stream.item_ids)}
        items = stream.items
        self._scorers: dict[str, Scorer] = {
            POPULAR: DecayedPopularity(items, 7 * _DAY_S),
            PERSONAL: PersonalCounts(items, _COUNTS_HALF_LIFE_S, 7 * _DAY_S, _POPULARITY_WEIGHT),
        }
        past, users = journey.before_stream(), np.unique(stream.user)
        for scorer in self._scorers.values():
            scorer.begin(past, users)
        self.scores = {name: Score() for name in (LIVE, DAILY, PERSONAL, POPULAR)}
        self.first = {name: Score() for name in (LIVE, DAILY)}
        """Only questions for the first item of a basket."""
        self.later = {name: Score() for name in (LIVE, DAILY)}
        """Only questions for the items after it."""
        self._lists: dict[int, list[int]] = {}
        self._daily: dict[int, tuple[int, list[int]]] = {}
        self._basket: dict[int, set[int]] = {}
        self.shown = {household: deque[Moment](maxlen=1) for household in households}

    def judge(self, user: int, item: int, time_ms: int, made: Recommendation) -> None:
        """One event of the stream, in order: ask for it, then take `made`, the list that followed it."""
        basket = self._basket.setdefault(user, set())
        if item < self.stream.items:
            self._ask(user, item, time_ms, basket)
            basket.add(item)
        else:
            basket.clear()
        for scorer in self._scorers.values():
            scorer.learn(user, item, time_ms)
        tokens = [self._tokens[ranked.item_id] for ranked in made.items]
        if user in self.shown and item < self.stream.items:
            self._show(user, item, time_ms, made)
        self._lists[user] = tokens
        day = time_ms // _DAY_MS
        if item == self.stream.items and self._daily.get(user, (-1, []))[0] != day:
            self._daily[user] = day, tokens

    def _ask(self, user: int, item: int, time_ms: int, basket: set[int]) -> None:
        ranks = {
            LIVE: _place(self._lists.get(user, []), item, basket),
            DAILY: _place(self._daily.get(user, (0, []))[1], item, basket),
        }
        taken = list(basket)
        for name, scorer in self._scorers.items():
            scores = scorer.score(user, time_ms)
            better = scores > scores[item]
            better[taken] = False
            ranks[name] = int(better.sum()) + 1
        for name, rank in ranks.items():
            self.scores[name].ask(rank)
        part = self.later if basket else self.first
        for name in part:
            part[name].ask(ranks[name])

    def _show(self, user: int, item: int, time_ms: int, made: Recommendation) -> None:
        before = [self._names[token] for token in self._lists.get(user, [])[:_SHOWN_ITEMS]]
        self.shown[user].append(
            Moment(
                household=self.stream.user_ids[user],
                at=datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%d %b %Y"),
                bought=self._names[item],
                before=before,
                after=[
                    (self._names[self._tokens[ranked.item_id]], reason_text(ranked.reasons[0], self._names_by_id))
                    for ranked in made.items[:_SHOWN_ITEMS]
                ],
            )
        )

    def _names_by_id(self, item_id: str) -> str:
        return self._names[self._tokens[item_id]] if item_id in self._tokens else item_id


def _place(tokens: list[int], item: int, basket: set[int]) -> int | None:
    """Rank of `item` in the list, from 1, items of the basket aside; None if it is not there."""
    rank = 0
    for token in tokens:
        if token not in basket:
            rank += 1
            if token == item:
                return rank
    return None


def reason_text(reason: Any, name_of: Callable[[str], str]) -> str:
    """A reason as a person reads it."""
    if reason.type == "because_of":
        return f"because of {name_of(reason.item_id)}"
    if reason.type == "often_together":
        return f"often together with {name_of(reason.item_id)}"
    if reason.type == "interest_in":
        return f"interest in {reason.category}"
    return {"bought_before": "bought before", "popular": "popular now"}.get(str(reason.type), "for you")


# ---------------------------------------------------------------------- the run


@dataclass
class Progress:
    """What the screen shows while events stream."""

    stage: str = ""
    done: int = 0
    total: int = 1
    events_per_s: float = 0.0
    latency_ms: tuple[float, float] = (0.0, 0.0)
    """p50 and p99 of the last thousand, from produce to committed list."""
    at: str = ""
    """Date in the data."""
    judge: Judge | None = None


@dataclass
class Feed:
    """Sends rows to the events topic, at most `_IN_FLIGHT` ahead of their lists, and takes the lists."""

    settings: Settings
    worker: subprocess.Popen[bytes]
    tell: Callable[[Progress], None]
    latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=1000))

    def __post_init__(self) -> None:
        client = self.settings.client_properties
        self._producer = Producer(client({"linger.ms": 1, "partitioner": "murmur2_random"}))
        self._consumer = Consumer(
            client({"group.id": "demo-reader", "enable.auto.commit": False, "fetch.wait.max.ms": 5})
        )
        topic = self.settings.topics.recommendations
        numbers = range(self.settings.topics.partitions)
        self._consumer.assign([TopicPartition(topic, number, 0) for number in numbers])
        self.all_latencies_ms: list[float] = []

    def run(self, data: Dataset, stage: str, judge: Judge | None) -> float:
        """Stream `data` in order of time; seconds it took.

        Raises:
            StreamError: the worker ended or went silent.
        """
        rows = list(zip(*_columns(data), strict=True))
        waiting: deque[tuple[int, float]] = deque()
        progress = Progress(stage, 0, len(rows), judge=judge)
        sent, began_s, told_s = 0, time.perf_counter(), 0.0
        heard_s = began_s
        while progress.done < len(rows):
            while sent < len(rows) and len(waiting) < _IN_FLIGHT:
                self._send(data, stage, sent, rows[sent])
                waiting.append((sent, time.perf_counter()))
                sent += 1
            self._producer.poll(0)
            for message in self._consumer.consume(500, 0.05):
                if message.error() is not None:
                    raise StreamError(f"reading the lists: {message.error()}")
                made = decode_recommendation(message.value() or b"")
                index, sent_s = waiting.popleft()
                if made.trigger_event_id != _event_id(stage, index):
                    raise StreamError(f"a list came for {made.trigger_event_id}, not for {_event_id(stage, index)}")
                heard_s = time.perf_counter()
                self.latencies_ms.append((heard_s - sent_s) * 1000)
                user, item, _, time_ms = rows[index]
                if judge is not None:
                    self.all_latencies_ms.append(self.latencies_ms[-1])
                    judge.judge(user, item, time_ms, made)
                progress.done += 1
            now_s = time.perf_counter()
            if now_s - told_s > 0.25:
                told_s = now_s
                self._update(progress, rows, began_s)
            if now_s - heard_s > _SILENCE_S or self.worker.poll() is not None:
                raise StreamError(
                    f"the worker {'ended' if self.worker.poll() is not None else 'is silent'}: its log says why"
                )
        self._update(progress, rows, began_s)
        return time.perf_counter() - began_s

    def _send(self, data: Dataset, stage: str, index: int, row: tuple[int, int, int, int]) -> None:
        user, item, code, time_ms = row
        user_id = data.user_ids[user]
        event = {
            "event_id": _event_id(stage, index),
            "event_type": EVENT_TYPES[code],
            "user_id": user_id,
            "occurred_at": time_ms,
        }
        if item < data.items:
            event["item_id"] = data.item_ids[item]
        self._producer.produce(self.settings.topics.events, json.dumps(event).encode(), user_id.encode())

    def _update(self, progress: Progress, rows: list[tuple[int, int, int, int]], began_s: float) -> None:
        progress.events_per_s = progress.done / max(time.perf_counter() - began_s, 1e-9)
        if self.latencies_ms:
            p50, p99 = np.percentile(self.latencies_ms, [50, 99])
            progress.latency_ms = float(p50), float(p99)
        if progress.done:
            at_ms = rows[progress.done - 1][3]
            progress.at = datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%d %b %Y")
        self.tell(progress)

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()


def _event_id(stage: str, index: int) -> str:
    return f"{stage}-{index}"


def run_stream(
    journey: Journey,
    folder: Path,
    tell: Callable[[Progress], None],
    *,
    every: int = STREAM_EVERY,
    shown_households: int = 3,
) -> dict[str, Any]:
    """Stream history and the rest of the year through a worker on an embedded broker; the figures.

    Raises:
        StreamError: the worker ended or went silent; its log is folder/worker.log.
    """
    stream = journey.stream(every)
    before = journey.before_stream()
    history = before.select(np.isin(before.user, np.unique(stream.user)))
    judge = Judge(journey, stream, _lively(stream, shown_households))
    with EmbeddedBroker() as broker, contextlib.ExitStack() as stack:
        settings = demo_settings(broker.bootstrap_servers, folder)
        create_topics(settings)
        worker = stack.enter_context(running_worker(settings, folder / "worker.log"))
        feed = Feed(settings, worker, tell)
        stack.callback(feed.close)
        history_s = feed.run(history, "history", None)
        stream_s = feed.run(stream, "stream", judge)
    p50, p99 = np.percentile(feed.all_latencies_ms, [50, 99])
    return {
        "events": len(stream),
        "purchases": int(stream.is_item.sum()),
        "baskets": int((~stream.is_item).sum()),
        "households": len(np.unique(stream.user)),
        "history_events": len(history),
        "history_s": history_s,
        "stream_s": stream_s,
        "events_per_s": len(stream) / stream_s,
        "in_flight": _IN_FLIGHT,
        "latency_ms": {"p50": float(p50), "p99": float(p99)},
        "hr@20": {name: score.hr for name, score in judge.scores.items()},
        "ndcg@20": {name: score.ndcg for name, score in judge.scores.items()},
        "first_of_basket_hr@20": {name: score.hr for name, score in judge.first.items()},
        "later_in_basket_hr@20": {name: score.hr for name, score in judge.later.items()},
    }


def _lively(stream: Dataset, count: int) -> list[int]:
    """Households to show: those with a middling number of baskets, the same at every run."""
    users, baskets = np.unique(stream.user[~stream.is_item], return_counts=True)
    order = users[np.argsort(-baskets, kind="stable")]
    return [int(order[len(order) * (index + 1) // (count + 3)]) for index in range(count)]
