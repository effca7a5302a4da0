"""How good lists were that a replay made: each event that speaks for an item asks the user's last list before it.

    log ->    view A      list 1      purchase B           list 2     view C
    asked     no list                 rank of B in list 1             rank of C in list 2

This is the prequential protocol (model.evaluation.prequential) of what users would have been shown: with one list a
user and chunk the list may be older than with one an event, in both of two replays that are compared alike.

    Share(observer=Judge.observe)  ──> OUT/answers/00007.jsonl ──> read_answers(OUT) ──> compared(a, b)
    (in the chunk's process)           (one line a chunk)           (arrays)             (intervals, paired p, verdict)

A user's last list stands in the partition's store, under a key of its own, and is committed with the states: a replay
that was killed goes on exactly, and memory is bounded by a chunk. Letters in shapes: q questions, M metrics.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from struct import pack, unpack
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from model.evaluation.significance import Interval, intervals, paired_p
from model.ranking.lists import UserList
from model.recommender import Portion
from state.keys import key_of
from stream.engine import Chunk
from stream.errors import ReplayError

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]

ANSWERS = "answers"
"""Where `observe` sends to: no topic but a folder of the replay's output."""
PLACES = 20
"""Places of a list that are remembered, and so the largest k."""
K = (10, 20)

BETTER, WORSE, NO_DIFFERENCE = "better", "worse", "no difference shown"
CHANCE = 0.05

MISSED, NO_LIST = 0, -1
"""In place of a rank: the item was not among the first places; the user had no list yet. Both count as a miss."""

_LIST_OF = b"\0judge-list "  # no user's key begins with NUL; NUL and a letter begin what is no user's state
_SHOWN = b"\0judge-shown "
_SCAN = 4096
_DRAWS = 4999  # a p of 0.05 is then told to 0.003
_MAX_GROUPS = 50_000
_KEY_BYTES = 8


class Answers(msgspec.Struct):
    """Of one chunk, question by question in the order of the log."""

    offset: list[int]
    """Of the event that asked."""
    user: list[int]
    """63 bits of a hash of the user's key: enough to tell users apart."""
    item: list[int]
    """`key_of` the item."""
    rank: list[int]
    """From 1, or MISSED or NO_LIST."""
    shown: list[int] = []
    """Items that stand on a list of the partition for the first time."""


class _Line(msgspec.Struct):
    """What a line of an answers file holds, as stream.replay.outputs writes what is sent."""

    value: Answers


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Line).decode


class Judge:
    """Judges the lists of partitions. Keeps nothing between chunks but in their store and memo.

    Args:
        recommendations: topic that lists, and tombstones of lists, are sent to.
        places: how many places of a list are remembered.
    """

    def __init__(self, recommendations: str, places: int = PLACES) -> None:
        self._recommendations = recommendations
        self._places = places

    def observe(self, chunk: Chunk, portion: Portion) -> None:
        """Ask with the events of a chunk, and remember its lists: puts and sends go into the chunk.

        chunk: after `InterestAgent.process`, before it is committed; portion: what that returned for it.
        """
        asking = [
            (user, interaction)
            for index, (user, interaction) in enumerate(portion.batch)
            if interaction.weight > 0.0 and interaction.items and index not in portion.duplicates
        ]
        last = self._last_lists(chunk, {user for user, _ in asking})
        made = [(one.offset, one.user, self._keys(one)) for one in portion.lists]
        fresh: dict[bytes, tuple[int, ...]] = {}
        answers = Answers([], [], [], [], self._first_shown(chunk, [keys for _, _, keys in made]))
        taken = 0
        for user, interaction in asking:
            # A list answers what comes after its event.
            while taken < len(made) and made[taken][0] < interaction.offset:
                fresh[made[taken][1]] = made[taken][2]
                taken += 1
            known = fresh.get(user)
            if known is None:
                known = last.get(user)
            number = _hash(user)
            for item in dict.fromkeys(interaction.items):
                answers.offset.append(interaction.offset)
                answers.user.append(number)
                answers.item.append(item)
                answers.rank.append(NO_LIST if known is None else known.index(item) + 1 if item in known else MISSED)
        fresh.update((user, keys) for _, user, keys in made[taken:])

        for topic, value, key, _, _ in chunk.sends:
            if topic == self._recommendations and value is None and key is not None and key not in fresh:
                chunk.put(_LIST_OF + key, None)  # an erased or idle user
        for user, keys in fresh.items():
            chunk.put(_LIST_OF + user, pack(f"<{len(keys)}q", *keys))
        if answers.offset or answers.shown:
            chunk.send(ANSWERS, _encode(answers))

    def _keys(self, made: UserList) -> tuple[int, ...]:
        return tuple([key_of(item.item_id) for item in made.items[: self._places]])

    def _last_lists(self, chunk: Chunk, users: Iterable[bytes]) -> dict[bytes, tuple[int, ...]]:
        wanted = list(users)
        values = chunk.get_many([_LIST_OF + user for user in wanted])
        return {
            user: unpack(f"<{len(value) // _KEY_BYTES}q", value)
            for user, value in zip(wanted, values, strict=True)
            if value is not None
        }

    def _first_shown(self, chunk: Chunk, lists: Iterable[tuple[int, ...]]) -> list[int]:
        """The items of the lists that no list of the partition had before, and are noted now."""
        known: set[int] | None = chunk.memo.get(ANSWERS)
        if known is None:
            known = chunk.memo[ANSWERS] = set(_noted(chunk))
        new: set[int] = set()
        for keys in lists:
            if not known.issuperset(keys):
                new.update(keys)
        new -= known
        known |= new
        for key in new:
            chunk.put(_SHOWN + pack("<q", key), b"")
        return sorted(new)


def _noted(chunk: Chunk) -> Iterable[int]:
    after = _SHOWN
    while found := chunk.scan(after, _SCAN):
        for key, _ in found:
            if not key.startswith(_SHOWN):
                return
            yield unpack("<q", key[len(_SHOWN) :])[0]
        after = found[-1][0]


def _hash(user: bytes) -> int:
    return int.from_bytes(blake2b(user, digest_size=8).digest(), "little") >> 1


# --- afterwards


@dataclass(frozen=True, eq=False)
class Judged:
    """All answers of a replay, in order of partition, offset and item."""

    place: I64
    """i64[q, 3]: partition, offset and item key of each question: by these two replays of a log are paired."""
    user: I64
    """i64[q]: hash of the user."""
    rank: I32
    """i32[q]: from 1, or MISSED or NO_LIST."""
    shown: frozenset[int]
    """Keys of the items that stood on any list."""

    def __len__(self) -> int:
        return len(self.rank)

    @property
    def without_list(self) -> int:
        """Questions of users who had no list yet: misses."""
        return int((self.rank == NO_LIST).sum())

    def values(self, k: Sequence[int] = K) -> tuple[list[str], F64]:
        """Names of M metrics, and their value for each question: f64[q, M].

        hr@k: 1 for a rank up to k; ndcg@k: 1 / log2(1 + rank); mrr@k: 1 / rank; 0 beyond k (model.evaluation.metrics).
        """
        rank = np.where(self.rank > 0, self.rank, np.inf)
        columns: dict[str, F64] = {}
        for places in k:
            hit = rank <= places
            columns[f"hr@{places}"] = hit.astype(np.float64)
            columns[f"ndcg@{places}"] = np.where(hit, 1.0 / np.log2(1.0 + rank), 0.0)
            columns[f"mrr@{places}"] = np.where(hit, 1.0 / rank, 0.0)
        return list(columns), np.stack(list(columns.values()), axis=1)


class Compared(msgspec.Struct, frozen=True):
    """One metric of two replays of the same log, on the questions that both were asked.

    Intervals are of 95 %, by bootstrap over users: all questions of a user, of both replays, are drawn together. Where
    there is no question all is nan.
    """

    name: str
    a: float
    a_interval: Interval
    b: float
    b_interval: Interval
    difference: float
    """b - a,"""
    interval: Interval
    """with its own interval,"""
    p: float
    """and how often chance alone would make one as large: a paired permutation test over users, two-sided."""


class Quality(msgspec.Struct, frozen=True):
    """How good the lists of two replays of a log were."""

    questions: int
    """That both were asked,"""
    questions_a: int
    """and that each was asked: others of a were duplicates, late or erased in b."""
    questions_b: int
    without_list_a: int
    """Questions, of all of a, of users who had no list yet: misses."""
    without_list_b: int
    items_shown_a: int
    """Items that stood on any list of a."""
    items_shown_b: int
    metrics: list[Compared]
    verdict: str
    """better, worse or no difference shown: of b, held against a."""
    because: str
    """The rule, with its figures."""


def has_answers(folder: Path) -> bool:
    """Whether the lists of the replay in a folder were judged."""
    return any((folder / ANSWERS).glob("*.jsonl"))


def read_answers(folder: Path) -> Judged:
    """The answers in a replay's folder.

    Raises:
        ReplayError: there are none, or a line is damaged.
    """
    files = sorted((folder / ANSWERS).glob("*.jsonl"))
    if not files:
        raise ReplayError(f"{folder}: no {ANSWERS}; replay with the lists judged.")
    parts: list[I64] = [np.empty((0, 5), np.int64)]
    shown: set[int] = set()
    for path in files:
        partition = _partition(path)
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    chunk = _decode(line).value
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    raise ReplayError(f"{path}, line {number}: no answers ({error}); replay anew.") from None
                shown.update(chunk.shown)
                columns = [np.asarray(c, np.int64) for c in (chunk.offset, chunk.item, chunk.user, chunk.rank)]
                parts.append(np.stack([np.full(len(chunk.offset), partition), *columns], axis=1))
    rows = np.concatenate(parts)
    rows = rows[np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))]
    return Judged(rows[:, :3], rows[:, 3], rows[:, 4].astype(np.int32), frozenset(shown))


def _partition(path: Path) -> int:
    if not re.fullmatch(r"\d+", path.stem):
        raise ReplayError(f"{path}: the name is no partition's number; take it out of the folder.")
    return int(path.stem)


def paired(a: Judged, b: Judged) -> tuple[I64, I64]:
    """Rows of `a` and rows of `b` that hold the same questions, in one order: i64[p] both."""
    place = np.concatenate([a.place, b.place])
    side = np.repeat([0, 1], [len(a), len(b)])
    order = np.lexsort((side, place[:, 2], place[:, 1], place[:, 0]))
    same = (place[order[1:]] == place[order[:-1]]).all(axis=1)  # a question is one row of each at most
    first = order[:-1][same]
    second = order[1:][same]
    return first, second - len(a)


def quality_of(judged: Judged, k: Sequence[int] = K, seed: int = 0) -> dict[str, Any]:
    """The metrics of one replay, each with its interval, as plain data; nan where nothing was asked."""
    names, values = judged.values(k)
    spans = intervals(values, _users(judged.user), seed=seed)
    means = values.mean(axis=0).tolist() if len(values) else [float("nan")] * len(names)
    return {
        "questions": len(judged),
        "metrics": dict(zip(names, means, strict=True)),
        "intervals": {name: [span.low, span.high] for name, span in zip(names, spans, strict=True)},
    }


def compared(a: Judged, b: Judged, *, k: Sequence[int] = K, seed: int = 0) -> Quality:
    """The metrics of two replays of the same log, and which is better.

    The rule: b is better or worse where NDCG at the first k differs with p below 0.05 and an interval that leaves out
    0; all other metrics are told, and decide nothing: with many metrics to choose from one would always differ.
    """
    rows_a, rows_b = paired(a, b)
    (names, values), (_, of_b) = a.values(k), b.values(k)
    of_a, of_b = values[rows_a], of_b[rows_b]
    users = _users(a.user[rows_a])
    both = np.concatenate([of_a, of_b, of_b - of_a], axis=1)  # q 3M
    spans = intervals(both, users, seed=seed)
    means = both.mean(axis=0).tolist() if len(both) else [np.nan] * len(spans)
    p_values = paired_p(of_b, of_a, users, draws=_DRAWS, seed=seed).tolist()
    size = len(names)
    metrics = [
        Compared(
            name=name,
            a=means[at],
            a_interval=spans[at],
            b=means[at + size],
            b_interval=spans[at + size],
            difference=means[at + 2 * size],
            interval=spans[at + 2 * size],
            p=p_values[at],
        )
        for at, name in enumerate(names)
    ]
    verdict, because = _verdict(next(one for one in metrics if one.name == f"ndcg@{k[0]}"))
    return Quality(
        questions=len(both),
        questions_a=len(a),
        questions_b=len(b),
        without_list_a=a.without_list,
        without_list_b=b.without_list,
        items_shown_a=len(a.shown),
        items_shown_b=len(b.shown),
        metrics=metrics,
        verdict=verdict,
        because=because,
    )


def _verdict(metric: Compared) -> tuple[str, str]:
    name, span = metric.name, metric.interval
    if np.isnan(metric.difference):
        return NO_DIFFERENCE, "no event of the log asked both for an item"
    told = (
        f"{name} is {metric.a:.4f} in a and {metric.b:.4f} in b: {metric.difference:+.4f}, "
        f"95 % interval {span.low:+.4f} to {span.high:+.4f}, p = {metric.p:.2g}"
    )
    if metric.p < CHANCE and (span.low > 0.0 or span.high < 0.0):
        return (BETTER if metric.difference > 0.0 else WORSE), told
    return NO_DIFFERENCE, f"{told}; a difference counts with p below {CHANCE} and an interval without 0"


def _users(hashes: I64) -> I32:
    """Users numbered from 0, i32[q]; of very many, groups of users: these are drawn just as well, and fit memory."""
    found, which = np.unique(hashes, return_inverse=True)
    return (which if len(found) <= _MAX_GROUPS else hashes % _MAX_GROUPS).astype(np.int32)
