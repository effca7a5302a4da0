"""Interest points: what a user's windows say of each interest, for people, lists and the ranker.

*Weight*: the sum over the windows of the weight in it times the window's emphasis. An event counts in each window
that it is in, so an event of this visit counts most and one of last week least. *Share*: weight divided by that
of all the user's interests of positive weight.

*Trend*: the interest's share of the longest window but one (the day) against its share of the longest (the month).
Dividing each window by all that the user did in it normalises for the windows' lengths, and for users who come once a
week too, to whom everything would be rising on the day they come and fading ever after if lengths alone were divided
by. The short window often holds one event or none, so it is filled up with `evidence` of weight spread as in the long
one:

    ratio = (short + evidence * long_share) / ((short_total + evidence) * long_share)

1: as always. The ratio at or above `rising` is a rising interest, at or below `fading` a fading one, between them
a steady one. A user whose events are all in the short window has only steady interests: there is nothing to
compare with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from state.errors import StateError
from state.window import Views, Windows, WindowSettings

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

FADING, STEADY, RISING = "fading", "steady", "rising"
TRENDS = (FADING, STEADY, RISING)
"""A trend's code plus one is its place here."""


class PointSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How interests are compared over time. Raises StateError on values that cannot work."""

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


class Points(NamedTuple):
    """The interests of positive weight of n users, p in all: by user, the strongest first, equal ones by key."""

    user: I64
    """[p] which of the n."""
    place: I64
    """[p] 0 for a user's strongest, and so on."""
    key: npt.NDArray[np.uint32]
    """[p] `state.window.interest_key` of its name."""
    weight: F64
    share: F64
    """[p] 0 .. 1 of the weight of all the user's interests."""
    trend: npt.NDArray[np.int8]
    """[p] 1 rising, 0 steady, -1 fading."""
    first_s: I64
    """[p] not seen before this time, as far back as is remembered (the longest window); to the pane."""
    last_s: I64
    """[p] not seen after this time; to the pane (10 minutes in the last half hour, 2 hours on the last day)."""


def interest_points(windows: Windows, packed: Sequence[bytes], at_s: int | I64, settings: PointSettings) -> Points:
    """The interest points of many users, from their windows, at one time or one for each of them.

    Raises StateCorruptError as `Windows.views`.
    """
    views = windows.views(packed, at_s)
    weights = strengths(views, windows.settings)
    order = np.lexsort((views.key, -weights, views.user))
    order = order[weights[order] > 0.0]
    user = views.user[order]
    return Points(
        user,
        np.arange(len(order)) - np.searchsorted(user, user),
        views.key[order],
        weights[order],
        shares(views, weights)[order],
        _trends(views, settings)[order],
        views.first_s[order],
        views.last_s[order],
    )


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


def _trends(views: Views, settings: PointSettings) -> npt.NDArray[np.int8]:
    """[m] 1 rising, 0 steady, -1 fading."""
    # A single window is compared with itself, and everything is steady.
    short = np.maximum(views.weights[:, -2:][:, 0], 0.0)
    long = np.maximum(views.weights[:, -1], 0.0)
    long_share = long / _of_user(views, long)
    now = short + settings.evidence * long_share
    usual = (_of_user(views, short, none=0.0) + settings.evidence) * long_share
    rising = (now >= settings.rising * usual) & (short > 0.0)
    fading = (now <= settings.fading * usual) & ~rising & (long_share > 0.0)  # of nothing, nothing can fade
    return rising.astype(np.int8) - fading.astype(np.int8)


def _of_user(views: Views, amounts: F64, none: float = 1.0) -> F64:
    """[m] the sum of the amounts over all interests of the same user; `none` where that is 0."""
    totals: F64 = np.bincount(views.user, amounts).astype(np.float64, copy=False)
    totals[totals == 0.0] = none
    return totals[views.user]
