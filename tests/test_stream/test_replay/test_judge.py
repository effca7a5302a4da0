"""log      view a   |   buy b   view c   |   view b
chunks      1     |         2          |     3
lists          [b c]             [c a]
asked    no list      1       2              missed
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.ranking.lists import RankedItem, UserList
from model.recommender import Portion
from state.interaction import Interaction
from state.keys import key_of
from state.store import MemoryStore
from state.trend import Trend
from stream.engine import Chunk
from stream.engine.cycle import Partition
from stream.errors import ReplayError
from stream.replay.judge import (
    ANSWERS,
    BETTER,
    MISSED,
    NO_DIFFERENCE,
    NO_LIST,
    WORSE,
    Compared,
    Judge,
    Judged,
    compared,
    paired,
    read_answers,
)
from stream.replay.outputs import PartitionFiles
from stream.settings import load_settings

TOPICS = load_settings(environ={}).topics


def event(offset: int, *items: str, weight: float = 1.0) -> Interaction:
    return Interaction(offset, 1, offset, tuple(key_of(item) for item in items), (), weight, offset)


def made(user: bytes, offset: int, *items: str) -> UserList:
    ranked = [RankedItem(item, rank, 1.0 / rank, []) for rank, item in enumerate(items, 1)]
    return UserList(user, offset, event(offset), 1, "hybrid", ranked, [])


class Replay:
    """A partition whose chunks are judged and committed; a new one on the same store is a restart."""

    def __init__(self, out: Path, store: MemoryStore | None = None, places: int = 20) -> None:
        self.store = store or MemoryStore()
        self.partition = Partition(TOPICS.events, 3, TOPICS.changelog, self.store, 0)
        self.out = out
        self.lengths: dict[str, int] = {}
        self.judge = Judge(TOPICS.recommendations, places)

    def take(
        self,
        events: list[tuple[bytes, Interaction]],
        lists: list[UserList],
        *,
        duplicates: set[int] | None = None,
        removed: tuple[bytes, ...] = (),
    ) -> None:
        chunk = Chunk(self.partition, [], lambda _: None)
        for user in removed:
            chunk.send(TOPICS.recommendations, None, user)
        self.judge.observe(chunk, Portion(events, {}, Trend(1.0, 1), lists=lists, duplicates=duplicates or set()))
        files = PartitionFiles(self.out, 3, TOPICS, self.lengths)
        files.write(chunk)
        files.close()
        self.lengths = files.lengths
        self.store.write(chunk.puts, None)


def ranks(out: Path) -> list[int]:
    return read_answers(out).rank.tolist()


def test_an_event_asks_the_last_list_made_before_it(tmp_path: Path) -> None:
    replay = Replay(tmp_path)
    replay.take([(b"u", event(0, "a"))], [made(b"u", 0, "b", "c")])
    replay.take([(b"u", event(1, "b")), (b"u", event(2, "c"))], [made(b"u", 2, "c", "a")])
    replay.take([(b"u", event(3, "b"))], [])
    assert ranks(tmp_path) == [NO_LIST, 1, 2, MISSED]


def test_with_a_list_for_each_event_the_next_event_asks_the_newest(tmp_path: Path) -> None:
    lists = [made(b"u", 0, "b"), made(b"v", 1, "x"), made(b"u", 2, "z", "c")]
    Replay(tmp_path).take(
        [(b"u", event(0, "a")), (b"v", event(1, "a")), (b"u", event(2, "b")), (b"u", event(3, "c"))], lists
    )
    assert ranks(tmp_path) == [NO_LIST, NO_LIST, 1, 2]


def test_only_what_speaks_for_an_item_asks_and_only_once(tmp_path: Path) -> None:
    events = [event(0, "a", weight=-6.0), event(1, "a", weight=0.0), event(2), event(3, "a"), event(4, "a", "a", "b")]
    Replay(tmp_path).take([(b"u", one) for one in events], [], duplicates={3})
    assert read_answers(tmp_path).place[:, 1].tolist() == [4, 4]


def test_a_restart_knows_the_lists_and_what_was_shown(tmp_path: Path) -> None:
    before = Replay(tmp_path / "one")
    before.take([(b"u", event(0, "a"))], [made(b"u", 0, "b", "c")])
    after = Replay(tmp_path / "two", before.store)
    after.take([(b"u", event(1, "c"))], [made(b"u", 1, "c", "d")])
    found = read_answers(tmp_path / "two")
    assert found.rank.tolist() == [2]
    assert found.shown == {key_of("d")}


def test_the_list_of_a_removed_user_is_forgotten(tmp_path: Path) -> None:
    replay = Replay(tmp_path)
    replay.take([], [made(b"u", 0, "a"), made(b"v", 1, "a")])
    replay.take([], [made(b"v", 3, "b")], removed=(b"u", b"v"))  # v came back in the same chunk
    replay.take([(b"u", event(4, "a")), (b"v", event(5, "b"))], [])
    assert ranks(tmp_path) == [NO_LIST, 1]
    assert not any(key[-1:] == b"u" for key, _ in replay.store.items() if b"list" in key)


def test_places_beyond_those_remembered_are_a_miss(tmp_path: Path) -> None:
    replay = Replay(tmp_path, places=2)
    replay.take([], [made(b"u", 0, "a", "b", "c")])
    replay.take([(b"u", event(1, "b", "c"))], [])
    assert sorted(ranks(tmp_path)) == [MISSED, 2]


def judged(rank: list[int], user: list[int] | None = None, offsets: list[int] | None = None) -> Judged:
    size = len(rank)
    places = np.stack([np.zeros(size), offsets or np.arange(size), np.ones(size)], axis=1).astype(np.int64)
    return Judged(places, np.array(user or range(size), np.int64), np.array(rank, np.int32), frozenset())


def metric(a: Judged, b: Judged, name: str) -> Compared:
    (found,) = [one for one in compared(a, b, k=(1, 3, 5)).metrics if one.name == name]
    return found


def test_metrics_are_those_of_the_ranks() -> None:
    a, b = judged([1, 3, MISSED, NO_LIST]), judged([1, 1, MISSED, MISSED])
    assert (metric(a, b, "hr@1").a, metric(a, b, "hr@3").a, metric(a, b, "hr@1").b) == (0.25, 0.5, 0.5)
    assert metric(a, b, "ndcg@3").a == pytest.approx((1 + 0.5) / 4)
    assert metric(a, b, "mrr@3").a == pytest.approx((1 + 1 / 3) / 4)
    assert metric(a, b, "mrr@3").difference == pytest.approx((2 - 1 - 1 / 3) / 4)
    assert metric(a, b, "hr@3").a_interval.low < 0.5 < metric(a, b, "hr@3").a_interval.high
    found = compared(a, b)
    assert (found.questions, found.without_list_a, found.without_list_b) == (4, 1, 0)


def test_replays_are_compared_on_the_questions_of_both() -> None:
    a, b = judged([1, 1, 1], offsets=[0, 1, 5]), judged([0, 1, 2, 2], offsets=[1, 2, 5, 6])
    rows_a, rows_b = paired(a, b)
    assert (rows_a.tolist(), rows_b.tolist()) == ([1, 2], [0, 2])
    assert (metric(a, b, "hr@1").a, metric(a, b, "hr@1").b) == (1.0, 0.0)
    found = compared(a, b)
    assert (found.questions, found.questions_a, found.questions_b) == (2, 3, 4)


def test_a_difference_beyond_chance_is_told_from_none() -> None:
    draw = np.random.default_rng(0)
    user = np.repeat(np.arange(200), 5).tolist()
    ranks = draw.integers(0, 10, 1000)
    a = judged(ranks.tolist(), user)
    better = judged(np.where(draw.random(1000) < 0.2, 1, ranks).tolist(), user)
    alike = judged(draw.permutation(ranks).tolist(), user)
    assert compared(a, better).verdict == BETTER
    assert compared(better, a).verdict == WORSE
    assert compared(a, alike).verdict == compared(a, a).verdict == NO_DIFFERENCE
    assert "p below 0.05" in compared(a, alike).because
    assert metric(a, better, "hr@5").p < 0.01
    assert metric(a, better, "hr@5").interval.low > 0
    assert metric(a, alike, "hr@5").interval.low < 0 < metric(a, alike, "hr@5").interval.high


def test_very_many_users_are_drawn_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = np.random.default_rng(0).integers(0, 3, 2000)
    a, b = judged(ranks.tolist()), judged(ranks[::-1].tolist())
    whole = metric(a, b, "hr@1")
    monkeypatch.setattr("stream.replay.judge._MAX_GROUPS", 500)
    groups = metric(a, b, "hr@1")
    assert (groups.a, groups.b) == (whole.a, whole.b)
    assert groups.a_interval.low == pytest.approx(whole.a_interval.low, abs=0.01)
    assert groups.a_interval != whole.a_interval  # it was another drawing


def test_no_questions_give_no_figures() -> None:
    found = compared(judged([]), judged([1]))
    assert all(np.isnan(one.p) and np.isnan(one.a) for one in found.metrics)
    assert found.verdict == NO_DIFFERENCE


def test_a_folder_without_answers_or_with_a_damaged_line_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReplayError, match="no answers"):
        read_answers(tmp_path)
    (tmp_path / ANSWERS).mkdir()
    (tmp_path / ANSWERS / "00001.jsonl").write_text('{"key": null}\n')
    with pytest.raises(ReplayError, match="line 1"):
        read_answers(tmp_path)
