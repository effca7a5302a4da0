"""Adaptation times on cases whose answer can be counted by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.baselines.base import FitSettings
from model.evaluation.questions import Questions
from model.simulation import adaptation
from model.simulation.adaptation import (
    AdaptationSettings,
    Case,
    Lists,
    adaptation_times,
    learnt_daily,
    live_lists,
    main,
    make_case,
    measure,
    midnight_lists,
    new_share,
    over_seeds,
    shares,
    summary,
    table,
)
from model.training.dataset import Dataset

SMALL = AdaptationSettings(users=300, items=300, events=20_000, days=8, judged=5, from_day=4, least_before=5)


def lists_of(user: list[int], events: list[int]) -> Lists:
    nothing = np.zeros(len(user), np.int64)
    return Lists(np.array(user, np.int32), np.array(events, np.int64), nothing, nothing)


def test_moments_of_live_lists() -> None:
    """rows    0  1  2  3  4    5  6  7
    user    0  0  0  0  (0)  1  1  (1)    (): stands after the last event
    since drift   2  3          6
    """
    found = live_lists(np.array([2, 6]), np.array([4, 7]), np.arange(8) * 10)
    assert found.user.tolist() == [0, 0, 1]
    assert found.events.tolist() == [1, 2, 1]
    assert found.row.tolist() == [3, 4, 7]
    assert found.time_ms.tolist() == [20, 30, 60]


def test_moments_of_midnight_lists() -> None:
    """time      0   5  |  12  14   17  |         |
    user 0    o   D  |  n   n    n   |         |      midnights at 10, 20, 30; D: the drift at 5
    known            0               3         3
    """
    time_ms = np.array([0, 12, 14, 17, 99])
    found = midnight_lists(np.array([1]), np.array([4]), time_ms, np.array([5]), np.array([10, 20, 30]))
    assert found.events.tolist() == [0, 3, 3]
    assert found.row.tolist() == [1, 4, 4]
    assert found.time_ms.tolist() == [10, 20, 30]


def test_share_of_the_new_category() -> None:
    category = np.array([0, 0, 1, 1, 2], np.int32)
    top = np.array([[0, 1, 2, 3], [4, 2, 3, 0]], np.int32)
    assert new_share(top, category, np.array([1, 0], np.int32)).tolist() == [0.5, 0.25]


def test_the_first_list_of_which_half_is_new_counts() -> None:
    """events   1    2    3
    user 0   .2   .5   .4       2: it got there once
    user 1   .1   .4   .4       censored
    user 2   .6                 1
    """
    lists = lists_of([0, 0, 0, 1, 1, 1, 2], [1, 2, 3, 1, 2, 3, 1])
    times = adaptation_times(lists, np.array([0.2, 0.5, 0.4, 0.1, 0.4, 0.4, 0.6]), 3)
    assert times.tolist() == [2.0, np.inf, 1.0]


def test_censored_users_are_the_slowest() -> None:
    assert summary(np.array([3.0, np.inf, 1.0, 2.0])) == {
        "quartile_1": 1.0,
        "median": 2.0,
        "quartile_3": 3.0,
        "users": 4,
        "censored": 1,
    }
    assert summary(np.array([np.inf, np.inf, 1.0]))["median"] is None


def test_over_seeds_what_was_never_seen_is_above_all_numbers() -> None:
    worlds = [summary(np.array(times)) for times in ([4.0, 5.0, 6.0], [1.0, np.inf, np.inf], [3.0, 3.0, np.inf])]
    found = over_seeds(worlds)
    assert found["quartile_1"] == {"lowest": 1.0, "median": 3.0, "highest": 4.0}
    assert found["median"] == {"lowest": 3.0, "median": 5.0, "highest": None}
    assert found["quartile_3"] == {"lowest": 6.0, "median": None, "highest": None}
    assert found["censored"] == {"lowest": 0.0, "median": 1.0, "highest": 2.0}
    line = table({"adaptation_events": {"ours, live": found}}).splitlines()[1]
    assert " ".join(line.split()) == "ours, live 3 (1 to 4) 5 (3 to -) - (6 to -) 1 (0 to 2) of 3"
    assert over_seeds(worlds[1:])["quartile_1"]["median"] == 1.0  # the lower of two


@pytest.fixture(scope="module")
def case() -> Case:
    return make_case(SMALL)


class _Oracle:
    """Puts the category of the newest event of each history on top."""

    name = "oracle"

    def __init__(self, category: np.ndarray) -> None:
        self.category = category
        self.learnt: list[int] = []

    def fit(self, train: Dataset, fit: FitSettings) -> None:
        self.learnt.append(int(train.time_ms.max()))

    def score(self, questions: Questions) -> np.ndarray:
        last = questions.data.item[questions.row - 1]
        return (self.category[None] == self.category[last][:, None]).astype(np.float32)


def test_a_list_of_the_last_category_adapts_at_the_first_new_item(case: Case) -> None:
    oracle = _Oracle(case.world.category)
    times = adaptation_times(case.live, shares(oracle, case, case.live), len(case.judged))
    for place, user in enumerate(case.judged.tolist()):
        rows = (case.data.user == user) & (case.data.time_ms >= case.world.drift_ms[user])
        items = case.data.item[rows][:-1]  # without the row that questions stand at
        new = np.flatnonzero(case.world.category[items] == case.world.after[user, 0])
        assert times[place] == (new[0] + 1 if len(new) else np.inf)
    assert np.isfinite(times).any()


def test_what_is_learnt_at_midnight_is_of_before(case: Case) -> None:
    oracle = _Oracle(case.world.category)
    found = learnt_daily(oracle, case, (case.live, case.daily), FitSettings(), lambda _: None)
    assert [len(share) for share in found] == [len(case.live.row), len(case.daily.row)]
    assert len(oracle.learnt) == len(case.midnights_ms)
    assert all(last < midnight for last, midnight in zip(oracle.learnt, case.midnights_ms, strict=True))
    assert (np.diff(case.midnights_ms) == 86_400_000).all()


TINY = ("--users", "120", "--items", "60", "--events", "6000", "--judged", "4", "--least-before", "5", "--steps", "3")


def test_the_whole_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "adaptation.json"
    assert main([*TINY, "--gru-seconds", "0.2", "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    assert capsys.readouterr().out.strip() == table(found)
    assert {row["users"]["median"] for row in found["adaptation_events"].values()} == {4}
    assert len(found["adaptation_events"]) == 6


def test_several_seeds_are_worlds_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []

    def of_world(settings: AdaptationSettings, _: object) -> dict[str, Any]:
        seeds.append(settings.seed)
        return {"seed": settings.seed, "adaptation_events": {"ours": summary(np.full(3, float(settings.seed)))}}

    monkeypatch.setattr(adaptation, "measure_world", of_world)
    found = measure(AdaptationSettings(seed=4, seeds=3), lambda _: None)
    assert seeds == [4, 5, 6]
    assert found["adaptation_events"]["ours"]["median"] == {"lowest": 4.0, "median": 5.0, "highest": 6.0}
    assert [world["seed"] for world in found["worlds"]] == [4, 5, 6]


def test_no_seeds_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "0"]) == 1
    assert "0 seeds: give 1 or more." in capsys.readouterr().err
