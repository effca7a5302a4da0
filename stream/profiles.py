"""Four uses of Driftline, each a set of settings that is a good place to begin: `--profile shop`.

A profile stands between the defaults and the settings file: what the file, the environment or the command line says
wins over it. Every value says why. What a profile leaves out has its default, and so does whatever it does not name.

They are starting points from what each use is known for, not results: weights and half-lives that fit a shop's own
customers are found on its own log.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400


def _window(size_s: int, pane_s: int, cells: int, emphasis: float) -> dict[str, Any]:
    """A window as in state.windows. Those of a profile have 38 cells together, as by default: a state's bound holds."""
    return {"size_s": size_s, "pane_s": pane_s, "cells": cells, "emphasis": emphasis}


class Choice(NamedTuple):
    """A value, and why it is that."""

    value: Any
    why: str


@dataclass(frozen=True)
class Profile:
    """Settings for one use."""

    about: str
    choices: Mapping[str, Choice]
    """"section.key" -> what it is set to."""

    def values(self) -> dict[str, dict[str, Any]]:
        """The settings as a file would give them: section -> key -> value."""
        values: dict[str, dict[str, Any]] = {}
        for name, choice in self.choices.items():
            section, _, key = name.partition(".")
            values.setdefault(section, {})[key] = choice.value
        return values


PROFILES: dict[str, Profile] = {
    "shop": Profile(
        "goods that are bought again: groceries, fashion, general retail",
        {
            "ranking.exclude": Choice(
                "session", "what is used up is bought again; only what this visit has seen is not shown once more"
            ),
            "ranking.basket_weight": Choice(0.5, "goods are bought together: bread and butter, camera and card"),
            "weights.view": Choice(
                0.5, "a shop's visitors open ten pages for one they put into the cart: pages must not drown purchases"
            ),
            "weights.click": Choice(1.0, "twice a view, as by default: it was chosen among others"),
            "weights.like": Choice(3.5, "a wish list is kept for later and is close to the cart, which stays above it"),
            "state.last_window": Choice(
                {"impression": "session"},
                "what was shown is gone with the visit; views stay in all windows: what was looked at last week is "
                "often what is bought",
            ),
            "state.count_half_lives_s": Choice(
                {"impression": 7 * _DAY_S, "view": 14 * _DAY_S, "click": 14 * _DAY_S, "purchase": 120 * _DAY_S},
                "what was only looked at is out of mind in two weeks; what was bought is bought again for months",
            ),
        },
    ),
    "social": Profile(
        "posts and short clips in a feed without an end",
        {
            "weights.view": Choice(0.5, "a feed shows one post after another without being asked: a view is cheap"),
            "weights.click": Choice(1.5, "opening a post is a choice, and three times as rare as passing it"),
            "weights.like": Choice(
                3.8, "likes, follows and shares are what people say most here; the cart stays above"
            ),
            "weights.dislike": Choice(-8.0, "feeds repeat themselves: one 'not for me' must end a run of likes"),
            "weights.dwell_usual_ms": Choice(8_000, "a post is read in seconds: 30 s would make every view a glance"),
            "state.session_gap_s": Choice(
                15 * _MINUTE_S, "people look in many times a day, each time for something else"
            ),
            "state.windows": Choice(
                {
                    "session": _window(15 * _MINUTE_S, 5 * _MINUTE_S, 16, 16.0),
                    "day": _window(_DAY_S, _HOUR_S, 12, 4.0),
                    "month": _window(30 * _DAY_S, _DAY_S, 10, 0.5),
                },
                "many topics a visit want cells; the month, half as by default, would hide what is followed now",
            ),
            "state.last_window": Choice(
                {"impression": "session", "view": "day"},
                "a feed shows posts unasked: one that passed says what holds the eye now, and nothing of last week; "
                "what was opened, liked or hidden counts in the month too",
            ),
            "state.count_half_life_s": Choice(
                7 * _DAY_S, "what one follows lasts weeks, single posts do not come back"
            ),
            "state.count_half_lives_s": Choice(
                {"impression": _DAY_S, "view": 2 * _DAY_S, "hide": 90 * _DAY_S, "dislike": 30 * _DAY_S},
                "a post that passed is forgotten after two days; one hidden unseen stays away for months, one that was "
                "viewed first fades as its view does, and is left out as seen until then",
            ),
            "ranking.exclude": Choice("seen", "nobody wants a post twice"),
            "ranking.popularity_weight": Choice(0.25, "what others talk about now is half of why one looks in"),
            "ranking.popularity_half_life_s": Choice(6.0 * _HOUR_S, "a post has most of its life on its first day"),
            "ranking.trend_refresh_events": Choice(512, "what is popular changes by the hour: look twice as often"),
        },
    ),
    "news": Profile(
        "articles that are old tomorrow",
        {
            "weights.click": Choice(
                1.25, "a headline promises; that it was read (view, with dwell time) says nearly as much"
            ),
            "weights.dwell_usual_ms": Choice(
                45_000, "the time of a read of average length, not of a page that was left"
            ),
            "state.session_gap_s": Choice(20 * _MINUTE_S, "news are read in short visits, morning, noon and evening"),
            "state.windows": Choice(
                {
                    "session": _window(20 * _MINUTE_S, 10 * _MINUTE_S, 12, 16.0),
                    "day": _window(_DAY_S, _HOUR_S, 12, 8.0),
                    "month": _window(30 * _DAY_S, _DAY_S, 14, 0.5),
                },
                "a topic lives for a day or two: today counts twice as by default, a month only tells the sections",
            ),
            "state.last_window": Choice(
                {"impression": "session", "click": "day"},
                "headlines shown are the editors' choice, and one clicked is of the day's news; what was read (view) "
                "tells the sections of a month",
            ),
            "state.count_half_life_s": Choice(2 * _DAY_S, "a single article says nothing of its reader after two days"),
            "ranking.exclude": Choice("seen", "a read article is done with"),
            "ranking.popularity_weight": Choice(0.3, "what everybody reads is news in itself"),
            "ranking.popularity_half_life_s": Choice(
                3.0 * _HOUR_S, "a story peaks within hours; yesterday's is not popular"
            ),
            "ranking.popularity_prior": Choice(
                500.0, "a model's popularity is of yesterday's articles: today's readers must outvote it soon"
            ),
            "ranking.trend_refresh_events": Choice(
                256, "breaking news: the popular items are taken anew four times as often"
            ),
        },
    ),
    "entertainment": Profile(
        "films, series, music and games",
        {
            "weights.rating": Choice(
                6.0, "stars are what people say most clearly here: twice a like, one star twice a dislike"
            ),
            "weights.dwell_usual_ms": Choice(
                20 * _MINUTE_S * 1000, "an episode: who stopped after a minute did not like it, who saw all did"
            ),
            "state.session_gap_s": Choice(
                4 * _HOUR_S, "a film is two hours without an event, and the evening goes on after it"
            ),
            "state.windows": Choice(
                {
                    "session": _window(4 * _HOUR_S, 30 * _MINUTE_S, 10, 8.0),
                    "day": _window(_DAY_S, _HOUR_S, 6, 2.0),
                    "month": _window(30 * _DAY_S, _DAY_S, 10, 1.0),
                    "season": _window(180 * _DAY_S, 10 * _DAY_S, 12, 1.0),
                },
                "an evening's mood, this month's series, and half a year of taste, seen once a week and slow to change",
            ),
            "state.last_window": Choice(
                {"impression": "session", "click": "day", "view": "month"},
                "a cover shown is the evening's, a trailer opened the day's; what was watched is this month's mood, "
                "and only stars, likes and purchases are taste that lasts a season",
            ),
            "state.count_half_lives_s": Choice(
                {"impression": 7 * _DAY_S, "click": 30 * _DAY_S},
                "a film that was not begun within a month of its trailer is not waited for any more",
            ),
            "state.count_half_life_s": Choice(
                180 * _DAY_S, "taste in films and music lasts for years, and is fed once a week"
            ),
            "ranking.exclude": Choice("seen", "a film seen is not what to see next"),
            "ranking.popularity_half_life_s": Choice(21.0 * _DAY_S, "a series is talked of for weeks"),
        },
    ),
}
"""By name."""
