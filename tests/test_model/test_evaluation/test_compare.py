import dataclasses
import json
from typing import ClassVar

import numpy as np
import pytest

from model.artifact import Artifact, untrained_artifact
from model.baselines.base import FitSettings
from model.errors import DatasetError, EvaluationError
from model.evaluation.compare import Plan, evaluate
from model.evaluation.questions import Questions
from model.evaluation.splits import leave_one_out, temporal
from model.training.dataset import Dataset

LOO, TEMPORAL, LIVE = Plan("leave-one-out"), Plan("temporal"), Plan("prequential", warm_share=0.8)


class Oracle:
    """Knows all answers, or none; writes down what it may learn."""

    name = "it"
    learnt: ClassVar[list[Dataset]] = []

    def __init__(self, right: bool = True) -> None:
        self.right = right

    def fit(self, train: Dataset, fit: FitSettings) -> None:
        assert fit.validation is not None
        self.learnt.append(train)

    def score(self, questions: Questions) -> np.ndarray:
        scores = np.zeros((len(questions), questions.items), np.float32)
        scores[np.arange(len(questions)), questions.target] = 1.0 if self.right else -1.0
        return scores


class Unable(Oracle):
    """Cannot learn this."""

    def fit(self, train: Dataset, fit: FitSettings) -> None:
        raise DatasetError("too large")


MODELS = {"oracle": Oracle, "fool": lambda: Oracle(False)}


def told(
    artifact: Artifact | None, data: Dataset, plan: Plan = LOO, *, models=MODELS, **options: object
) -> tuple[dict, list[str]]:
    lines: list[str] = []
    document = evaluate(
        artifact, data, plan, models=models, say=print, warn=lines.append, progress=lambda *how_far: None, **options
    )
    return json.loads(json.dumps(document, allow_nan=False)), lines


@pytest.fixture(scope="module")
def untrained(crowd: Dataset) -> Artifact:
    return untrained_artifact(crowd.item_ids, crowd.item_categories, dim=8, hidden=8)


@pytest.mark.parametrize("plan", [LOO, TEMPORAL, LIVE])
def test_one_model_has_metrics_and_how_they_were_asked(crowd, untrained, plan: Plan) -> None:
    document, _ = told(untrained, crowd, plan)
    assert (document["protocol"], document["seen_filtered"]) == (plan.protocol, True)
    assert {"hr@10", "ndcg@10", "mrr@10", "recall@10", "precision@10", "f1@10", "accuracy"} <= set(document["metrics"])
    assert {"coverage@10", "diversity@10", "novelty@10", "calibration@10"} <= set(document["metrics"])
    assert document["users"] <= document["questions"]
    low, high = document["intervals"]["hr@10"]
    assert low <= document["metrics"]["hr@10"] <= high
    assert "models" not in document
    assert not document["trained_on_test"]


def test_seen_items_are_kept_when_that_is_asked_for(crowd, untrained) -> None:
    kept, _ = told(untrained, crowd, dataclasses.replace(LOO, seen_filtered=False))
    filtered, _ = told(untrained, crowd)
    assert not kept["seen_filtered"]
    assert kept["questions"] == len(leave_one_out(crowd).test)
    assert filtered["questions"] == (~leave_one_out(crowd).test.repeats).sum()


def test_models_are_fitted_on_the_train_part_and_compared(crowd, untrained) -> None:
    Oracle.learnt.clear()
    document, _ = told(untrained, crowd, wanted=["all"], against=untrained)
    assert [model["name"] for model in document["models"]] == ["ours", "against", "oracle", "fool"]
    by_name = {model["name"]: model for model in document["models"]}
    assert by_name["oracle"]["metrics"]["hr@10"] == 1.0
    assert by_name["fool"]["metrics"]["hr@10"] == 0.0
    assert by_name["ours"]["metrics"] == document["metrics"] == by_name["against"]["metrics"]
    assert by_name["against"]["p_against_ours"]["ndcg@10"] == 1.0
    assert by_name["oracle"]["p_against_ours"]["ndcg@10"] == 1e-4
    train = leave_one_out(crowd).train
    assert [len(learnt) for learnt in Oracle.learnt] == [len(train)] * 2


def test_an_unknown_name_is_refused_with_those_there_are(crowd, untrained) -> None:
    with pytest.raises(EvaluationError, match="ours, oracle, fool, or all"):
        told(untrained, crowd, wanted=["oracel"])
    with pytest.raises(EvaluationError, match=r"ours, popularity, .*, online, itemknn, rules, network, or all"):
        told(untrained, crowd, LIVE, wanted=["oracle"])


def test_of_all_models_those_are_left_out_that_cannot_be(crowd, untrained) -> None:
    models = {"unable": Unable, **MODELS}
    document, _ = told(untrained, crowd, wanted=["all"], models=models)
    assert [model["name"] for model in document["models"]] == ["ours", "oracle", "fool"]
    assert document["left_out"] == {"unable": "too large"}
    with pytest.raises(DatasetError, match="too large"):
        told(untrained, crowd, wanted=["unable"], models=models)


def test_live_all_learn_the_stream(crowd, untrained) -> None:
    document, _ = told(untrained, crowd, LIVE, wanted=["all"])
    names = [model["name"] for model in document["models"]]
    assert names == ["ours", "popularity", "decayed-popularity", "personal", "online", "itemknn", "rules", "network"]
    assert (document["warm_up"], document["known_only"]) == (0.8, False)
    by_name = {model["name"]: model["metrics"] for model in document["models"]}
    assert by_name["popularity"]["hr@10"] > by_name["network"]["hr@10"]  # the network has random weights


def trained(artifact: Artifact, protocol: str, learnt: Dataset) -> Artifact:
    return dataclasses.replace(artifact, settings={"protocol": protocol}, data=learnt.fingerprint())


def test_a_model_that_has_seen_the_test_is_warned_of_loudly(crowd, untrained) -> None:
    for plan in (LOO, TEMPORAL, LIVE):
        document, lines = told(trained(untrained, "all", crowd), crowd, plan)
        assert document["trained_on_test"]
        assert any(line.startswith("WARNING") for line in lines)


def test_the_other_model_is_warned_of_too(crowd, untrained) -> None:
    document, lines = told(untrained, crowd, against=trained(untrained, "all", crowd))
    assert (document["trained_on_test"], document["against"]["trained_on_test"]) == (False, True)
    assert len(lines) == 1


def test_a_model_of_the_same_protocol_or_of_an_earlier_time_has_not(crowd, untrained) -> None:
    early = temporal(crowd).train
    for plan, model in (
        (LOO, trained(untrained, "leave-one-out", leave_one_out(crowd).train)),
        (TEMPORAL, trained(untrained, "temporal", early)),
        (TEMPORAL, trained(untrained, "all", early)),
        (LIVE, trained(untrained, "all", early.select(early.time_ms < np.quantile(crowd.time_ms, 0.7)))),
    ):
        document, lines = told(model, crowd, plan)
        assert not document["trained_on_test"]
        assert lines == []


def test_of_a_model_of_the_temporal_protocol_the_share_of_its_test_is_known(crowd, untrained) -> None:
    """Its manifest names the whole log, whose newest tenth it has not learnt."""
    settings = {"protocol": "temporal", "test_share": 0.1}
    model = dataclasses.replace(untrained, settings=settings, data=crowd.fingerprint())
    for warm_share, seen in ((0.95, False), (0.5, True)):
        document, _ = told(model, crowd, dataclasses.replace(LIVE, warm_share=warm_share))
        assert document["trained_on_test"] is seen


def test_without_times_only_leave_one_out_can_be_asked(crowd, untrained) -> None:
    timeless = dataclasses.replace(crowd, has_time=False)
    for plan in (TEMPORAL, LIVE):
        with pytest.raises(DatasetError, match="has no times"):
            told(untrained, timeless, plan)
    assert told(untrained, timeless)[0]["questions"] > 0


def test_when_every_answer_was_seen_it_says_so(make_log) -> None:
    log = make_log("abab", "cdcd")
    model = untrained_artifact(log.item_ids, dim=4, hidden=4)
    with pytest.raises(DatasetError, match="--keep-seen"):
        told(model, log)
    assert told(model, log, dataclasses.replace(LOO, seen_filtered=False))[0]["questions"] == 2


def test_the_online_hybrid_needs_no_model_and_learns_while_it_is_asked(crowd) -> None:
    document, lines = told(None, crowd, LIVE, wanted=["popularity", "online"])
    assert document["model"] == {"name": "online"}
    assert document["trained_on_test"] is False
    assert lines == []
    by_name = {row["name"]: row["metrics"] for row in document["models"]}
    assert by_name["ours"] == by_name["online"] == document["metrics"]
    assert "rules" not in by_name
    with pytest.raises(EvaluationError, match="use --protocol prequential, or give a model's folder"):
        told(None, crowd, LOO)
