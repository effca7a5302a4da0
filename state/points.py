"""Interest points: what a user's windows say of each interest, for people, lists and the ranker.

*Weight*: the sum over the windows of the weight in it times the window's emphasis. An event counts in each window
that it is in, so an event of this visit counts most and one of last week least. *Share*: weight divided by that
of all the user's interests of positive weight.

*Trend*: the interest's share of the short window against its share of the long one. Dividing each window by all
that the user did in it normalises for the windows' lengths, and for users who come once a week too, to whom
everything would be rising on the day they come and fading ever after if lengths alone were divided by. The short
window often holds one event or none, so it is filled up with `evidence` of weight spread as in the long one:

    ratio = (short + evidence * long_share) / ((short_total + evidence) * long_share)

1: as always. The ratio at or above `rising` is a rising interest, at or below `fading` a fading one, between them
a steady one. A user whose events are all in the short window has only steady interests: there is nothing to
compare with.
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from state.errors import StateError
from state.window import Views, Windows, WindowSettings

F64 = npt.NDArray[np.float64]

FADING, STEADY, RISING = "fading", "steady", "rising"
TRENDS = (FADING, STEADY, RISING)
"""A trend's code plus one is its place here."""


class PointSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How interests are compared over time. Raises StateError on values that cannot work."""

    short: str = "day"
    """Name of the window that is compared ..."""
    long: str = "month"
    """... with this one."""
    rising: float = 2.0
    """A share twice as large as usual is rising: below that, a few clicks more or less decide."""
    fading: float = 0.5
    """And half as large is fading: as far from 1 as `rising`, on a logarithmic scale."""
    evidence: float = 4.0
    """Weight, in views, that the short window must hold before an interest that is not in it is fading (with
    `fading` 0.5): four views of other things."""

    def __post_init__(self) -> None:
        if not 0.0 < self.fading < 1.0 < self.rising:
            raise StateError(f"points: fading {self.fading} must lie between 0 and 1, rising {self.rising} above 1")
        if not 0.0 < self.evidence < 1e9:
            raise StateError(f"points.evidence is {self.evidence}; set it above 0")

    def columns(self, windows: WindowSettings) -> tuple[int, int]:
        """Which windows `short` and `long` are. Raises StateError where they are none, or in the wrong order."""
        names = [window.name for window in windows.windows]
        for name in (self.short, self.long):
            if name not in names:
                raise StateError(f"points: there is no window {name!r}; the windows are {', '.join(names)}")
        short, long = names.index(self.short), names.index(self.long)
        if short >= long:
            raise StateError(f"points: {self.short!r} is not shorter than {self.long!r}; exchange them")
        return short, long


class Point(msgspec.Struct, frozen=True, gc=False):
    """One interest of a user."""

    key: int
    """`state.window.interest_key` of its name."""
    weight: float
    share: float
    """0 .. 1 of the weight of all the user's interests."""
    trend: str
    """One of TRENDS."""
    first_s: int
    """Not seen before this time, as far back as is remembered (the longest window); to the pane."""
    last_s: int
    """Not seen after this time; to the pane (10 minutes in the last half hour, 2 hours on the last day)."""


def strengths(views: Views, settings: WindowSettings) -> F64:
    """[m] weight of each of the interests in `views`; below 0 for what the user turned away from."""
    # One window after the other: a matrix product may sum in another order for another m.
    weights: F64 = np.zeros(len(views.key))
    for column, window in enumerate(settings.windows):
        weights += views.weights[:, column] * window.emphasis
    return weights


def shares(views: Views, weights: F64) -> F64:
    """[m] each weight above 0 divided by the sum of the user's; 0 for the others."""
    positive = np.maximum(weights, 0.0)
    return positive / _of_user(views, positive)


def trends(views: Views, windows: WindowSettings, settings: PointSettings) -> npt.NDArray[np.int8]:
    """[m] 1 rising, 0 steady, -1 fading."""
    short_column, long_column = settings.columns(windows)
    short = np.maximum(views.weights[:, short_column], 0.0)
    long = np.maximum(views.weights[:, long_column], 0.0)
    long_share = long / _of_user(views, long)
    now = short + settings.evidence * long_share
    usual = (_of_user(views, short, none=0.0) + settings.evidence) * long_share
    rising = (now >= settings.rising * usual) & (short > 0.0)
    fading = (now <= settings.fading * usual) & ~rising
    return rising.astype(np.int8) - fading.astype(np.int8)


def points(
    windows: Windows, packed: bytes, at_s: int, settings: PointSettings | None = None, most: int = 10
) -> list[Point]:
    """The user's strongest interests at `at_s`, the strongest first; of equal ones the smaller key.

    Only those of positive weight. Raises StateCorruptError as `Windows.views`, StateError as
    `PointSettings.columns`.
    """
    views = windows.views([packed], at_s)
    weights = strengths(views, windows.settings)
    parts = shares(views, weights)
    codes = trends(views, windows.settings, settings or PointSettings())
    order = [i for i in np.lexsort((views.key, -weights)).tolist() if weights[i] > 0.0]
    return [
        Point(
            key=int(views.key[i]),
            weight=float(weights[i]),
            share=float(parts[i]),
            trend=TRENDS[int(codes[i]) + 1],
            first_s=int(views.first_s[i]),
            last_s=int(views.last_s[i]),
        )
        for i in order[:most]
    ]


def _of_user(views: Views, amounts: F64, none: float = 1.0) -> F64:
    """[m] the sum of the amounts over all interests of the same user; `none` where that is 0."""
    totals: F64 = np.bincount(views.user, amounts).astype(np.float64, copy=False)
    totals[totals == 0.0] = none
    return totals[views.user]
