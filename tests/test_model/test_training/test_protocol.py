from dataclasses import replace

import numpy as np
import pytest

from model.errors import DatasetError
from model.evaluation.splits import leave_one_out, temporal
from model.training.dataset import Dataset, dataset_from_arrays
from model.training.protocol import Borders, cut, find_borders
from model.training.settings import TrainSettings
from state.weights import PURCHASE

SETTINGS = TrainSettings(validation_share=0.1, test_share=0.2)


def a_log(seed: int = 0, users: int = 20, rows: int = 300, *, has_time: bool = True) -> Dataset:
    draw = np.random.default_rng(seed)
    return dataset_from_arrays(
        user=draw.integers(0, users, rows).astype(np.int32),
        item=draw.integers(0, 31, rows).astype(np.int32),  # 30 is a session's start
        type=np.full(rows, PURCHASE, np.uint8),
        time_ms=draw.integers(0, 10**9, rows),
        user_ids=[f"u{k}" for k in range(users)],
        item_ids=[f"i{k}" for k in range(30)],
        has_time=has_time,
    )


def same(one: Dataset, other: Dataset) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("user", "item", "time_ms"))


@pytest.mark.parametrize("seed", range(5))
def test_leave_one_out_is_that_of_the_evaluation(seed: int) -> None:
    data = a_log(seed)
    split, part = leave_one_out(data), cut(data, replace(SETTINGS, protocol="leave-one-out"), Borders())
    assert same(part.learn, split.train)
    assert part.validation.row.tolist() == split.validation.row.tolist()
    # The final part has the validation's items, not the test's.
    assert int(part.final.is_item.sum()) == int(data.is_item.sum()) - len(split.test)
    assert len(part.validation) == len(split.test)


@pytest.mark.parametrize("seed", range(5))
def test_temporal_is_that_of_the_evaluation(seed: int) -> None:
    data, settings = a_log(seed), replace(SETTINGS, protocol="temporal")
    borders = find_borders(data.time_ms[data.is_item], settings, "log")
    split, part = temporal(data, 0.1, 0.2), cut(data, settings, borders)
    assert same(part.learn, split.train)
    assert part.validation.row.tolist() == split.validation.row.tolist()
    assert part.final.time_ms.max() < data.time_ms[split.test.row].min()
    assert len(part.final) == int((data.time_ms < borders.test_ms).sum())


def test_all_of_one_time_is_learnt() -> None:
    times_ms = np.full(20, 10**12, np.int64)
    assert find_borders(times_ms, SETTINGS, "log") == Borders()


def test_all_learns_all_and_the_newest_validate() -> None:
    data = a_log()
    part = cut(data, SETTINGS, find_borders(data.time_ms[data.is_item], SETTINGS, "log"))
    assert part.final is data
    assert len(part.validation) == pytest.approx(0.1 * data.is_item.sum(), abs=1)
    assert part.learn.time_ms.max() < data.time_ms[part.validation.row].min()


def test_without_times_each_users_last_item_validates() -> None:
    data = a_log(has_time=False)
    part = cut(data, SETTINGS, find_borders(data.time_ms, SETTINGS, "log", has_time=False))
    assert part.validation.row.tolist() == leave_one_out(data).test.row.tolist()
    assert int(part.learn.is_item.sum()) == int(data.is_item.sum()) - len(part.validation)
    assert part.final is data


def test_nothing_validates_where_nothing_shall() -> None:
    data, settings = a_log(), replace(SETTINGS, validation_share=0.0)
    part = cut(data, settings, find_borders(data.time_ms, settings, "log"))
    assert part.learn is part.final is data
    assert len(part.validation) == 0


def test_what_cannot_be_cut() -> None:
    short = a_log(rows=5, users=5)
    with pytest.raises(DatasetError, match="no user has 3 items"):
        cut(short, replace(SETTINGS, protocol="leave-one-out"), Borders())
    part = cut(short, replace(SETTINGS, protocol="leave-one-out"), Borders(), whole=False)  # some users only
    assert part.learn is short
    with pytest.raises(DatasetError, match=r"has no times, .*; use --protocol leave-one-out"):
        find_borders(short.time_ms, replace(SETTINGS, protocol="temporal"), "log", has_time=False)
    with pytest.raises(DatasetError, match="too few distinct times to cut into three"):
        find_borders(np.zeros(50, np.int64), replace(SETTINGS, protocol="temporal"), "log")
