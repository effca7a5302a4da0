"""What each switch of the network brings: the network alone, trained with it and without it, on the same questions.

    python -m tests.bench.ablation --data journey
    python -m tests.bench.ablation --data ../shared/data/ml-100k/ml-100k.inter.gz --seeds 1,2 --json build/ablation.json

Switches: without content; named, by category and words of names; all that is told of items, with brand and price. Of
the demo's product types brand is the manufacturer that sold most of it, and price the median of one, until 15 April.

Temporal: the newest tenth of the log is asked, or --questions of it; what was seen is left out but for --keep-seen.
Rare are the questions whose answer was learnt 20 times at most.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from model.evaluation.metrics import hit_rate, ndcg
from model.evaluation.offline import judge
from model.evaluation.ours import Ours
from model.evaluation.splits import temporal
from model.ranking.settings import RankingSettings
from model.training.dataset import Dataset, load_dataset
from model.training.journey import SETTINGS as JOURNEY
from model.training.journey import TUNE_FROM_MS, data_folder, load_journey
from model.training.loop import train
from model.training.settings import TrainSettings

RARE = 20
SWITCHES = ("without", "named", "all")
ALONE = RankingSettings(rules_weight=0.0, basket_weight=0.0, personal_weight=0.0, popularity_weight=0.0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="'journey' (the demo's data), or a file that `train` takes")
    parser.add_argument("--seeds", default="1", help="by comma")
    parser.add_argument("--switches", default=",".join(SWITCHES), help="by comma (%(default)s)")
    parser.add_argument("--max-steps", type=int, default=2400)
    parser.add_argument("--questions", type=int, default=8000)
    parser.add_argument("--keep-seen", action="store_true", help="lists may hold what was seen; always so for journey")
    parser.add_argument("--json", type=Path, help="where the figures go")
    given = parser.parse_args(arguments)
    journey = given.data == "journey"
    data = with_brands(load_journey().data) if journey else load_dataset(given.data)
    settings = replace(JOURNEY if journey else TrainSettings(), protocol="temporal", max_steps=given.max_steps)
    seen_filtered = not (journey or given.keep_seen)
    found = []
    for seed in map(int, given.seeds.split(",")):
        for name in given.switches.split(","):
            told = replace(data, item_brands=[], item_prices=[]) if name == "named" else data
            changed = replace(settings, seed=seed, content=name != "without")
            found.append({"switch": name, "seed": seed, **measure(told, changed, seen_filtered, given)})
            print("  ".join(f"{key} {value}" for key, value in found[-1].items()), flush=True)
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps({"data": given.data, "rows": found}, indent=2) + "\n")
    return 0


def with_brands(data: Dataset) -> Dataset:
    """The demo's data with a brand and a price for each product type."""
    products = pq.read_table(
        data_folder() / "products.parquet", columns=["product_id", "product_type", "manufacturer_id"]
    )
    sold = pq.read_table(
        data_folder() / "transactions.parquet",
        columns=["product_id", "quantity", "sales_value", "transaction_timestamp"],
        filters=(pc.field("transaction_timestamp") < np.datetime64(TUNE_FROM_MS, "ms")) & (pc.field("quantity") > 0),
    ).join(products, "product_id", join_type="inner", use_threads=False)
    sold = sold.append_column("price", pc.divide(sold["sales_value"], pc.cast(sold["quantity"], "float64")))
    prices = sold.group_by("product_type", use_threads=False).aggregate([("price", "approximate_median")])
    makers = sold.group_by(["product_type", "manufacturer_id"], use_threads=False).aggregate([("quantity", "count")])
    makers = makers.sort_by([("quantity_count", "ascending"), ("manufacturer_id", "ascending")])  # the last one stays
    maker_of = dict(zip(makers["product_type"].to_pylist(), makers["manufacturer_id"].to_pylist(), strict=True))
    price_of = dict(
        zip(prices["product_type"].to_pylist(), prices["price_approximate_median"].to_pylist(), strict=True)
    )
    return replace(
        data,
        item_brands=[str(maker_of[name]) for name in data.item_names],
        item_prices=[price_of[name] or None for name in data.item_names],
    )


def measure(data: Dataset, settings: TrainSettings, seen_filtered: bool, given: argparse.Namespace) -> dict[str, Any]:
    """Quality of the network alone."""
    artifact = train(data, settings)
    split = temporal(data, settings.validation_share, settings.test_share)
    draw = np.random.default_rng(0)
    questions = split.test.select(np.sort(draw.permutation(len(split.test))[: given.questions]))
    ours = Ours(artifact, data, seen_filtered=seen_filtered, ranking=ALONE)
    judged = judge(ours, questions, seen_filtered=seen_filtered, k=(10,))
    learnt = np.bincount(split.train.item[split.train.is_item], minlength=data.items)
    rare = learnt[judged.questions.target] <= RARE
    return {
        "questions": len(judged.rank),
        "hr@10": round(hit_rate(judged.rank, 10), 4),
        "ndcg@10": round(ndcg(judged.rank, 10), 4),
        "rare": int(rare.sum()),
        "rare_hr@100": round(hit_rate(judged.rank[rare], 100), 4),
        "rare_mean_rank": round(float(np.minimum(judged.rank[rare], data.items).mean()), 1) if rare.any() else None,
    }


if __name__ == "__main__":
    sys.exit(main())
