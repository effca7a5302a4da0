import math

import numpy as np
import pytest

from model.evaluation.baselines import DecayedPopularity, Scorer
from model.evaluation.prequential import Judged, live_through, prequential, warm_split
from model.training.dataset import Dataset, dataset_from_arrays
from state.weights import PURCHASE


def log(*events: tuple[int, int, int, bool]) -> Dataset:
    """Rows of (user, item, minute, begins a session) over items a to d."""
    user, item, minute, begins = (list(column) for column in zip(*events, strict=True)) if events else ([],) * 4
    return dataset_from_arrays(
        user=np.array(user, np.int32),
        item=np.array(item, np.int32),
        type=np.full(len(user), PURCHASE, np.uint8),
        time_ms=np.array(minute, np.int64) * 60_000,
        new_session=np.array(begins, np.bool_),
        user_ids=["u0", "u1"],
        item_ids=["a", "b", "c", "d"],
    )


class Recorder:
    """Likes a best, then b, c, d; writes down what it is asked and told."""

    def __init__(self) -> None:
        self.diary: list[str] = []

    def begin(self, past: Dataset, users: np.ndarray) -> None:
        self.diary.append(f"begin {len(past)} {users.tolist()}")

    def score(self, user: int, time_ms: int) -> np.ndarray:
        self.diary.append(f"? {user}")
        return np.array([4.0, 3.0, 2.0, 1.0])

    def learn(self, user: int, item: int, time_ms: int) -> None:
        self.diary.append(f"{user} {'abcd^'[item]}")


def judge(past: Dataset, stream: Dataset, scorer: Scorer, **options: object) -> Judged:
    return prequential(past, stream, {"it": scorer}, **options)["it"]  # type: ignore[arg-type]  # hide as text


def test_every_event_is_asked_before_it_is_told_in_order_of_time() -> None:
    recorder = Recorder()
    judge(log((0, 0, 0, True)), log((1, 2, 9, True), (0, 1, 5, True), (0, 3, 5, False)), recorder)
    assert recorder.diary == ["begin 2 [0, 1]", "0 ^", "? 0", "0 b", "? 0", "0 d", "1 ^", "? 1", "1 c"]


def test_items_in_the_basket_are_no_candidates() -> None:
    #  basket 1: a d      basket 2: a d
    stream = log((0, 0, 1, True), (0, 3, 1, False), (0, 0, 9, True), (0, 3, 9, False))
    assert judge(log(), stream, Recorder()).rank.tolist() == [1, 3, 1, 3]
    assert judge(log(), stream, Recorder(), hide="none").rank.tolist() == [1, 4, 1, 4]
    assert judge(log(), stream, Recorder(), hide="seen").rank.tolist() == [1, 3]  # what is hidden is not asked


def test_new_items_are_ranked_among_new_items() -> None:
    found = judge(log((0, 1, 0, True)), log((0, 1, 5, True), (0, 3, 5, False)), Recorder())
    assert found.rank.tolist() == [2, 3]  # b among a b c d, then d among a c d
    assert found.new_rank.tolist() == [3]  # d among a c d; b was no news
    metrics = found.metrics(2)
    assert (metrics["hr@2"], metrics["new_hr@2"], metrics["questions"], metrics["new_questions"]) == (0.5, 0, 2, 1)
    assert metrics["ndcg@2"] == pytest.approx(0.5 / math.log2(3))


def test_a_scorer_gets_better_by_what_it_is_told() -> None:
    stream = log(*((0, 3, minute, True) for minute in range(5)))
    found = judge(log(), stream, DecayedPopularity(4, 3600.0))
    assert found.rank.tolist() == [2.5, 1, 1, 1, 1]


def test_an_empty_stream_has_no_questions() -> None:
    found = judge(log((0, 1, 0, True)), log(), Recorder())
    assert len(found.rank) == 0
    assert math.isnan(found.metrics()["hr@20"])


def test_what_nobody_took_before_is_not_asked_of_who_knows_the_stream_only() -> None:
    stream = log((0, 0, 1, True), (1, 0, 2, True), (1, 1, 3, False), (0, 1, 4, False))
    found = judge(log(), stream, Recorder(), hide="none", known_only=True)
    #  rows of the stream: start a b of user 0, start a b of user 1; its times: a of 0, a of 1, b of 1, b of 0
    assert found.row.tolist() == [4, 2]
    assert found.rank.tolist() == [1, 2]


def test_the_lists_are_kept_without_what_is_hidden() -> None:
    stream = log((0, 0, 1, True), (0, 3, 1, False))
    assert judge(log(), stream, Recorder(), hide="seen", lists=3).top.tolist() == [[0, 1, 2], [1, 2, 3]]
    assert judge(log(), stream, Recorder()).top.shape == (2, 0)


def test_all_of_a_log_with_a_warm_up() -> None:
    data = log((0, 0, 1, True), (1, 0, 2, True), (0, 1, 3, True), (1, 3, 4, True))
    recorder = Recorder()
    judged = live_through(data, {"it": recorder}, warm_share=0.5, seen_filtered=True, known_only=False, k=(2,))["it"]
    assert recorder.diary == ["begin 4 [0, 1]", "0 ^", "? 0", "0 b", "1 ^", "? 1", "1 d"]
    assert (judged.questions.target.tolist(), judged.rank.tolist()) == ([1, 3], [1, 3])
    assert judged.top.tolist() == [[1, 2], [1, 2]]
    assert judged.questions.seen(1).tolist() == [0]


def test_the_warm_up_does_not_cut_rows_of_one_time_apart() -> None:
    data = log((0, 0, 1, False), (0, 1, 2, False), (1, 0, 2, False), (1, 3, 3, False))
    assert [int(part.sum()) for part in warm_split(data, 0.6)] == [1, 3]
    assert [int(part.sum()) for part in warm_split(data, 0.0)] == [0, 4]
