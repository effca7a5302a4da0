"""The files of a world: what producers, trainers and judges read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.errors import SimulationError
from model.simulation.files import event_lines, write_events, write_items, write_truth, write_users
from model.simulation.world import NEVER_MS, World, WorldSettings, category_name, item_id, user_id
from model.training.dataset import load_dataset

SMALL = WorldSettings(users=40, items=30, categories=5, events=3_000, days=10)


@pytest.fixture(scope="module")
def world() -> World:
    return World(SMALL)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("name", ["events.jsonl", "events.parquet"])
def test_what_is_written_is_the_log_that_was_made(world: World, tmp_path: Path, name: str) -> None:
    told: list[int] = []
    write_events(world, tmp_path / name, told.append)
    assert told[-1] == SMALL.events
    read, made = load_dataset(tmp_path / name), world.dataset()
    assert len(read) == SMALL.events
    order = np.argsort([int(text[1:]) for text in read.user_ids])
    back = np.concatenate([np.flatnonzero(read.user == user) for user in order])
    assert read.time_ms[back].tolist() == made.time_ms.tolist()
    assert [read.item_ids[k] for k in read.item[back]] == [item_id(k) for k in made.item]
    assert read.type[back].tolist() == made.type.tolist()
    categories = dict(zip(read.item_ids, read.item_categories, strict=True))
    assert all(categories[item_id(k)] == category_name(world.category[k]) for k in np.unique(made.item).tolist())


def test_event_ids_are_all_different(world: World) -> None:
    ids = [json.loads(line)["event_id"] for line in event_lines(world)]
    assert len(set(ids)) == len(ids) == SMALL.events


def test_another_kind_of_file_is_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(SimulationError, match=r"\.jsonl or \.parquet"):
        write_events(world, tmp_path / "events.csv")


def test_the_truth_is_what_the_world_was_made_by(world: World, tmp_path: Path) -> None:
    write_truth(world, tmp_path / "truth.jsonl")
    found = rows(tmp_path / "truth.jsonl")
    assert len(found) == SMALL.users
    for user, row in enumerate(found):
        assert row["user_id"] == user_id(user)
        assert row["drift_at_ms"] == (None if world.drift_ms[user] == NEVER_MS else world.drift_ms[user])
        for key, interests in (("before", world.before), ("after", world.after)):
            assert list(row[key]) == [category_name(category) for category in interests[user]]
            assert list(row[key].values()) == [0.6, 0.25, 0.15]


def test_users_and_items_have_their_features(world: World, tmp_path: Path) -> None:
    write_users(world, tmp_path / "users.jsonl")
    write_items(world, tmp_path / "items.jsonl")
    users, items = rows(tmp_path / "users.jsonl"), rows(tmp_path / "items.jsonl")
    assert [len(row["features"]) for row in users] == [10] * SMALL.users
    assert [len(row["properties"]["features"]) for row in items] == [5] * SMALL.items
    assert users[3]["features"] == world.user_features[3].tolist()
    assert items[7]["properties"]["features"] == world.item_features[7].tolist()
    assert items[7]["category"] == "category 02"
