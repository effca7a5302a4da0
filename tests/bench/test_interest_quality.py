"""The figures of `interest_quality` on few events, and its counting of late ones on none of the sample's."""

import numpy as np
import pytest

from state.window import Windows, WindowSettings, interest_key
from tests.bench import interest_quality as bench

needs_data = pytest.mark.skipif(not bench.DATA.exists(), reason="the sample of Taobao is not in ../shared/data")


def events_at(*times: int) -> bench.Events:
    n = len(times)
    zeros = np.zeros(n, np.int64)
    return bench.Events(zeros, zeros, ["pv"] * n, np.array(times, np.int64), 1, [interest_key("tea")])


def test_an_event_is_late_from_a_second_beyond_the_grace_period_on() -> None:
    events = events_at(1000, 940, 939, 2000, 1940, 1939)
    windows = Windows(WindowSettings(grace_s=60))
    packed, late = bench.replay(windows, events)
    assert late == bench.naive_late(events.time_s, 60) == [2, 5]
    assert windows.view(packed[0], 2000) == {interest_key("tea"): (4.0, 4.0, 4.0)}


def test_ranks_are_counted_from_the_best_and_learnt_after_the_test() -> None:
    n = np.zeros(4, np.int64)
    events = bench.Events(n, np.array([2, 1, 1, 2]), ["pv"] * 4, np.arange(4), 1, [10, 11, 12])
    ranks = bench.prequential(events, {"popularity": (None, 1.0, 0.0), "follows": (None, 0.0, 1.0)})
    assert ranks.rank["popularity"].tolist() == [2, 0, 1]  # seen before: 2 | 2 1 | 2 1 1
    assert ranks.rank["follows"].tolist() == [1, 1, 2]
    assert ranks.figures("popularity") == {"hr@10": 1.0, "ndcg@10": round((1 / 2 + 1 + 1 / np.log2(3)) / 3, 4)}


@needs_data
@pytest.mark.data
def test_windows_do_not_depend_on_the_order_and_late_events_are_those_named() -> None:
    result = bench.out_of_order(bench.load(most_users=300))
    assert result["grace 15 min"] == {"late in order": 0, "late shuffled": 0, "equal windows": True}
    strict = result["grace 1 min"]
    assert strict["late"] > 1000
    assert strict["as named naively"]
    assert strict["as recomputed without bounds"]


@needs_data
@pytest.mark.data
def test_the_next_category_is_among_the_first_ten() -> None:
    """A fifth of the users: less is learnt of popularity and transitions than from all (0.725 / 0.561)."""
    found = bench.quality(bench.load(most_users=200))
    assert found["hr@10"] > 0.68
    assert found["ndcg@10"] > 0.53
    assert found["variants"]["windows"]["ndcg@10"] > found["variants"]["popularity"]["ndcg@10"] + 0.3
