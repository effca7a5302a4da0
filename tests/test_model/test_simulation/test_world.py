"""The world is the same however it is read, its truth shows in its events, and it is in order."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from model.errors import SimulationError
from model.simulation.world import (
    ADD_TO_CART,
    CLICK,
    NEVER_MS,
    PURCHASE,
    SHARES,
    VIEW,
    Events,
    World,
    WorldSettings,
)
from model.training.dataset import SESSION_GAP_S

SMALL = WorldSettings(users=300, items=120, categories=8, events=30_000, days=20)


@pytest.fixture(scope="module")
def world() -> World:
    return World(SMALL)


@pytest.fixture(scope="module")
def events(world: World) -> Events:
    return Events.join(list(world.events()))


def digest(events: Events) -> str:
    return hashlib.sha256(b"".join(column.tobytes() for column in events)).hexdigest()


def test_the_same_seed_makes_the_same_world_and_another_seed_another(world: World, events: Events) -> None:
    assert digest(Events.join(list(World(SMALL).events()))) == digest(events)
    assert digest(Events.join(list(world.events()))) == digest(events), "reading it twice changed it"
    assert digest(Events.join(list(World(replace(SMALL, seed=2)).events()))) != digest(events)


def test_as_many_as_asked_in_order_of_time_in_slices_of_an_hour(world: World, events: Events) -> None:
    assert len(events.user) == SMALL.events
    assert (np.diff(events.time_ms) >= 0).all()
    assert events.time_ms[0] >= SMALL.start_ms
    for part in world.events():
        assert part.time_ms[-1] // 3_600_000 == part.time_ms[0] // 3_600_000
    days = (events.time_ms[-1] - SMALL.start_ms) / 86_400_000
    assert days == pytest.approx(SMALL.days, rel=0.15)


def test_the_drift_is_in_the_events(world: World, events: Events) -> None:
    drifts = world.drift_ms[events.user] < NEVER_MS
    after = events.time_ms >= world.drift_ms[events.user]
    category = world.category[events.item]
    old = category == world.before[events.user, 0]
    new = category == world.after[events.user, 0]
    assert old[drifts & ~after].mean() > 0.45
    assert new[drifts & ~after].mean() < 0.05
    assert new[drifts & after].mean() > 0.45
    assert old[drifts & after].mean() < 0.05
    assert old[~drifts].mean() > 0.45


def test_truth_is_one_new_category_in_place_of_the_first(world: World) -> None:
    drifts = world.drift_ms < NEVER_MS
    assert drifts.mean() == pytest.approx(SMALL.drifting, abs=0.07)
    assert (world.before[~drifts] == world.after[~drifts]).all()
    assert (world.before[:, 1:] == world.after[:, 1:]).all()
    assert not (world.after[drifts, 0][:, None] == world.before[drifts]).any()
    share = (world.drift_ms[drifts] - SMALL.start_ms) / (SMALL.days * 86_400_000)
    assert share.min() >= 0.25
    assert share.max() <= 0.9
    assert sum(SHARES) == pytest.approx(1.0)


def test_clicks_follow_views_and_purchases_carts(world: World) -> None:
    data = world.dataset()
    for code, before in ((CLICK, VIEW), (ADD_TO_CART, CLICK), (PURCHASE, ADD_TO_CART)):
        rows = np.flatnonzero(data.type == code)
        assert len(rows)
        assert (data.type[rows - 1] == before).all()
        assert (data.item[rows - 1] == data.item[rows]).all()
        assert (data.user[rows - 1] == data.user[rows]).all()


def test_sessions_are_apart_by_more_than_the_gap_and_users_buy_again(world: World) -> None:
    data = world.dataset()
    same = data.user[1:] == data.user[:-1]
    pause_s = np.diff(data.time_ms)[same] / 1000
    assert not ((pause_s > 600) & (pause_s <= SESSION_GAP_S)).any(), "a pause that is neither a look nor a break"
    bought = data.type == PURCHASE
    pairs = data.user[bought].astype(np.int64) * data.items + data.item[bought]
    assert len(np.unique(pairs)) < 0.9 * len(pairs)


def test_features_tell_something_of_what_is_clicked(world: World, events: Events) -> None:
    """Otherwise the article's network would have nothing to learn."""
    own = (world._tastes[events.user] * world.item_features[events.item]).sum(axis=1)
    assert own[events.type == CLICK].mean() > own[events.type == VIEW].mean() + 0.1
    assert own[events.type == VIEW].mean() > 0.3


def test_items_of_a_category_are_popular_by_rank(world: World, events: Events) -> None:
    counts = np.bincount(events.item, minlength=SMALL.items)
    assert counts[: SMALL.categories].mean() > 2 * counts[-SMALL.categories :].mean()


@pytest.mark.parametrize(
    "wrong",
    [
        {"users": 0},
        {"events": 0},
        {"days": 0.0},
        {"categories": 3},
        {"categories": 200},
        {"drifting": 1.5},
        {"seed": -1},
    ],
)
def test_a_world_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SimulationError):
        replace(SMALL, **wrong)
