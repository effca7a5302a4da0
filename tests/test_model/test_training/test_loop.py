import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.artifact import load_artifact, save_artifact
from model.errors import DatasetError, TrainingError
from model.evaluation.splits import leave_one_out, temporal
from model.training.choose import Lists
from model.training.counts import count
from model.training.dataset import Dataset, dataset_from_arrays
from model.training.details import NOTHING, ItemDetails
from model.training.loop import _content, train
from model.training.settings import Protocol, Refit, TrainSettings
from state.weights import PURCHASE

DAY_MS = 86_400_000
TINY = TrainSettings(dim=16, hidden=16, batch_events=256, epochs=30, warmup_steps=5)
REFITS: tuple[Refit, ...] = ("no", "counts", "all")


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


@pytest.mark.parametrize("full_softmax_items", [10_000, 1])
def test_learns_what_always_follows(full_softmax_items: int, tmp_path: Path) -> None:
    data = circles()
    calls: list[tuple[int, float, float, float]] = []
    settings = replace(TINY, full_softmax_items=full_softmax_items, negatives=8, validation_share=0.1)
    artifact = train(data, settings, lambda *call: calls.append(call))
    save_artifact(tmp_path / "model", artifact)
    loaded = load_artifact(tmp_path / "model")

    # After a, b, c ... the network's first choice is the item that always follows; so is the first rule.
    state = torch.zeros(1, loaded.state_size)
    for item in range(6):
        state = loaded.network.step(state, torch.tensor([item]), torch.tensor([PURCHASE]))
    scores = loaded.network.query(state).numpy() @ loaded.item_matrix.T + loaded.item_bias
    assert int(scores.argmax()) == 6
    assert loaded.rules_to[6, 0] == 7
    assert loaded.metrics["hr@20"] == 1.0  # 12 items only: a check that the judge finds its questions
    assert loaded.metrics["ndcg@20"] > 0.8
    assert loaded.data["events"] == len(data)
    assert loaded.settings["trained"] is True
    steps = [call[0] for call in calls]
    assert steps == sorted(steps)
    assert calls[-1][3] == 0.0
    assert calls[-1][1] < calls[0][1]


def files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("network.pt", "items.json", "arrays.npz")}


@pytest.mark.parametrize("threads", [1, 2])
def test_same_data_and_seed_same_model(threads: int, tmp_path: Path) -> None:
    settings = replace(TINY, epochs=1, max_steps=3, dropout=0.1, threads=threads)
    one, two = train(circles(), settings), train(circles(), settings)
    other = train(circles(), replace(settings, seed=2))
    assert one.checksum == two.checksum != other.checksum
    for number, artifact in enumerate((one, two)):
        save_artifact(tmp_path / str(number), artifact)
    assert files(tmp_path / "0") == files(tmp_path / "1")


def test_the_model_does_not_depend_on_the_clock() -> None:
    ticks = itertools.count(step=0.5)
    settings = replace(TINY, epochs=2)
    slow = train(circles(), settings, clock=lambda: next(ticks))
    assert slow.checksum == train(circles(), settings).checksum
    assert slow.settings["stopped"] == "steps"


def test_the_clock_is_a_safety_net_that_is_told() -> None:
    ticks = itertools.count(step=1.0)  # every look at the clock costs a second
    artifact = train(circles(), replace(TINY, epochs=10_000, max_seconds=20.0), clock=lambda: next(ticks))
    assert artifact.settings["stopped"] == "time"
    assert 1 <= artifact.metrics["steps"] <= 20


def test_steps_bound_the_schedule() -> None:
    rates: list[float] = []
    artifact = train(circles(), replace(TINY, epochs=10_000, max_steps=25), lambda *told: rates.append(told[3]))
    assert artifact.metrics["steps"] == 25
    assert artifact.settings["stopped"] == "steps"
    assert rates[-1] == 0.0


def test_stops_when_the_validation_gets_no_better_and_keeps_the_best() -> None:
    # Everything is known after some steps, and cannot get better.
    artifact = train(circles(), replace(TINY, epochs=100, judgements=50, patience=2))
    assert artifact.settings["stopped"] == "validation"
    assert artifact.metrics["ndcg@10"] == 1.0
    shorter = train(circles(), replace(TINY, epochs=100, judgements=50, patience=4))
    assert shorter.metrics["steps"] > artifact.metrics["steps"]
    assert shorter.checksum == artifact.checksum  # both kept the weights of the first best judgement


def walks(users: int = 60, events: int = 20, items: int = 200) -> Dataset:
    """Histories that never repeat an item: user u takes u, u + 1, u + 2, ..."""
    rows = [(user, (user * 3 + k) % items, k * 60_000) for user in range(users) for k in range(events)]
    user, item, time_ms = (list(column) for column in zip(*rows, strict=True))
    return dataset(user, item, time_ms, items, None)


@pytest.mark.parametrize("protocol", ["leave-one-out", "temporal"])
@pytest.mark.parametrize("refit", ["no", "counts", "all"])
def test_the_test_part_is_never_learnt(protocol: Protocol, refit: Refit) -> None:
    data = walks()
    settings = replace(TINY, epochs=2, protocol=protocol, refit_on_validation=refit, test_share=0.3)
    split = leave_one_out(data) if protocol == "leave-one-out" else temporal(data, test_share=0.3)
    item, categories = data.item.copy(), ["even", "odd"] * 100
    item[split.test.row] = 0  # another test part, all else the same
    one, other = (train(replace(data, item=part, item_categories=categories), settings) for part in (data.item, item))
    assert one.checksum == other.checksum
    for name in ("rules_to", "rules_weight", "basket_to", "basket_weight", "popularity"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.item_categories == other.item_categories
    assert one.metrics["hr@10"] == other.metrics["hr@10"] > 0.0
    assert one.settings["protocol"] == protocol


def test_what_only_the_test_part_tells_of_an_item_is_not_known() -> None:
    data = replace(walks(users=1, events=5, items=5), item_categories=["a", "b", "c", "d", "e"])
    more = dataset([0] * 5 + [1] * 4, [0, 1, 2, 3, 4, 0, 1, 2, 3], [*range(5), *range(4)], 5, None)
    data = replace(more, item_categories=data.item_categories)
    artifact = train(data, replace(TINY, epochs=2, protocol="leave-one-out"))
    assert artifact.item_categories == ["a", "b", "c", "d", ""]
    assert artifact.popularity[4] == 0.0


def test_what_the_catalogue_tells_of_an_item_is_known_without_a_learnt_event() -> None:
    """Items 4 and 5 are held out; the catalogue says that 4 is of the kind that item 0 is."""
    data = dataset([0] * 6 + [1] * 6, [0, 1, 2, 3, 0, 4, 0, 1, 2, 3, 1, 5], [*range(6), *range(6)], 6, None)
    kind = ItemDetails(category="a", path="top > a")
    data = replace(data, item_categories=list("abcdaf"), listed=[kind, *[NOTHING] * 3, kind, NOTHING])
    artifact = train(data, replace(TINY, epochs=1, protocol="leave-one-out"))
    assert artifact.item_categories == ["a", "b", "c", "d", "a", ""]
    features = _content(data, count(6, 60.0, [leave_one_out(data).train]))
    assert features is not None
    assert features.of(0) == features.of(4) == ["category=top", "category=top > a"]
    assert features.of(5) == []


@pytest.mark.parametrize("change", [{"item_brands": ["x", "y"] * 6}, {"item_prices": [1.0, 9.0] * 6}])
def test_brands_and_prices_are_learnt_and_switched_off_with_content(change: dict[str, Any]) -> None:
    settings = replace(TINY, epochs=2)
    plain, told = circles(), replace(circles(), **change)
    assert train(told, settings).checksum == train(told, settings).checksum != train(plain, settings).checksum
    settings = replace(settings, content=False)
    assert train(told, settings).checksum == train(plain, settings).checksum


def test_refit_decides_what_the_validation_part_adds() -> None:
    data, settings = walks(), replace(TINY, epochs=4, protocol="leave-one-out")
    none, counts, both = (train(data, replace(settings, refit_on_validation=refit)) for refit in REFITS)
    assert none.checksum == counts.checksum != both.checksum
    assert not np.array_equal(none.popularity, counts.popularity)
    np.testing.assert_array_equal(counts.popularity, both.popularity)


def test_a_log_without_times_is_learnt_by_its_order() -> None:
    data = replace(walks(), time_ms=walks().time_ms // 60_000, has_time=False)
    artifact = train(data, TINY)
    assert artifact.metrics["hr@10"] > 0.9  # each user's last item validates
    assert artifact.basket_weight.max() == 0.0  # nothing is known of sessions
    assert artifact.rules_to[6, 0] == 7
    with pytest.raises(DatasetError, match="has no times, so it cannot be cut by time; use --protocol leave-one-out"):
        train(data, replace(TINY, protocol="temporal"))


def test_no_gpu_is_told() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(TrainingError, match="there is no GPU that torch can use; train with --device cpu"):
        train(circles(), replace(TINY, device="cuda"))
    assert train(circles(), replace(TINY, epochs=1, max_steps=1, device="auto")).settings["device"] == "cpu"


def test_a_loss_that_is_no_number_stops() -> None:
    with pytest.raises(TrainingError, match=r"the loss became .* train again with a smaller learning_rate"):
        train(circles(), replace(TINY, learning_rate=1e18))


def test_nothing_to_learn() -> None:
    data = dataset([0, 1], [0, 1], [1, 2], 2, None)
    with pytest.raises(DatasetError, match="no user has two events in order"):
        train(data, replace(TINY, validation_share=0.0))


@pytest.mark.parametrize("refit", REFITS)
def test_the_blend_is_chosen_by_what_has_not_learnt_the_answers(refit: Refit) -> None:
    settings = replace(TINY, epochs=2, protocol="leave-one-out", refit_on_validation=refit, validation_questions=50)
    draw = np.random.default_rng(4)
    item = np.stack([draw.permutation(200)[:8] for _ in range(450)]).reshape(-1).tolist()
    user = np.repeat(np.arange(450), 8).tolist()
    log = dataset(user, item, [k * 60_000 for k in range(len(item))], 200, None)
    artifact = train(log, settings, lists=Lists())
    assert artifact.blend is not None
    found = {name: value for name, value in artifact.metrics.items() if name.startswith("blend_")}
    assert len(found) == 4
    # All is chance: 10 of 200 items hold the answer in a twentieth of the lists. Who counted the answers finds most.
    assert max(found.values()) < 0.15


def test_no_blend_is_chosen_unless_asked_for() -> None:
    assert train(walks(users=30), replace(TINY, epochs=1, protocol="leave-one-out")).blend is None


def test_content_helps_items_that_few_took() -> None:
    """Every user likes one of two kinds; the last item of each kind was taken once by anybody."""
    draw = np.random.default_rng(2)
    items, users, events = 40, 120, 14
    kind = np.arange(items) % 2
    common = [np.flatnonzero(kind[:-2] == k) for k in range(2)]
    item = np.stack([draw.choice(common[user % 2], events, replace=False) for user in range(users)])
    item[0, -1], item[1, -1] = items - 2, items - 1
    data = dataset_from_arrays(
        user=np.repeat(np.arange(users, dtype=np.int32), events),
        item=item.reshape(-1).astype(np.int32),
        type=np.full(item.size, PURCHASE, np.uint8),
        time_ms=np.tile(np.arange(events, dtype=np.int64) * DAY_MS, users) + 1_700_000_000_000,
        user_ids=[f"u{k}" for k in range(users)],
        item_ids=[f"i{k}" for k in range(items)],
        item_categories=[f"kind {k}" for k in kind],
    )
    gaps = []
    for content in (False, True):
        settings = replace(TINY, epochs=20, offset=False, content=content, validation_share=0.0, dropout=0.0)
        artifact = train(data, settings)
        rare = artifact.item_matrix[[items - 2, items - 1]]  # 2 d
        own = np.array([artifact.item_matrix[rows].mean(axis=0) for rows in common])  # 2 d
        nearness = rare @ own.T  # 2 2
        gaps.append(float(np.trace(nearness) - np.trace(nearness[::-1])))
    assert gaps[1] > gaps[0] + 0.1
