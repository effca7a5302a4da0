"""Baselines reach what was published of them; most networks need a GPU and are run by hand."""

from pathlib import Path

import numpy as np
import pytest

from model.baselines import BASELINES, FitSettings
from model.baselines.itemknn import IncrementalItemKNN
from model.baselines.ncf import NCF
from model.evaluation.prequential import prequential
from model.evaluation.splits import leave_one_out
from model.training.dataset import load_dataset
from tests.bench import baselines as bench

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
ML_1M, ML_100K = DATA / "ml-1m" / "ml-1m.txt.gz", DATA / "ml-100k" / "ml-100k.inter.gz"


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not ML_1M.exists(), reason="needs ../shared/data/ml-1m")
def test_counting_is_within_five_percent_of_what_was_published() -> None:
    split = leave_one_out(load_dataset(ML_1M))
    for name in ("popularity", "itemknn", "ease", "rules"):
        found = bench.measure(BASELINES[name](), split.train, split.test, FitSettings())
        _, hits, gain, _ = bench.PUBLISHED["ml-1m", name]
        assert found["hr@10"] == pytest.approx(hits, rel=0.05), name
        assert found["ndcg@10"] == pytest.approx(gain, rel=0.05), name


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not ML_100K.exists(), reason="needs ../shared/data/ml-100k")
def test_incremental_itemknn_is_within_five_percent_of_the_notes() -> None:
    data = load_dataset(ML_100K)
    nothing = data.select(np.zeros(len(data), np.bool_))
    judged = prequential(nothing, data, {"itemknn": IncrementalItemKNN(data.items)}, hide="seen", known_only=True)
    figures = judged["itemknn"].metrics(10)
    assert figures["hr@10"] == pytest.approx(0.1781, rel=0.05)
    assert figures["ndcg@10"] == pytest.approx(0.0934, rel=0.05)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not ML_100K.exists(), reason="needs ../shared/data/ml-100k")
def test_ncf_is_not_more_than_five_percent_below_that_of_a_library() -> None:
    split = leave_one_out(load_dataset(ML_100K))
    found = bench.measure(NCF(), split.train, split.test, FitSettings(validation=split.validation, device="cpu"))
    _, hits, gain, _ = bench.PUBLISHED["ml-100k", "ncf"]
    assert found["of_101_hr@10"] > 0.95 * hits
    assert found["of_101_ndcg@10"] > 0.95 * gain
