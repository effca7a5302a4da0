"""Our NCF beside NeuMF of a kept library, cornac: the same split, limit of time, stop by validation and judge.

    pip install cornac==3.0.1
    python -m tests.bench.ncf_library --data ../shared/data/ml-100k/ml-100k.inter.gz --seeds 1,2,3

The library runs with its own defaults (8 factors; batch, rate and negatives of the paper) and with the sizes of ours.
What is asked and what `of 101` means is in tests.bench.baselines.
"""

from __future__ import annotations

import argparse
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cornac.data import Dataset as Ratings
from cornac.models import NeuMF

from model.baselines.base import F32, FitSettings, Model
from model.baselines.ncf import NCF
from model.baselines.related import user_item_pairs
from model.baselines.train import validation_hits
from model.evaluation.questions import Questions
from model.evaluation.splits import leave_one_out
from model.training.dataset import Dataset, load_dataset
from tests.bench import baselines as bench

PATIENCE = 8
"""Epochs of the library without a better HR@10 on validation before it ends; ours waits 6, twice."""


class Stopped(NeuMF):
    """The library's model, that asks whether to stop after each epoch."""

    stop: Callable[[], bool]

    def early_stop(self, train_set: object, val_set: object) -> bool:
        return self.stop()


class Library:
    """The library's model as one of ours: keeps the epoch that was best on validation."""

    def __init__(self, name: str, **settings: Any) -> None:
        self.name, self._settings = name, settings

    def fit(self, train: Dataset, fit: FitSettings) -> None:
        assert fit.validation is not None
        torch.set_num_threads(fit.threads)
        validation, end_s, kept, hits = fit.validation, fit.clock() + fit.max_seconds, {}, [-1.0]
        user, item = user_item_pairs(train)
        users, items = (OrderedDict((k, k) for k in range(count)) for count in (len(train.user_ids), train.items))
        ratings = Ratings(len(users), len(items), users, items, (user, item, np.ones(len(user))), seed=fit.seed)
        self._model = Stopped(
            backend="pytorch", num_epochs=400, early_stopping={}, verbose=False, seed=fit.seed, **self._settings
        )

        def stop() -> bool:
            hits.append(validation_hits(self.score, validation))
            best = int(np.argmax(hits))
            if best == len(hits) - 1:
                kept.update({name: value.clone() for name, value in self._model.model.state_dict().items()})
            left_s = end_s - fit.clock()
            if fit.progress is not None:
                fit.progress(len(hits) - 1, float("nan"), hits[-1], left_s)
            return len(hits) - 1 - best == PATIENCE or left_s < 0

        self._model.stop = stop
        self._model.fit(ratings)
        self._model.model.load_state_dict(kept)

    def score(self, questions: Questions) -> F32:
        return np.stack([self._model.score(user) for user in questions.user.tolist()]).astype(np.float32)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--models", default="ours,defaults,sizes of ours", help="names, with commas between")
    arguments.add_argument("--seconds", type=float, default=600.0, help="limit of each training, of the CPU")
    arguments.add_argument("--seeds", default="1", help="numbers, with commas between")
    arguments.add_argument("--progress", action="store_true", help="a line for each epoch")
    given = arguments.parse_args()
    split = leave_one_out(load_dataset(given.data))
    models: dict[str, Callable[[], Model]] = {
        "ours": NCF,
        "defaults": lambda: Library("cornac, defaults"),
        "sizes of ours": lambda: Library("cornac, sizes of ours", num_factors=32, layers=(128, 64, 32)),
    }
    print(bench.HEAD, flush=True)
    for name in given.models.split(","):
        found = []
        for seed in given.seeds.split(","):
            fit = FitSettings(
                seed=int(seed),
                max_seconds=given.seconds,
                validation=split.validation,
                progress=bench.print_progress if given.progress else None,
                device="cpu",
                clock=time.process_time,
            )
            model = models[name]()
            found.append(bench.measure(model, split.train, split.test, fit))
            print(bench.line(f"{model.name}, {seed}", found[-1]), flush=True)
        mean = {figure: float(np.mean([one[figure] for one in found])) for figure in found[0]}
        print(bench.line(f"{name}, mean", mean), flush=True)


if __name__ == "__main__":
    main()
