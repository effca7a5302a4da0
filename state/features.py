"""What a model may learn from: a user's state, an item's catalogue entry and both together, as numbers.

    states, at_ms ────────────> users   f32[n, U]       how the user behaves
    catalogue, keys, at_ms ───> items   f32[n, k, I]    what the item is
    all of them ──────────────> pairs   f32[n, k, P]    what the user did with it and its like

One function, `FeatureReader.read`, for live lists, replays and training: it has no clock and holds nothing, so equal
states give equal features, bit for bit, whichever others are read with them. (On another kind of processor the last bit
of a logarithm may differ.) Every feature is finite and within -1 .. 1; `python -m state.features` writes the table of
them into README.md beside this file.

Long-tailed numbers are scaled as ``log(x, most)`` = log2(1 + x) / log2(1 + most), at most 1: 0 for nothing, 1 for
`most` and above, and as far from 1 to 3 as from 3 to 7. Signed: that of the amount without its sign, times the sign.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from state.catalog import NEVER_MS
from state.errors import FeatureError
from state.interest import COUNT, COUNT_DTYPE, KEY_BYTES, RECENT, RECENT_DTYPE, InterestState
from state.points import shares, strengths
from state.settings import CATEGORY, StateSettings
from state.weights import NEGATIVE_TYPES, PURCHASE, WeightSettings
from state.window import MAX_TIME_S

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
U64 = npt.NDArray[np.uint64]
U32 = npt.NDArray[np.uint32]
Bools = npt.NDArray[np.bool_]

VERSION = 1
"""Raised with every change of a feature's meaning; a model refuses features of another."""

_DAY_S = 86_400
_LONG_S = 90 * _DAY_S  # a season: beyond it, "long ago" is all that a time says
_MANY = 65_535.0  # 16 doublings: more events than nearly anyone has
_MOST_PRICE = 2.0**20 - 1  # a car in dollars, a meal in rupiah
_PRICE_RATIO_OCTAVES = 4.0  # a 16th of what the user usually buys, or 16 times that
_DEEPEST = 8.0  # categories have 2 to 6 levels
_SPREAD_BITS = 6.0  # 64 interests of equal share: more than the windows hold

_IS_PURCHASE = np.array([code == PURCHASE for code in range(256)])
_IS_NEGATIVE = np.array([code in NEGATIVE_TYPES for code in range(256)])
# Tables, so that no time of the day is ever computed in two ways.
_HOUR_TURN = 2.0 * math.pi * np.arange(1440) / 1440.0
_HOUR = np.stack([np.sin(_HOUR_TURN), np.cos(_HOUR_TURN)], axis=1)  # 1440 2
_WEEK_TURN = 2.0 * math.pi * np.arange(7) / 7.0
_WEEKDAY = np.stack([np.sin(_WEEK_TURN), np.cos(_WEEK_TURN)], axis=1)  # 7 2
_FIRST_WEEKDAY = 3  # 1970 began on a Thursday; 0 is Monday


class Feature(NamedTuple):
    """One feature, as README tells it."""

    name: str
    group: str
    """user, item or pair."""
    meaning: str
    unit: str
    low: float
    high: float


class ItemCatalog(Protocol):
    """What features ask of a catalogue: `state.catalog.Catalog`, or a stand-in. Arrays of one shape in and out."""

    def rows(self, keys: U64) -> I64:
        """Rows of item keys; 0: not held."""

    def available(self, rows: I64) -> Bools:
        """Whether they may be recommended, but for their expiry."""

    def expires_at_ms(self, rows: I64) -> I64:
        """When they expire, epoch ms; `state.catalog.NEVER_MS`."""

    def prices(self, rows: I64) -> F64:
        """Price of one; NaN where it is not known."""

    def brands(self, rows: I64) -> I32:
        """One number for the items of a brand; 0: none."""

    def depths(self, rows: I64) -> I64:
        """How many names the category path has; 0: not known."""

    def interests(self, rows: I64) -> U32:
        """`state.window.interest_key` of the category; 0: not known."""


class Values(NamedTuple):
    """Features of n users, and of k items for each of them."""

    users: F32
    """f32[n, U]"""
    items: F32
    """f32[n, k, I]; k is 0 when no items were asked for."""
    pairs: F32
    """f32[n, k, P]"""


def features(windows: Sequence[str]) -> tuple[Feature, ...]:
    """All features in their order, for windows of these names: users', items', pairs'."""
    user, item, pair = "user", "item", "pair"
    return (
        Feature("events", user, "Events applied, each counted once", "log(events, 65535)", 0, 1),
        Feature("idle", user, "Time since the newest event; 0 right after it", "log(s, 90 days)", 0, 1),
        Feature(
            "away",
            user,
            "From the last item of an earlier visit to the begin of this one; 1 without one",
            "log(s, 90 days)",
            0,
            1,
        ),
        Feature("session_age", user, "Time since the running session began", "log(s, 1 day)", 0, 1),
        Feature("session_items", user, "Items of the running session, as far as kept", "log(items, 63)", 0, 1),
        *[
            Feature(f"{name}_weight", user, f"Weight of all interests in the {name} window", "log(weight, 65535)", 0, 1)
            for name in windows
        ],
        Feature(
            "against",
            user,
            f"Of the weight in the {windows[-1]} window, without signs, the share that speaks against something",
            "share",
            0,
            1,
        ),
        Feature("interests", user, "Interests of positive weight", "log(interests, 63)", 0, 1),
        Feature("top_share", user, "Share of the strongest interest", "share", 0, 1),
        Feature("spread", user, "Entropy of the interests' shares: 0 for one, 1 for 64 equal ones", "bits / 6", 0, 1),
        Feature("items", user, "Items with a count of their own", "log(items, 255)", 0, 1),
        Feature("items_sum", user, "Sum of their positive counts, decayed", "log(weight, 65535)", 0, 1),
        Feature("items_bought", user, "Share of these items that were bought", "share", 0, 1),
        Feature("items_against", user, "Share of these items with a count below 0", "share", 0, 1),
        Feature("recent_bought", user, "Share of purchases among the recent items", "share", 0, 1),
        Feature("recent_against", user, "Share of dislike, hide, remove_from_cart among them", "share", 0, 1),
        Feature("hour_sin", user, "Time of the day of the event, UTC, to the minute", "sine of the turn", -1, 1),
        Feature("hour_cos", user, "The same", "cosine of the turn", -1, 1),
        Feature("weekday_sin", user, "Day of the week of the event, UTC; Monday is 0", "sine of the turn", -1, 1),
        Feature("weekday_cos", user, "The same", "cosine of the turn", -1, 1),
        Feature("price", item, "Price, in its currency; 0 where not known", "log(price, 1048575)", 0, 1),
        Feature("price_known", item, "The catalogue has its price, 0 or above", "0 or 1", 0, 1),
        Feature("brand_known", item, "The catalogue has its brand", "0 or 1", 0, 1),
        Feature("depth", item, "Levels of its category path; 0 where not known", "levels / 8", 0, 1),
        Feature("available", item, "May be recommended at the event; 1 where not held", "0 or 1", 0, 1),
        Feature("expires_in", item, "Time to its expiry; 1 without one", "log(s, 90 days)", 0, 1),
        *[
            Feature(
                f"{name}_interest",
                pair,
                f"Its category's weight in the {name} window, as a share of all weight there without signs",
                "share, below 0 against",
                -1,
                1,
            )
            for name in windows
        ],
        Feature("count", pair, "The user's count of it, decayed", "log(weight, 65535), signed", -1, 1),
        Feature("count_share", pair, "That count as a share of all counts without signs", "share, signed", -1, 1),
        Feature("times_recent", pair, "How often it is among the recent items", "log(times, 15)", 0, 1),
        Feature(
            "recency",
            pair,
            "1 - time since the last event on it, if it has a count; 0 if not",
            "1 - log(s, 90 days)",
            0,
            1,
        ),
        Feature(
            "price_ratio",
            pair,
            "Its price against the mean (geometric) of the items of positive count; 0 where one is not known",
            "doublings / 4",
            -1,
            1,
        ),
        Feature("brand_share", pair, "Share of its brand in the positive counts of items with one", "share", 0, 1),
        Feature("brand_met", pair, "An item of its brand has a positive count", "0 or 1", 0, 1),
    )


class FeatureReader:
    """Reads features, for states of these settings. Holds no user."""

    def __init__(self, settings: StateSettings, weights: WeightSettings) -> None:
        """weights: what events counted in the states; features are of that meaning only."""
        self._settings = settings
        self._weights = weights
        self._windows = settings.windows.windows
        self.features = features([window.name for window in self._windows])
        """All, in their order."""
        groups = {name: tuple([f for f in self.features if f.group == name]) for name in ("user", "item", "pair")}
        self.user, self.item, self.pair = groups["user"], groups["item"], groups["pair"]
        """Of each group: the columns of its array."""

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that are others whenever a feature's name, place or meaning is another.

        It covers the version and the settings that values depend on. Keep it beside a model, and `require` it.
        """
        s = self._settings
        windows = [(w.name, w.size_s, w.pane_s, w.cells, w.emphasis) for w in self._windows]
        parts = (
            VERSION,
            [(f.name, f.group) for f in self.features],
            windows,
            [s.recent_items, s.max_counted_items, s.session_gap_s, s.count_half_life_s, s.windows.grace_s],
            msgspec.structs.astuple(self._weights),
        )
        # Later settings, at their defaults, leave the fingerprints that were written before them.
        later = (sorted(s.count_half_lives_s.items()), sorted(s.last_window.items()), s.interests)
        told = parts if later == ([], [], (CATEGORY,)) else (*parts, later)
        return blake2b(msgspec.json.encode(told), digest_size=8).hexdigest()

    def require(self, fingerprint: str) -> None:
        """Raise FeatureError unless `fingerprint`, of a model or a log, is that of the features read here."""
        if fingerprint != self.fingerprint:
            raise FeatureError(
                f"these features have the fingerprint {self.fingerprint} (version {VERSION}), and {fingerprint} is "
                "wanted: the version, the windows, the weights or another setting of [state] differ. Train the model "
                "again with these settings, or start with those that it was trained with."
            )

    def read(
        self,
        states: Sequence[InterestState],
        at_ms: Sequence[int] | I64,
        keys: U64 | None = None,
        catalog: ItemCatalog | None = None,
        *,
        interests: U32 | None = None,
    ) -> Values:
        """Features of users as they are after an event, and of items for them.

        Args:
            states: n states; nothing is written to them.
            at_ms: i64[n], time of the event of each, epoch ms.
            keys: u64[n, k], items to judge for each user; None: features of users only.
            catalog: what is known of items; None: nothing is.
            interests: u32[n, k], `state.window.interest_key` of the items' categories where something other than the
                catalogue knows them (a model does); 0: not known.

        Raises StateCorruptError for windows that cannot be read.
        """
        users = _Users(states, at_ms, self._settings)
        n = len(states)
        if keys is None:
            none = np.empty((n, 0, 0), np.float32)
            return Values(self._user_values(users), none, none)
        rows = np.zeros(keys.shape, np.int64) if catalog is None else catalog.rows(keys)
        return Values(
            self._user_values(users),
            self._item_values(users, rows, catalog),
            self._pair_values(users, keys, rows, catalog, interests),
        )

    def _user_values(self, users: _Users) -> F32:
        """f32[n, U]"""
        windows = len(self._windows)
        n = users.n
        values = np.zeros((len(self.user), n))  # U n: a feature is a row until the end
        now_ms, start_ms = users.now_ms, users.session_start_ms
        values[0] = _log(users.events, _MANY)
        values[1] = _log(users.idle_s, _LONG_S)
        values[2] = _log(users.away_s, _LONG_S)
        values[3] = _log((now_ms - start_ms) / 1000.0, _DAY_S)
        values[4] = _log(users.session_length, 63.0)

        views = users.views
        at = 5
        for column in range(windows):
            weights = views.weights[:, column]
            values[at + column] = _log(_sums(views.user, np.maximum(weights, 0.0), n), _MANY)
        at += windows
        long = views.weights[:, -1]
        turned = _sums(views.user, np.maximum(-long, 0.0), n)
        values[at] = _ratio(turned, turned + _sums(views.user, np.maximum(long, 0.0), n))
        parts = shares(views, strengths(views, self._settings.windows)) if len(views.user) else np.zeros(0)
        positive = parts > 0.0
        owner, parts = views.user[positive], parts[positive]
        values[at + 1] = _log(np.bincount(owner, minlength=n), 63.0)
        if len(owner):
            begins = np.flatnonzero(np.append(True, owner[1:] != owner[:-1]))
            values[at + 2, owner[begins]] = np.maximum.reduceat(parts, begins)
        values[at + 3] = _sums(owner, -parts * np.log2(parts), n) / _SPREAD_BITS
        at += 4

        values[at] = _log(users.counted, 255.0)
        values[at + 1] = _log(_across(np.maximum(users.counts, 0.0)), _MANY)
        values[at + 2] = _ratio((_IS_PURCHASE.take(users.count_types) & users.is_counted).sum(1), users.counted)
        values[at + 3] = _ratio((users.counts < 0.0).sum(1), users.counted)
        recent = users.is_recent.sum(1)
        values[at + 4] = _ratio((_IS_PURCHASE.take(users.recent_types) & users.is_recent).sum(1), recent)
        values[at + 5] = _ratio((_IS_NEGATIVE.take(users.recent_types) & users.is_recent).sum(1), recent)
        minutes = users.at_ms // 60_000
        values[at + 6 : at + 8] = _HOUR[minutes % 1440].T
        values[at + 8 :] = _WEEKDAY[(minutes // 1440 + _FIRST_WEEKDAY) % 7].T
        return _bounded(np.ascontiguousarray(values.T), self.user)

    def _item_values(self, users: _Users, rows: I64, catalog: ItemCatalog | None) -> F32:
        """f32[n, k, I]"""
        values = np.zeros((*rows.shape, len(self.item)))
        values[..., 4] = 1.0
        values[..., 5] = 1.0
        if catalog is not None:
            price = catalog.prices(rows)
            known = np.isfinite(price) & (price >= 0.0)
            expires_ms = catalog.expires_at_ms(rows)
            # An item expires for the event, not for the user's newest: what a list after the event may hold.
            left_s = (expires_ms / 1000.0) - (users.at_ms / 1000.0)[:, None]
            values[..., 0] = _log(np.where(known, price, 0.0), _MOST_PRICE)
            values[..., 1] = known
            values[..., 2] = catalog.brands(rows) != 0
            values[..., 3] = catalog.depths(rows) / _DEEPEST
            values[..., 4] = catalog.available(rows) & (expires_ms > users.at_ms[:, None])
            values[..., 5] = np.where(expires_ms == NEVER_MS, 1.0, _log(left_s, _LONG_S))
        return _bounded(values, self.item)

    def _pair_values(
        self, users: _Users, keys: U64, rows: I64, catalog: ItemCatalog | None, interests: U32 | None
    ) -> F32:
        """f32[n, k, P]"""
        values = np.zeros((*keys.shape, len(self.pair)))
        windows = len(self._windows)
        if interests is None:
            interests = np.zeros(keys.shape, np.uint32) if catalog is None else catalog.interests(rows)
        values[..., :windows] = users.interest_shares(interests)

        # One column of the users' items after the other: an array of n x k x items would leave the cache.
        count, recency, times = np.zeros(keys.shape), np.zeros(keys.shape), np.zeros(keys.shape)
        counts, freshness = users.counts, np.where(users.is_counted, 1.0 - _log(users.count_age_s, _LONG_S), 0.0)
        for column in range(counts.shape[1]):
            same = (keys == users.count_keys[:, column, None]) & users.is_counted[:, column, None]
            count += same * counts[:, column, None]
            recency += same * freshness[:, column, None]
        for column in range(users.recent_keys.shape[1]):
            times += (keys == users.recent_keys[:, column, None]) & users.is_recent[:, column, None]
        values[..., windows] = np.sign(count) * _log(np.abs(count), _MANY)
        values[..., windows + 1] = _ratio(count, np.broadcast_to(_across(np.abs(counts))[:, None], keys.shape))
        values[..., windows + 2] = _log(times, 15.0)
        values[..., windows + 3] = recency
        if catalog is not None:
            values[..., windows + 4 :] = self._of_catalog(users, rows, catalog)
        return _bounded(values, self.pair)

    def _of_catalog(self, users: _Users, rows: I64, catalog: ItemCatalog) -> F64:
        """f64[n, k, 3]: price ratio, share of the brand, brand met."""
        values = np.zeros((*rows.shape, 3))
        liked = np.maximum(users.counts, 0.0)  # n C
        own = catalog.rows(users.count_keys)  # n C
        own_price, price = catalog.prices(own), catalog.prices(rows)
        with_price = (liked > 0.0) & (own_price > 0.0) & np.isfinite(own_price)
        logs = np.log2(np.where(with_price, own_price, 1.0))
        mean = _ratio(_across(logs), with_price.sum(1))  # n
        comparable = (price > 0.0) & np.isfinite(price) & (with_price.sum(1) > 0)[:, None]
        octaves = np.log2(np.where(comparable, price, 1.0)) - mean[:, None]
        values[..., 0] = np.where(comparable, octaves / _PRICE_RATIO_OCTAVES, 0.0)

        own_brand, brand = catalog.brands(own), catalog.brands(rows)
        liked = np.where(own_brand != 0, liked, 0.0)
        of_brand = np.zeros(rows.shape)
        for column in range(liked.shape[1]):
            of_brand += (brand == own_brand[:, column, None]) * liked[:, column, None]
        of_brand *= brand != 0
        values[..., 1] = _ratio(of_brand, np.broadcast_to(_across(liked)[:, None], rows.shape))
        values[..., 2] = of_brand > 0.0
        return values


class _Users:
    """The packed lists of n states as arrays: C counted items, H recent ones."""

    def __init__(self, states: Sequence[InterestState], at_ms: Sequence[int] | I64, settings: StateSettings) -> None:
        n, h, c = len(states), settings.recent_items, settings.max_counted_items
        self.n = n
        self._windows = len(settings.windows.windows)
        self.at_ms: I64 = np.asarray(at_ms, np.int64).reshape(n)
        numbers = [
            (s.events_applied, s.last_time_ms, s.session_start_ms, s.session_length, s.count_ref_s) for s in states
        ]
        self.events, last_ms, self.session_start_ms, self.session_length, ref_s = (
            np.array(numbers, np.int64).reshape(n, 5).T
        )
        # An event that comes late is read when it came: at the newest that the state knows.
        self.now_ms = np.maximum(self.at_ms, last_ms)
        now_s = self.now_ms // 1000
        self.idle_s = now_s - last_ms // 1000

        recent_bytes, count_bytes, keys_bytes = RECENT.size * h, COUNT.size * c, KEY_BYTES * c
        recent = b"".join([s.recent[-recent_bytes:].rjust(recent_bytes, b"\0") for s in states])
        table = np.frombuffer(recent, RECENT_DTYPE).reshape(n, h)
        self.recent_types = np.ascontiguousarray(table["type"])
        self.recent_keys: U64 = np.ascontiguousarray(table["key"])
        self.is_recent: Bools = self.recent_keys != 0  # marks and places not taken have key 0

        keys = b"".join([s.count_keys[:keys_bytes].ljust(keys_bytes, b"\0") for s in states])
        self.count_keys: U64 = np.frombuffer(keys, np.dtype("<u8")).reshape(n, c)
        self.is_counted: Bools = self.count_keys != 0
        self.counted: I64 = self.is_counted.sum(1)
        values = b"".join([s.count_values[:count_bytes].ljust(count_bytes, b"\0") for s in states])
        counts = np.frombuffer(values, COUNT_DTYPE).reshape(n, c)
        self.count_types = np.ascontiguousarray(counts["type"])
        seen_s = counts["time_s"].astype(np.int64)
        self.count_age_s: I64 = np.minimum(now_s, MAX_TIME_S)[:, None] - seen_s
        half_life_s = settings.half_life_of(self.count_types)  # one, or n C
        shrink = np.exp2(np.minimum((ref_s - now_s)[:, None] / half_life_s, 0.0))
        # Damaged bytes may pass for a state: an amount that is no number counts nothing.
        sound = self.is_counted & np.isfinite(counts["amount"])
        self.counts: F64 = np.where(sound, counts["amount"], np.float32(0.0)) * shrink

        start_s = self.session_start_ms // 1000
        earlier_s = np.where(self.is_counted & (seen_s < start_s[:, None]), seen_s, -1).max(1)
        self.away_s = np.where(earlier_s >= 0, np.minimum(start_s, MAX_TIME_S) - earlier_s, _LONG_S)
        self.views = settings.windowing.views([s.windows for s in states], np.clip(now_s, 0, MAX_TIME_S))

    def interest_shares(self, interests: U32) -> F64:
        """f64[n, k, windows]: signed weight of each interest over the sum of all, without signs; 0 for key 0."""
        views = self.views
        if not len(views.user):
            return np.zeros((*interests.shape, self._windows))
        there = (views.user << 32) | views.key  # sorted
        wanted = (np.arange(self.n)[:, None] << 32) | interests.astype(np.int64)
        place = np.minimum(np.searchsorted(there, wanted), len(there) - 1)
        found = (there[place] == wanted) & (interests != 0)
        parts = np.empty_like(views.weights)
        for column in range(self._windows):
            weights = views.weights[:, column]
            parts[:, column] = _ratio(weights, _sums(views.user, np.abs(weights), self.n)[views.user])
        return np.where(found[..., None], parts[place], 0.0)


def _log(amounts: npt.NDArray[np.integer] | F64, most: float) -> F64:
    """log2(1 + x) / log2(1 + most), within 0 .. 1; amounts below 0 are 0."""
    logs: F64 = np.log2(1.0 + np.maximum(amounts, 0.0)) / math.log2(1.0 + most)
    return np.minimum(logs, 1.0)


def _ratio(part: npt.NDArray[np.integer] | F64, whole: npt.NDArray[np.integer] | F64) -> F64:
    """part / whole; 0 where the whole is 0."""
    ratio: F64 = part / np.where(whole == 0, 1.0, whole)
    return ratio


def _sums(owner: I64, amounts: F64, n: int) -> F64:
    """f64[n]: sums by owner, each in the order of its amounts: the same whoever else is there."""
    sums: F64 = np.bincount(owner, amounts, n).astype(np.float64, copy=False)
    return sums


def _across(amounts: F64) -> F64:
    """f64[n]: sums of rows, column after column: numpy's own order may depend on the shape."""
    n, columns = amounts.shape
    total = np.zeros(n)
    for column in range(columns):
        total += amounts[:, column]
    return total


def _bounded(values: F64, listed: Sequence[Feature]) -> F32:
    """f32[..., F]: within each feature's range, where rounding left it by a hair or the range ends."""
    low, high = np.array([f.low for f in listed]), np.array([f.high for f in listed])
    bounded: F32 = np.clip(values, low, high).astype(np.float32)
    return bounded


# --- README.md

README = Path(__file__).parent / "README.md"
_BEGIN, _END = "<!-- features: written by `python -m state.features` -->", "<!-- end of features -->"


def table(listed: Sequence[Feature]) -> str:
    """The features as a table in Markdown."""
    lines = ["| Feature | Of | Meaning | Unit | Range |", "|---|---|---|---|---|"]
    lines += [f"| `{f.name}` | {f.group} | {f.meaning} | {f.unit} | {f.low:g} .. {f.high:g} |" for f in listed]
    return "\n".join(lines)


def with_table(text: str) -> str:
    """README.md with the table of the default settings' features in it. Raises FeatureError without its marks."""
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise FeatureError(f"README.md lacks {_BEGIN!r} or {_END!r}: put them back around the table of features")
    names = [window.name for window in StateSettings().windows.windows]
    return f"{before}{begin}\n{table(features(names))}\n{end}{after}"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text()))
