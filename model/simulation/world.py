"""A made-up shop whose users' interests are known, and known to drift.

**Users** have ten features f_u, **items** five features g_i, all standard normal by themselves; an item's lie around
the centre of its category. Item i belongs to category i mod C, with rank i div C there.

**Interests.** A user has three categories, with shares 0.6, 0.25 and 0.15. They are the best three of

    log p_c + 1.5 f_u . v_c / sqrt(10) + Gumbel noise,    p_c ~ (1 + c)^-0.5

so features tell something of them, and much is taste. **Drift**: most users have one drift, at a time drawn evenly
from the middle of the span; the first category is then replaced by one that is new to them, drawn by p_c alone: no
feature foretells it.

**Sessions** begin by chance, hour by hour: at a rate of the user's own (lognormal, sigma 1) times 1 + 0.8 sin(2 pi
(hour - 14) / 24), and not before 40 minutes of pause. A session is a geometric number of looks, one every 40 s or so
(lognormal, sigma 0.7). A look is, with these odds,

    0.15   at one of the user's last eight purchases, if its category still is an interest
    0.10   at something popular: a category by p_c
    else   at what the session is after: a category by the user's interests, drawn anew with probability 0.3 a look,
           and whenever the interests drift

Of the category the user sees a page of eight items, each drawn by Zipf's law of its rank, (1 + rank)^-0.8, and looks at
the one with the most of a_ui + Gumbel noise: a multinomial logit choice (McFadden 1974). a_ui = f_u . W g_i, of
variance 1: what a network over features can learn.

**Events.** Each look is a view; a click follows with probability sigmoid(a_ui - 0.4), half that for what is merely
popular, 0.9 for a thing bought before; 0.3 (0.8) of the clicks put it into the cart, and 0.6 (0.9) of those buy it. No
ratings. What happens inside a look happens at quarters of its time.

The world is made hour by hour from numbers drawn for (seed, hour), so it is the same however it is read, and no more
than an hour is in memory.

Letters in shapes: U users, n items, C categories, L looks, m events.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from model.errors import SimulationError
from model.training.dataset import Dataset, dataset_from_arrays
from state.weights import TYPE_CODES

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]

USER_FEATURES = 10
ITEM_FEATURES = 5
"""The article's case."""
SHARES = (0.6, 0.25, 0.15)
"""Of a user's three categories; the first is the one that drifts."""
VIEW, CLICK, ADD_TO_CART, PURCHASE = (TYPE_CODES[name] for name in ("view", "click", "add_to_cart", "purchase"))
NEVER_MS = 2**62
"""Time of a drift that does not come."""

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS
_PAUSE_MS = 40 * 60_000  # above the half hour by which sessions are told apart
_MOST_LOOKS = 60  # at 40 s each, a session of an hour or so
_EVENTS_PER_LOOK = 1.83  # measured; only sets the pace at which the asked number of events is reached
_PAGE = 8
_REMEMBERED = 8
_REPEAT, _POPULAR = 0.15, 0.10
_NEW_GOAL = 0.3
_TASTE = 1.5


@dataclass(frozen=True)
class WorldSettings:
    """Size and pace of a world. Raises SimulationError on values that make none."""

    users: int = 100_000
    items: int = 1_000
    categories: int = 25
    events: int = 2_000_000
    """So many are made."""
    days: float = 30.0
    """Span of time in which about so many events come; drifts lie between 0.25 and 0.9 of it."""
    drifting: float = 0.8
    """Share of the users whose interests drift."""
    session_looks: float = 8.0
    """Mean length of a session."""
    start_ms: int = 1_735_689_600_000
    """2025-01-01T00:00Z."""
    seed: int = 1

    def __post_init__(self) -> None:
        least = len(SHARES) + 1  # a drift needs one category more
        if self.users < 1 or self.events < 1 or self.days <= 0 or self.session_looks < 1 or self.seed < 0:
            raise SimulationError(
                "a world needs 1 user, 1 event, 1 look a session, some days and a seed of 0 or more: give such numbers."
            )
        if not least <= self.categories <= self.items:
            raise SimulationError(
                f"{self.categories} categories of {self.items} items: give from {least} categories up to one an item."
            )
        if not 0.0 <= self.drifting <= 1.0:
            raise SimulationError(f"a share of {self.drifting} drifting users: give one from 0 to 1.")


class Events(NamedTuple):
    """m events in order of time."""

    user: I32
    item: I32
    type: U8
    """Index into state.weights.EVENT_TYPES."""
    time_ms: I64

    @staticmethod
    def join(parts: list[Events]) -> Events:
        return Events(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    def at(self, rows: Any) -> Events:
        """Those of a slice, a mask or indexes."""
        return Events(*(column[rows] for column in self))


class World:
    """What is fixed from the start: features, interests before and after, times of drift."""

    def __init__(self, settings: WorldSettings) -> None:
        self.settings = settings
        draw = np.random.default_rng((settings.seed, 0))
        users, n, categories = settings.users, settings.items, settings.categories
        self.category: I32 = (np.arange(n) % categories).astype(np.int32)
        """i32[n]."""
        self.popularity = (1.0 + np.arange(categories)) ** -0.5
        self.popularity /= self.popularity.sum()  # C
        self.user_features: F32 = draw.standard_normal((users, USER_FEATURES), np.float32)
        """f32[U, 10]."""
        centres = draw.standard_normal((categories, ITEM_FEATURES), np.float32)
        own = draw.standard_normal((n, ITEM_FEATURES), np.float32)
        self.item_features: F32 = ((centres[self.category] + own) / np.float32(np.sqrt(2.0))).astype(np.float32)
        """f32[n, 5]."""
        mixing = draw.standard_normal((USER_FEATURES, ITEM_FEATURES), np.float32)
        mixing /= np.linalg.norm(mixing)  # so that f W g has variance 1
        self._tastes: F32 = self.user_features @ mixing  # U 5
        wishes = draw.standard_normal((USER_FEATURES, categories), np.float32) * np.float32(
            _TASTE / np.sqrt(USER_FEATURES)
        )
        logits = self.user_features @ wishes + np.log(self.popularity).astype(np.float32)  # U C
        logits += draw.gumbel(size=logits.shape)
        self.before: I32 = np.argsort(-logits, axis=1)[:, : len(SHARES)].astype(np.int32)
        """i32[U, 3]: categories of interest, the first first."""
        logits = draw.gumbel(size=logits.shape) + np.log(self.popularity)
        np.put_along_axis(logits, self.before.astype(np.int64), -np.inf, axis=1)
        self.after: I32 = self.before.copy()
        """i32[U, 3]: the same after the drift."""
        drifts = draw.random(users) < settings.drifting
        self.after[drifts, 0] = logits.argmax(axis=1)[drifts]
        share = draw.uniform(0.25, 0.9, users)
        self.drift_ms: I64 = np.where(
            drifts, settings.start_ms + (share * settings.days * _DAY_MS).astype(np.int64), NEVER_MS
        )
        """i64[U]: from when on `after` holds; NEVER_MS: it never does."""
        pace = draw.lognormal(-0.5, 1.0, users)  # mean 1
        sessions = settings.events / (settings.session_looks * _EVENTS_PER_LOOK)
        self._rate = pace * (sessions / (users * settings.days * 24.0))  # U: sessions an hour
        ranks = -(-n // categories)
        self._rank_sums = np.cumsum((1.0 + np.arange(ranks)) ** -0.8)
        self._rank_sums /= self._rank_sums[-1]

    def interests(self, user: I32, after: Bool) -> I32:
        """Categories of each user's interest, before or after the drift. i32[L, 3]."""
        return np.where(after[:, None], self.after[user], self.before[user])

    def events(self) -> Iterator[Events]:
        """All events in order of time, in slices of an hour at most; the same at every call."""
        left = self.settings.events
        past = _Past(self.settings.users)
        waiting: list[Events] = []  # of sessions that go on beyond the hour
        hour = 0
        while left:
            until_ms = self.settings.start_ms + (hour + 1) * _HOUR_MS
            found = Events.join([*waiting, *self._hour(hour, past)])
            found = found.at(np.argsort(found.time_ms, kind="stable"))
            border = int(np.searchsorted(found.time_ms, until_ms))
            waiting = [found.at(slice(border, None))]
            made = found.at(slice(0, min(border, left)))
            left -= len(made.user)
            hour += 1
            if len(made.user):
                yield made

    def _hour(self, hour: int, past: _Past) -> list[Events]:
        """The events of the sessions that begin in an hour, views first, then clicks and so on."""
        draw = np.random.default_rng((self.settings.seed, 1, hour))
        from_ms = self.settings.start_ms + hour * _HOUR_MS
        rate = self._rate * (1.0 + 0.8 * np.sin(2.0 * np.pi * (hour % 24 - 14) / 24.0))
        begin = np.flatnonzero(draw.random(len(rate)) < rate)
        start_ms = from_ms + draw.integers(0, _HOUR_MS, len(begin))
        length = np.minimum(draw.geometric(1.0 / self.settings.session_looks, len(begin)), _MOST_LOOKS)
        free = start_ms >= past.until_ms[begin] + _PAUSE_MS
        begin, start_ms, length = begin[free], start_ms[free], length[free]

        session = np.repeat(np.arange(len(begin)), length)  # L
        user = begin[session].astype(np.int32)
        first = np.append(0, np.cumsum(length))[:-1]
        lasts_ms = np.clip(40_000.0 * draw.lognormal(0.0, 0.7, len(session)), 4_000, 600_000).astype(np.int64)
        passed = np.cumsum(lasts_ms) - lasts_ms
        time_ms = start_ms[session] + passed - passed[first[session]]
        if len(begin):
            past.until_ms[begin] = time_ms[first + length - 1] + lasts_ms[first + length - 1]

        item, repeated, popular = self._looks(draw, user, time_ms, first, past)
        own = (self._tastes[user] * self.item_features[item]).sum(axis=1)  # L
        click = np.where(repeated, 0.9, np.where(popular, 0.5, 1.0) / (1.0 + np.exp(0.4 - own)))
        clicked = draw.random(len(user)) < click
        in_cart = clicked & (draw.random(len(user)) < np.where(repeated, 0.8, 0.3))
        bought = in_cart & (draw.random(len(user)) < np.where(repeated, 0.9, 0.6))
        past.add(user[bought], item[bought])
        return [
            Events(
                user[rows], item[rows], np.full(rows.sum(), code, np.uint8), time_ms[rows] + at * lasts_ms[rows] // 4
            )
            for at, (code, rows) in enumerate(
                ((VIEW, np.ones(len(user), np.bool_)), (CLICK, clicked), (ADD_TO_CART, in_cart), (PURCHASE, bought))
            )
        ]

    def _looks(
        self, draw: np.random.Generator, user: I32, time_ms: I64, first: I64, past: _Past
    ) -> tuple[I32, Bool, Bool]:
        """What each look is at. user: i32[L], time_ms: i64[L], first: the looks that begin a session.

        Result: item i32[L]; whether it is a repeat; whether it was merely popular.
        """
        looks = len(user)
        begins = np.zeros(looks, np.bool_)
        begins[first] = True
        after = time_ms >= self.drift_ms[user]
        new_goal = begins | (draw.random(looks) < _NEW_GOAL)
        new_goal[1:] |= after[1:] != after[:-1]
        goal = np.maximum.accumulate(np.where(new_goal, np.arange(looks), 0))  # L: the look that set it
        interests = self.interests(user, after)  # L 3
        which = np.searchsorted(np.cumsum(SHARES)[:-1], draw.random(looks), side="right")
        category = interests[np.arange(looks), which][goal]

        kind = draw.random(looks)
        popular = (kind >= _REPEAT) & (kind < _REPEAT + _POPULAR)
        any_category = np.searchsorted(np.cumsum(self.popularity)[:-1], draw.random(looks), side="right")
        category = np.where(popular, any_category, category)
        item = self._choose(draw, user, category)

        bought_before = past.items[user, (draw.random(looks) * np.minimum(past.count[user], _REMEMBERED)).astype(int)]
        still = (self.category[bought_before][:, None] == interests).any(axis=1)
        repeated = (kind < _REPEAT) & (past.count[user] > 0) & still
        return np.where(repeated, bought_before, item).astype(np.int32), repeated, popular

    def _choose(self, draw: np.random.Generator, user: I32, category: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The best of a page of the category, for each look. user: i32[L], category: int[L]; result: int[L]."""
        rank = np.searchsorted(self._rank_sums, draw.random((len(user), _PAGE)), side="right")  # L page
        page = category[:, None] + len(self.popularity) * rank
        page = np.where(page < self.settings.items, page, category[:, None])  # the last rank is not in every category
        value = np.einsum("lf,lpf->lp", self._tastes[user], self.item_features[page])
        value += draw.gumbel(size=value.shape)
        chosen: npt.NDArray[Any] = np.take_along_axis(page, value.argmax(axis=1)[:, None], axis=1)[:, 0]
        return chosen

    def dataset(self, parts: list[Events] | None = None) -> Dataset:
        """Events as a log to train on; all of the world's, if none are given."""
        found = Events.join(list(self.events()) if parts is None else parts)
        return dataset_from_arrays(
            user=found.user,
            item=found.item,
            type=found.type,
            time_ms=found.time_ms,
            user_ids=[user_id(user) for user in range(self.settings.users)],
            item_ids=[item_id(item) for item in range(self.settings.items)],
            item_categories=[category_name(category) for category in self.category],
            source=f"simulation, seed {self.settings.seed}",
        )


class _Past:
    """What of the users' past the future depends on."""

    def __init__(self, users: int) -> None:
        self.until_ms: I64 = np.full(users, -NEVER_MS, np.int64)
        """When the last session ended."""
        self.items: I32 = np.zeros((users, _REMEMBERED), np.int32)
        """The last purchases, in a ring."""
        self.count: I64 = np.zeros(users, np.int64)
        """Purchases so far."""

    def add(self, user: I32, item: I32) -> None:
        """Purchases, those of a user side by side and in order."""
        place = np.arange(len(user)) - np.searchsorted(user, user)  # users ascend: their sessions were drawn so
        self.items[user, (self.count[user] + place) % _REMEMBERED] = item
        self.count += np.bincount(user, minlength=len(self.count))


def user_id(user: int) -> str:
    """The id of user number `user`."""
    return f"u{user:06d}"


def item_id(item: int) -> str:
    """The id of item number `item`."""
    return f"i{item:05d}"


def category_name(category: int) -> str:
    """The name of a category."""
    return f"category {category:02d}"
