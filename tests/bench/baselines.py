"""Every baseline on one data set by leave-one-out, beside what was published.

    python -m tests.bench.baselines --data ../shared/data/ml-1m/ml-1m.txt.gz
    python -m tests.bench.baselines --data FILE --models gru4rec,sasrec,ncf --device cuda --seconds 200 --json OUT

All items are candidates, seen items are filtered; the last item of each user is the test, the one before it is what
training stops by. `of 101` is HR@10 among the answer and 100 items drawn from those the user has not taken: it orders
models wrongly (Krichene, Rendle 2020) and is here because NCF and BPR were published with it (NCF with 99).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.baselines import BASELINES
from model.baselines.base import FitSettings, Model
from model.evaluation.metrics import hit_rate, ndcg, ranks
from model.evaluation.questions import Questions
from model.evaluation.splits import leave_one_out
from model.training.dataset import Dataset, load_dataset

NOTES = "measurement of the model notes"
PAPER = "Kang, McAuley 2018, table III"
PUBLISHED: dict[tuple[str, str], tuple[str, float, float, str]] = {
    ("ml-1m", "popularity"): ("all", 0.0364, 0.0179, NOTES),
    ("ml-1m", "itemknn"): ("all", 0.1485, 0.0796, NOTES),
    ("ml-1m", "ease"): ("all", 0.1099, 0.0544, NOTES),
    ("ml-1m", "bpr"): ("of 101", 0.5781, 0.3287, PAPER),
    ("ml-1m", "ncf"): ("of 101", 0.701, 0.425, "He et al. 2017, 32 factors, no pretraining"),
    ("ml-1m", "gru4rec"): ("all", 0.2811, 0.1648, "generative-recommenders, README"),
    ("ml-1m", "sasrec"): ("all", 0.3181, 0.1902, "LRURec, full cross-entropy"),
    ("ml-1m", "rules"): ("all", 0.2705, 0.1587, NOTES),
    ("ml-100k", "ncf"): ("of 101", 0.6426, 0.3654, "NeuMF of cornac 3.0.1 on this split, tests.bench.ncf_library"),
    ("beauty", "rules"): ("all", 0.0815, 0.0513, NOTES),
}
"""(data, model): candidates, HR@10, NDCG@10, source."""
HEAD = f"{'':19}  HR@10   NDCG@10  of 101: HR@10   NDCG@10   fit s  score s  published"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--models", default=",".join(BASELINES), help="names, with commas between")
    arguments.add_argument("--device", help="cpu or cuda; without it the GPU if there is one")
    arguments.add_argument("--seconds", type=float, default=180.0, help="limit of each training")
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--users", type=int, help="only the first so many users, for a quick look")
    arguments.add_argument("--json", type=Path, help="where to write the figures")
    arguments.add_argument("--progress", action="store_true", help="a line for each epoch")
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    data = load_dataset(given.data)
    if given.users:
        data = data.select(data.user < given.users)
    split = leave_one_out(data)
    fit = FitSettings(
        seed=given.seed,
        threads=given.threads,
        max_seconds=given.seconds,
        validation=split.validation,
        progress=print_progress if given.progress else None,
        device=given.device,
    )
    found: dict[str, Any] = {
        "data": given.data.name,
        "events": int(data.is_item.sum()),
        "items": data.items,
        "questions": len(split.test),
        "protocol": "leave-one-out",
        "seen_filtered": True,
        "seed": given.seed,
        "models": {},
    }
    print(HEAD, flush=True)
    for name in given.models.split(","):
        found["models"][name] = figures = measure(BASELINES[name](), split.train, split.test, fit)
        print(line(name, figures, given.data.name.split(".")[0].lower()), flush=True)
        if given.json:
            given.json.write_text(json.dumps(found, indent=1) + "\n")


def measure(model: Model, train: Dataset, test: Questions, fit: FitSettings) -> dict[str, float]:
    """Train one baseline and ask it all questions."""
    began_s = time.perf_counter()
    model.fit(train, fit)
    fitted_s = time.perf_counter()
    draw = np.random.default_rng(0)
    test = test.select(~test.repeats)
    rank, sampled = [], []
    for block in test.blocks():
        scores = np.array(model.score(block), np.float32)
        block.mask_seen(scores)
        rank.append(ranks(scores, block.target))
        # 100 others that are candidates: the first of a random order.
        order = draw.random(scores.shape)
        order[np.isneginf(scores)] = 2.0
        order[np.arange(len(block)), block.target] = -1.0
        some = np.argpartition(order, 100, axis=1)[:, :101]
        few = np.full_like(scores, -np.inf)
        np.put_along_axis(few, some, np.take_along_axis(scores, some, axis=1), axis=1)
        sampled.append(ranks(few, block.target))
    all_ranks, some_ranks = np.concatenate(rank), np.concatenate(sampled)
    return {
        "hr@10": hit_rate(all_ranks, 10),
        "ndcg@10": ndcg(all_ranks, 10),
        "of_101_hr@10": hit_rate(some_ranks, 10),
        "of_101_ndcg@10": ndcg(some_ranks, 10),
        "fit_s": fitted_s - began_s,
        "score_s": time.perf_counter() - fitted_s,
    }


def line(name: str, figures: dict[str, float], data: str = "") -> str:
    """A line under HEAD, with what was published of it on this data."""
    own = (figures["hr@10"], figures["ndcg@10"], figures["of_101_hr@10"], figures["of_101_ndcg@10"])
    text = f"{name:19} {own[0]:.4f}    {own[1]:.4f}          {own[2]:.4f}    {own[3]:.4f}"
    text += f"  {figures['fit_s']:6.1f}   {figures['score_s']:6.1f}"
    if (data, name) in PUBLISHED:
        candidates, hits, gain, source = PUBLISHED[data, name]
        hr, dcg = own[:2] if candidates == "all" else own[2:]
        text += f"  {hits:.4f} {gain:.4f} {candidates}: {hr / hits - 1:+.1%} {dcg / gain - 1:+.1%} ({source})"
    return text


def print_progress(step: int, loss: float, hits: float, left_s: float) -> None:
    print(f"    step {step}  loss {loss:.3f}  validation HR@10 {hits:.4f}  {left_s:.0f} s left", flush=True)


if __name__ == "__main__":
    main()
