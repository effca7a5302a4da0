"""
      month                                day 30    t = day 30, 12:00
|------------------------------------------|------|
 tea tea tea tea tea tea tea tea tea tea               fading   (once there were views of other things today)
 rum   rum   rum   rum   rum   rum   rum    rum rum    steady
                                            jam jam    rising
"""

from typing import NamedTuple

import pytest

from state.errors import StateError
from state.points import TRENDS, PointSettings, interest_points
from state.window import UNITS, Window, Windows, WindowSettings, interest_key

DAY_S = 86_400
NOW_S = 20_000 * DAY_S + DAY_S // 2
TEA, RUM, JAM = interest_key("tea"), interest_key("rum"), interest_key("jam")
windows = Windows(WindowSettings())


class Point(NamedTuple):
    key: int
    weight: float
    share: float
    trend: str
    first_s: int
    last_s: int


def points(of: Windows, *users: bytes) -> list[Point]:
    """The points of the last of some users, the strongest first."""
    found = interest_points(of, users, NOW_S, PointSettings())
    mine = found.user == len(users) - 1
    assert found.place[mine].tolist() == list(range(mine.sum()))
    columns = (found.key, found.weight, found.share, found.trend, found.first_s, found.last_s)
    rows = zip(*[column[mine].tolist() for column in columns], strict=True)
    return [Point(key, weight, share, TRENDS[trend + 1], *seen) for key, weight, share, trend, *seen in rows]


def packed(*events: tuple[int, int, float]) -> bytes:
    state = b""
    for ago_s, key, weight in sorted(events, reverse=True):
        state = windows.add(state, NOW_S - ago_s, key, round(weight * UNITS))
    return state


def month_of_tea_and_rum() -> list[tuple[int, int, float]]:
    return [(day * DAY_S, key, 2.0) for day in range(3, 11) for key in (TEA, RUM)]


def test_trends_compare_the_share_of_the_day_with_that_of_the_month() -> None:
    today = [(60, RUM, 5.0), (120, JAM, 5.0)]
    found = {point.key: point for point in points(windows, packed(*month_of_tea_and_rum(), *today))}
    assert {key: point.trend for key, point in found.items()} == {TEA: "fading", RUM: "steady", JAM: "rising"}
    assert sum(point.share for point in found.values()) == pytest.approx(1.0)


def test_a_click_or_two_elsewhere_does_not_make_an_interest_fade() -> None:
    found = {p.key: p.trend for p in points(windows, packed(*month_of_tea_and_rum(), (60, RUM, 3.0)))}
    assert found == {TEA: "steady", RUM: "steady"}
    found = {p.key: p.trend for p in points(windows, packed(*month_of_tea_and_rum(), (60, RUM, 4.0)))}
    assert found == {TEA: "fading", RUM: "steady"}


def test_a_new_user_and_one_who_was_away_have_no_trend() -> None:
    new = points(windows, packed((60, TEA, 9.0), (50, RUM, 1.0)))
    assert {point.trend for point in new} == {"steady"}
    away = points(windows, packed(*month_of_tea_and_rum()))
    assert {point.trend for point in away} == {"steady"}


def test_weight_is_the_emphasised_sum_and_orders_the_points() -> None:
    state = packed((60, TEA, 1.0), (5 * 3600, RUM, 2.0), (9 * DAY_S, JAM, 6.0))
    found = points(windows, state)
    session, day, month = (window.emphasis for window in windows.settings.windows)
    assert [(point.key, point.weight) for point in found] == [
        (TEA, session + day + month),
        (RUM, 2.0 * (day + month)),
        (JAM, 6.0 * month),
    ]
    assert points(windows, b"") == []


def test_what_the_user_turned_away_from_is_no_point() -> None:
    state = packed((60, TEA, 2.0), (50, RUM, 3.0), (40, RUM, -5.0))
    found = points(windows, state)
    assert [(point.key, point.share) for point in found] == [(TEA, 1.0)]
    assert points(windows, packed((60, TEA, -1.0))) == []


def test_first_and_last_seen_enclose_the_events() -> None:
    first_s, last_s = NOW_S - 9 * DAY_S, NOW_S - 60
    (point,) = points(windows, packed((9 * DAY_S, TEA, 1.0), (3600, TEA, 1.0), (60, TEA, 1.0)))
    assert first_s - DAY_S < point.first_s <= first_s
    assert last_s == point.last_s  # never after the user's newest event


def test_many_users_at_once_are_as_each_alone() -> None:
    users = [packed((60, TEA, 1.0)), b"", packed(*month_of_tea_and_rum(), (60, JAM, -8.0)), packed((60, RUM, 0.5))]
    for last in range(len(users)):
        assert points(windows, *users[: last + 1]) == points(windows, users[last])


@pytest.mark.parametrize(
    "bad",
    [{"fading": 1.5}, {"rising": 0.9}, {"evidence": 0.0}],
)
def test_settings_that_cannot_work_say_so(bad: dict[str, float]) -> None:
    with pytest.raises(StateError, match="points"):
        PointSettings(**bad)


def test_windows_may_have_other_names_and_a_single_one_shows_no_trend() -> None:
    other = Windows(WindowSettings((Window("hour", 3600, 600, 10), Window("week", 7 * DAY_S, DAY_S, 20))))
    (point,) = points(other, other.add(b"", NOW_S, TEA, UNITS))
    assert (point.weight, point.trend) == (2.0, "steady")
    single = Windows(WindowSettings((Window("visit", 3600, 600, 10),)))
    state = single.add(single.add(b"", NOW_S - 2400, TEA, 9 * UNITS), NOW_S, RUM, UNITS)
    assert [(point.key, point.trend) for point in points(single, state)] == [(TEA, "steady"), (RUM, "steady")]


def test_what_stands_at_zero_over_the_day_and_the_month_does_not_fade() -> None:
    state = packed((5 * 3600, TEA, -6.0), (60, TEA, 6.0), (50, RUM, 1.0))
    assert [(point.key, point.trend) for point in points(windows, state)] == [(TEA, "steady"), (RUM, "steady")]
