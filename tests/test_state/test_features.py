"""Features of users, items and both.

What stands in the timeline is all that `_shopper` did; features are read at the last event (x) or later.

    day 0            day 2    12:00       12:05      12:10
    |                |        |           |          |
    view tea         ....     view cup    buy cup    hide pot (x)
    '-- a visit --'           '------- the running session ------'
"""

import math
import random
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state import features as module
from state.catalog import Catalog, CatalogItem
from state.errors import FeatureError
from state.features import FeatureReader, Values, features, table, with_table
from state.interaction import Interaction
from state.interest import COUNT, InterestState
from state.keys import key_of
from state.settings import StateSettings
from state.weights import EVENT_TYPES, TYPE_CODES, WeightSettings
from state.window import Window, WindowSettings, interest_key

SETTINGS = StateSettings()
COUNTED = WeightSettings()
READER = FeatureReader(SETTINGS, COUNTED)
NOON_MS = int(datetime(2026, 6, 3, 12, tzinfo=UTC).timestamp() * 1000)  # a Wednesday
MINUTE_MS, DAY_MS = 60_000, 86_400_000
END_MS = NOON_MS + 10 * MINUTE_MS


def _do(state: InterestState, kind: str, item: str, category: str, weight: float, at_ms: int) -> None:
    number = state.events_applied
    items, interests = ((key_of(item),), (interest_key(category),)) if item else ((), ())
    assert state.apply(Interaction(number + 1, TYPE_CODES[kind], at_ms, items, interests, weight, number), SETTINGS)


def _shopper() -> InterestState:
    state = InterestState()
    _do(state, "view", "tea", "food", 1.0, NOON_MS - 2 * DAY_MS)
    _do(state, "view", "cup", "kitchen", 1.0, NOON_MS)
    _do(state, "purchase", "cup", "kitchen", 8.0, NOON_MS + 5 * MINUTE_MS)
    _do(state, "hide", "pot", "garden", -20.0, END_MS)
    return state


def _catalog() -> Catalog:
    catalog = Catalog()
    for name, path, brand, price in (
        ("tea", ("food",), "Assam", 4.0),
        ("cup", ("home", "kitchen"), "Ming", 16.0),
        ("mug", ("home", "kitchen"), "Ming", 32.0),
        ("pot", ("garden",), "", None),
    ):
        catalog.upsert(CatalogItem(item_id=name, category=path, brand=brand, price=price))
    catalog.upsert(CatalogItem(item_id="old", category=("food",), expires_at_ms=END_MS, price=0.0))
    catalog.upsert(CatalogItem(item_id="soon", category=("food",), expires_at_ms=END_MS + 1000))
    catalog.upsert(CatalogItem(item_id="out", category=("food",), available=False, price=math.inf))
    return catalog


def _user(state: InterestState, at_ms: int = END_MS, reader: FeatureReader = READER) -> dict[str, float]:
    (row,) = reader.read([state], [at_ms]).users.tolist()
    return dict(zip([f.name for f in reader.user], row, strict=True))


def _of_item(state: InterestState, item: str, catalog: Catalog | None) -> dict[str, float]:
    read = READER.read([state], [END_MS], np.array([[key_of(item)]], np.uint64), catalog)
    row = [*read.items[0, 0].tolist(), *read.pairs[0, 0].tolist()]
    return dict(zip([f.name for f in READER.item + READER.pair], row, strict=True))


def _log(amount: float, most: float) -> float:
    return math.log2(1 + amount) / math.log2(1 + most)


def _near(value: float) -> object:
    return pytest.approx(value, rel=1e-6, abs=1e-6)


# --- users


def test_a_user_without_events_is_all_zero_but_for_time() -> None:
    found = _user(InterestState(), 0)
    assert {name for name, value in found.items() if value} == {"away", "hour_cos", "weekday_sin", "weekday_cos"}


def test_how_often_and_when() -> None:
    found = _user(_shopper())
    assert found["events"] == _near(_log(4, 65_535))
    assert found["idle"] == 0.0
    assert found["away"] == _near(_log(2 * 86_400, 90 * 86_400))
    assert found["session_age"] == _near(_log(600, 86_400))
    assert found["session_items"] == _near(_log(3, 63))
    assert _user(_shopper(), END_MS + DAY_MS)["idle"] == _near(_log(86_400, 90 * 86_400))


def test_interests() -> None:
    found = _user(_shopper())
    assert found["session_weight"] == _near(_log(9, 65_535))
    assert found["day_weight"] == _near(_log(9, 65_535))
    assert found["month_weight"] == _near(_log(10, 65_535))
    assert found["against"] == _near(20 / 30)
    assert found["interests"] == _near(_log(2, 63))
    kitchen = 9 * (16 + 4 + 1)
    share = kitchen / (kitchen + 1)
    assert found["top_share"] == _near(share)
    assert found["spread"] == _near(-(share * math.log2(share) + (1 - share) * math.log2(1 - share)) / 6)


def test_items() -> None:
    found = _user(_shopper())
    decay = SETTINGS.count_half_life_s
    liked = 2.0 ** (-(2 * 86_400 + 600) / decay) + 2.0 ** (-600 / decay) + 8 * 2.0 ** (-300 / decay)
    assert found["items"] == _near(_log(3, 255))
    assert found["items_sum"] == _near(_log(liked, 65_535))
    assert found["items_bought"] == _near(1 / 3)
    assert found["items_against"] == _near(1 / 3)
    assert found["recent_bought"] == _near(1 / 4)
    assert found["recent_against"] == _near(1 / 4)


def test_a_mark_of_a_session_is_no_recent_item() -> None:
    state = InterestState()
    _do(state, "session_start", "", "", 0.0, NOON_MS)
    _do(state, "purchase", "cup", "kitchen", 8.0, NOON_MS)
    assert _user(state)["recent_bought"] == 1.0


@pytest.mark.parametrize(
    ("hour", "minute", "day", "expected"),
    [
        (0, 0, 1, (0.0, 1.0, 0.0)),  # Monday
        (6, 0, 1, (1.0, 0.0, 0.0)),
        (12, 0, 4, (0.0, -1.0, math.sin(2 * math.pi * 3 / 7))),
        (18, 0, 7, (-1.0, 0.0, math.sin(2 * math.pi * 6 / 7))),
        (3, 30, 7, (math.sin(math.pi * 7 / 24), math.cos(math.pi * 7 / 24), math.sin(2 * math.pi * 6 / 7))),
    ],
)
def test_hour_and_weekday(hour: int, minute: int, day: int, expected: tuple[float, ...]) -> None:
    at_ms = int(datetime(2026, 6, day, hour, minute, 59, tzinfo=UTC).timestamp() * 1000)  # June 1st is a Monday
    found = _user(InterestState(), at_ms)
    assert (found["hour_sin"], found["hour_cos"], found["weekday_sin"]) == _near_all(expected)


def _near_all(values: tuple[float, ...]) -> object:
    return pytest.approx(values, rel=1e-6, abs=1e-6)


def test_a_late_event_is_read_at_the_newest_but_for_its_hour() -> None:
    on_time, late = _user(_shopper()), _user(_shopper(), END_MS - 3 * 60 * MINUTE_MS)
    assert {name for name in on_time if on_time[name] != late[name]} == {"hour_sin", "hour_cos"}


# --- items and pairs


def test_what_the_catalogue_says() -> None:
    found = _of_item(_shopper(), "cup", _catalog())
    assert found["price"] == _near(_log(16, 2**20 - 1))
    assert (found["price_known"], found["brand_known"], found["available"], found["expires_in"]) == (1, 1, 1, 1)
    assert found["depth"] == 2 / 8


@pytest.mark.parametrize(
    ("item", "available", "expires_in"),
    [("old", 0.0, 0.0), ("soon", 1.0, _log(1, 90 * 86_400)), ("out", 0.0, 1.0), ("nobody's", 1.0, 1.0)],
)
def test_what_may_be_recommended_at_the_event(item: str, available: float, expires_in: float) -> None:
    found = _of_item(_shopper(), item, _catalog())
    assert (found["available"], found["expires_in"]) == (available, _near(expires_in))


@pytest.mark.parametrize(("item", "known"), [("old", 1.0), ("out", 0.0), ("pot", 0.0), ("nobody's", 0.0)])
def test_a_price_that_is_no_price_is_not_known(item: str, known: float) -> None:
    found = _of_item(_shopper(), item, _catalog())
    assert (found["price_known"], found["price"], found["price_ratio"]) == (known, 0.0, 0.0)


def test_what_the_user_did_with_it() -> None:
    cup, pot, mug = (_of_item(_shopper(), item, None) for item in ("cup", "pot", "mug"))
    decay = SETTINGS.count_half_life_s
    count = 2.0 ** (-600 / decay) + 8 * 2.0 ** (-300 / decay)
    assert cup["count"] == _near(_log(count, 65_535))
    assert cup["times_recent"] == _near(_log(2, 15))
    assert cup["recency"] == _near(1 - _log(300, 90 * 86_400))
    assert pot["count"] == _near(-_log(20, 65_535))
    assert pot["recency"] == 1.0
    total = count + 20 + 2.0 ** (-(2 * 86_400 + 600) / decay)
    assert (cup["count_share"], pot["count_share"]) == (_near(count / total), _near(-20 / total))
    assert not any(mug[name] for name in ("count", "count_share", "times_recent", "recency"))


def test_what_the_user_did_with_its_like() -> None:
    mug, pot = (_of_item(_shopper(), item, _catalog()) for item in ("mug", "pot"))
    assert (mug["session_interest"], mug["month_interest"]) == (_near(9 / 29), _near(9 / 30))
    assert (pot["session_interest"], pot["month_interest"]) == (_near(-20 / 29), _near(-20 / 30))
    assert mug["price_ratio"] == _near((math.log2(32) - (math.log2(4) + math.log2(16)) / 2) / 4)
    assert mug["brand_met"] == 1.0
    assert 0.85 < mug["brand_share"] < 0.95  # Ming 9, Assam 1
    assert (pot["brand_met"], pot["brand_share"], pot["price_ratio"]) == (0.0, 0.0, 0.0)


def test_categories_may_come_from_elsewhere() -> None:
    keys = np.array([[key_of("mug"), key_of("mug")]], np.uint64)
    interests = np.array([[interest_key("kitchen"), 0]], np.uint32)
    pairs = READER.read([_shopper()], [END_MS], keys, interests=interests).pairs
    assert pairs[0, :, 0].tolist() == [_near(9 / 29), 0.0]


def test_without_a_catalogue_nothing_is_known_of_items() -> None:
    found = _of_item(_shopper(), "cup", None)
    names = ("price", "price_known", "brand_known", "depth", "month_interest", "price_ratio", "brand_share")
    assert not any(found[name] for name in names)
    assert (found["available"], found["expires_in"]) == (1.0, 1.0)


# --- many at once, whatever they are


def _random_state(rng: random.Random, events: int) -> InterestState:
    state = InterestState()
    at_ms = NOON_MS - 40 * DAY_MS
    for number in range(events):
        at_ms += rng.choice([1000, MINUTE_MS, 20 * MINUTE_MS, DAY_MS])
        items = tuple(key_of(rng.choice(["tea", "cup", "mug", "pot", "old", f"x{rng.randrange(99)}"])) for _ in "ab")
        names = tuple(rng.choice(["food", "kitchen", "garden", f"c{rng.randrange(30)}", ""]) for _ in "ab")
        weight = rng.choice([0.0, 1.0, 3.7, 8.0, -4.0, -20.0])
        kind = rng.randrange(len(EVENT_TYPES))
        interests = tuple(interest_key(name) for name in names if name)
        state.apply(Interaction(rng.getrandbits(60), kind, at_ms, items, interests, weight, number), SETTINGS)
    return state


def _sliced(values: Values, part: slice) -> tuple[bytes, ...]:
    return tuple(group[part].tobytes() for group in values)


def test_who_else_is_read_changes_no_bit() -> None:
    rng = random.Random(7)
    states = [_random_state(rng, rng.choice([0, 1, 5, 80])) for _ in range(67)]
    at_ms = [state.last_time_ms + rng.randrange(DAY_MS) for state in states]
    keys = np.array([[key_of(item) for item in ("cup", "mug", "pot", "new", "tea")] for _ in states], np.uint64)
    catalog = _catalog()
    together = READER.read(states, at_ms, keys, catalog)
    for size in (1, 2, 7, 64):
        for start in range(0, len(states), size):
            part = slice(start, min(start + size, len(states)))
            read = READER.read(states[part], at_ms[part], keys[part], catalog)
            assert _sliced(read, slice(None)) == _sliced(together, part)
    one = READER.read(states, at_ms, keys[:, 2:3], catalog)
    assert one.pairs.tobytes() == together.pairs[:, 2:3].tobytes()


def test_reading_leaves_states_as_they_are() -> None:
    state = _shopper()
    READER.read([state], [END_MS + DAY_MS], np.array([[1]], np.uint64), _catalog())
    assert state == _shopper()


def test_nobody() -> None:
    read = READER.read([], [], np.empty((0, 3), np.uint64), _catalog())
    assert [group.shape for group in read] == [
        (0, len(READER.user)),
        (0, 3, len(READER.item)),
        (0, 3, len(READER.pair)),
    ]
    assert READER.read([_shopper()], [END_MS], np.empty((1, 0), np.uint64)).pairs.shape == (1, 0, len(READER.pair))


TIMES = st.one_of(
    st.integers(NOON_MS - 40 * DAY_MS, NOON_MS + DAY_MS),
    st.sampled_from([0, -1, 2**53, -(2**53), 2**32 * 1000, 2**32 * 1000 - 1]),
)
WEIGHTS = st.one_of(st.floats(-50, 50), st.floats(allow_nan=True, allow_infinity=True))
KEYS = st.one_of(st.integers(1, 40), st.sampled_from([0, 2**63 - 1, 2**64 - 1]))
EVENTS = st.builds(
    lambda event, kind, at_ms, lines, weight: Interaction(
        event,
        kind,
        at_ms,
        tuple(key for key, _ in lines),
        tuple(interest_key(name) for _, name in lines if name),
        weight,
        event,
    ),
    st.integers(0, 2**62),
    st.integers(0, len(EVENT_TYPES) - 1),
    TIMES,
    st.lists(st.tuples(KEYS, st.sampled_from(["", "a", "b", "c", "d", "e" * 600])), max_size=70),
    WEIGHTS,
)
ODD_WINDOWS = StateSettings(
    recent_items=3,
    max_counted_items=2,
    count_half_life_s=1,
    windows=WindowSettings((Window("blink", 2, 1, cells=1), Window("hour", 3600, 60, cells=3)), grace_s=0),
)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.lists(EVENTS, max_size=12), min_size=1, max_size=4),
    TIMES,
    st.sampled_from([SETTINGS, ODD_WINDOWS]),
)
def test_any_state_has_finite_features_within_their_ranges(
    logs: list[list[Interaction]], at_ms: int, limits: StateSettings
) -> None:
    states = [InterestState() for _ in logs]
    for state, log in zip(states, logs, strict=True):
        for interaction in log:
            state.apply(interaction, limits)
    catalog = _catalog()
    for number in range(1, 9):  # keys of the catalogue are hashes: these are of items that the users met
        catalog.upsert(CatalogItem(item_id=f"x{number}", price=10.0**number, brand=f"b{number % 3}", category=("a",)))
    keys = np.array([[1, 2, 0, 2**63 - 1, 2**64 - 1, key_of("x1"), key_of("cup")]] * len(states), np.uint64)
    reader = FeatureReader(limits, COUNTED)
    # The same states under settings with less room, as after a change of settings, must be read too.
    less = StateSettings(recent_items=2, max_counted_items=1, windows=limits.windows)
    for other in (reader, FeatureReader(less, COUNTED)):
        read = other.read(states, [at_ms] * len(states), keys, catalog)
        for listed, group in zip((other.user, other.item, other.pair), read, strict=True):
            assert group.dtype == np.float32
            assert np.isfinite(group).all()
            for column, feature in enumerate(listed):
                values = group[..., column]
                assert (values >= feature.low).all(), feature.name
                assert (values <= feature.high).all(), feature.name


@pytest.mark.parametrize("amount", [math.nan, math.inf, -math.inf])
def test_an_amount_of_damaged_bytes_counts_nothing(amount: float) -> None:
    state = _shopper()
    state.count_values = COUNT.pack(amount, NOON_MS // 1000, 1) + state.count_values[COUNT.size :]
    read = READER.read([state], [END_MS], np.array([[key_of("tea"), key_of("cup")]], np.uint64), _catalog())
    assert all(np.isfinite(group).all() for group in read)
    assert read.pairs[0, 0, READER.pair.index(next(f for f in READER.pair if f.name == "count"))] == 0.0


# --- the list of features


def test_names_are_distinct_and_in_the_order_of_the_columns() -> None:
    names = [feature.name for feature in READER.features]
    assert len(set(names)) == len(names)
    assert READER.features == READER.user + READER.item + READER.pair


def test_windows_of_the_settings_have_features_of_their_names() -> None:
    reader = FeatureReader(ODD_WINDOWS, COUNTED)
    assert [f.name for f in reader.features if "blink" in f.name] == ["blink_weight", "blink_interest"]
    assert reader.features == features(["blink", "hour"])


def test_this_version_has_this_fingerprint() -> None:
    """Whoever changes what a feature means raises VERSION, and with it this."""
    assert (module.VERSION, READER.fingerprint) == (1, "9dd2658f86fcc829")
    assert FeatureReader(StateSettings(), COUNTED).fingerprint == READER.fingerprint
    own = ({"interests": ("brand",)}, {"last_window": {"view": "day"}}, {"count_half_lives_s": {"view": 9}})
    assert len({FeatureReader(StateSettings(**each), COUNTED).fingerprint for each in ({}, *own)}) == 4


@pytest.mark.parametrize(
    "other",
    [
        ODD_WINDOWS,
        StateSettings(recent_items=49),
        StateSettings(max_counted_items=25),
        StateSettings(session_gap_s=1),
        StateSettings(count_half_life_s=1),
    ],
)
def test_other_settings_are_refused(other: StateSettings) -> None:
    READER.require(READER.fingerprint)
    with pytest.raises(FeatureError, match="Train the model again"):
        READER.require(FeatureReader(other, COUNTED).fingerprint)


def test_other_weights_are_refused() -> None:
    """They decide what the amounts in the states mean."""
    other = FeatureReader(SETTINGS, WeightSettings(dwell_usual_ms=8_000))
    with pytest.raises(FeatureError, match="the weights"):
        READER.require(other.fingerprint)


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    before = READER.fingerprint
    monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
    with pytest.raises(FeatureError, match="version 2"):
        FeatureReader(SETTINGS, COUNTED).require(before)


def test_the_readme_has_the_table_of_all_features() -> None:
    text = Path(module.README).read_text("utf-8")
    assert with_table(text) == text, "run: python -m state.features"
    assert table(READER.features) in text
    assert all(f"`{feature.name}`" in text for feature in READER.features)


def test_a_readme_without_its_marks_is_an_error() -> None:
    with pytest.raises(FeatureError, match="put them back"):
        with_table("# state")
