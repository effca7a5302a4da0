from dataclasses import replace

import numpy as np

from model.training.batches import Batches, find_targets, windows
from model.training.dataset import Dataset, dataset_from_arrays
from model.training.settings import TrainSettings
from state.weights import PURCHASE

DAY_MS = 86_400_000
SMALL = TrainSettings(dim=16, hidden=16, batch_events=256)


def dataset(user: list[int], item: list[int], time_ms: list[int], items: int, starts: list[int] | None) -> Dataset:
    new_session = None if starts is None else np.isin(np.arange(len(user)), starts)
    return dataset_from_arrays(
        user=np.array(user, np.int32),
        item=np.array(item, np.int32),
        type=np.full(len(user), PURCHASE, np.uint8),
        time_ms=np.array(time_ms, np.int64),
        user_ids=[f"u{k}" for k in range(max(user, default=-1) + 1)],
        item_ids=[f"i{k}" for k in range(items)],
        new_session=new_session,
    )


def circles(users: int = 40, events: int = 30, items: int = 12) -> Dataset:
    """Each user goes round the catalogue from a place of its own: item k is always followed by k + 1."""
    rows = [(user, (user * 5 + k) % items, k * 60_000) for user in range(users) for k in range(events)]
    user, item, time_ms = (list(column) for column in zip(*rows, strict=True))
    return dataset(user, item, time_ms, items, None)


def test_targets_of_baskets() -> None:
    #  rows   0      1  2  3    4      5  6   |  7      8
    #  item   START  a  b  c    START  a  d   |  START  b
    data = dataset([0, 0, 0, 0, 0, 1], [0, 1, 2, 0, 3, 1], [1, 1, 1, 2, 2, 1], 4, [0, 3, 5])
    targets = find_targets(data)
    asked = [list(range(row + 1, end)) for row, end in enumerate(targets.end)]
    assert asked == [[1, 2, 3], [2, 3], [3], [], [5, 6], [6], [], [8], []]
    assert targets.begin.tolist() == [0, 1, 1, 1, 4, 5, 5, 7, 8]


def test_targets_of_single_events_are_the_next() -> None:
    data = dataset([0, 0, 0, 1, 1], [0, 1, 2, 0, 1], [1, 2, 3, 1, 2], 3, None)
    assert find_targets(data).end.tolist() == [2, 3, 3, 5, 5]


def test_groups_beyond_any_basket_are_cut() -> None:
    data = dataset([0] * 600, [0] * 600, [1] * 600, 1, None)
    targets = find_targets(data)
    assert np.unique(targets.begin).tolist() == [0, 256, 512]
    assert targets.end[[0, 254, 255, 256, 598]].tolist() == [256, 256, 512, 512, 600]


def test_windows_cut_long_histories() -> None:
    data = dataset([0] * 5 + [1] * 2, [0] * 7, [*range(5), 0, 1], 1, None)
    assert windows(data, 3).tolist() == [[0, 3], [3, 5], [5, 7]]


def test_batch_holds_what_was_asked_and_what_is_done() -> None:
    data = dataset([0, 0, 0], [0, 1, 2], [1, 1, 1], 3, [0])
    batch = Batches(data, SMALL).make(np.array([[0, 4]]))
    assert batch.tokens[:, 0].tolist() == [3, 0, 1, 2]
    pairs = list(zip(batch.pairs[0].tolist(), batch.pairs[1].tolist(), strict=True))
    assert pairs == [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
    np.testing.assert_allclose(batch.pairs[2], [1 / 3, 1 / 3, 1 / 3, 1 / 2, 1 / 2, 1])
    assert list(zip(batch.done[0].tolist(), batch.done[1].tolist(), strict=True)) == [(1, 0), (2, 0), (2, 1)]


def test_offset_is_the_decayed_count_before_the_group() -> None:
    #  day    0     10    10    20      half-life 10 days
    #  item   a     a     b     c
    data = dataset([0] * 4, [0, 0, 1, 2], [0, 10 * DAY_MS, 10 * DAY_MS, 20 * DAY_MS], 3, None)
    batches = Batches(data, replace(SMALL, offset_half_life_days=10.0, offset_floor=1.0))
    for pieces, first in (([[0, 4]], 0), ([[2, 4]], 2)):  # the second window remembers what came before it
        batch = batches.make(np.array(pieces))
        assert batch.offset is not None
        table, group = batch.offset
        found = {int(row): np.expm1(table[group[k]].numpy()) for k, row in enumerate(batch.row)}
        assert list(found) == list(range(first, 3))
        if first == 0:
            np.testing.assert_allclose(found[0], [0.5, 0, 0], rtol=1e-5)
            np.testing.assert_allclose(found[1], [0.5, 0, 0], rtol=1e-5)  # of one time: not yet counted
        np.testing.assert_allclose(found[2], [0.25 + 0.5, 0.5, 0], rtol=1e-5)


def test_an_epoch_has_every_position_once() -> None:
    data = circles()
    batches = Batches(data, replace(SMALL, window_events=8, batch_events=64))
    told, made = [], []
    for number, of, batch in batches.epoch(np.random.default_rng(0)):
        told.append((number, of))
        made.append(batch)
    assert told == [(number, len(made)) for number in range(1, len(made) + 1)]
    row = np.sort(np.concatenate([batch.row for batch in made]))
    asking = np.flatnonzero(find_targets(data).end > np.arange(len(data)) + 1)
    np.testing.assert_array_equal(row, asking)
    assert max(batch.tokens.numel() for batch in made) <= 64


def test_an_epoch_goes_on_as_it_would_have() -> None:
    batches = Batches(circles(), replace(SMALL, window_events=8, batch_events=64))
    whole = list(batches.epoch(np.random.default_rng(3)))
    rest = list(batches.epoch(np.random.default_rng(3), skip=5))
    assert [number for number, _, _ in rest] == list(range(6, len(whole) + 1))
    for (_, _, one), (_, _, other) in zip(whole[5:], rest, strict=True):
        assert one.tokens.tolist() == other.tokens.tolist()
        assert one.row.tolist() == other.row.tolist()


def test_an_item_taken_again_at_one_time_is_still_to_be_found() -> None:
    batch = Batches(dataset([0] * 4, [0, 1, 0, 2], [1] * 4, 3, [0]), SMALL).make(np.array([[0, 5]]))
    done = list(zip(batch.done[0].tolist(), batch.done[1].tolist(), strict=True))
    assert done == [(2, 1), (3, 0), (3, 1), (3, 0)]  # not item 0 while it is to come again
