"""`driftline evaluate`: a model and a log in, figures out."""

import json
import random
from pathlib import Path

import pytest

from model.artifact import save_artifact, untrained_artifact

ITEMS = [f"i{n}" for n in range(30)]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Thirty users, each taking ten items once."""
    draw = random.Random(1)
    path = tmp_path / "log.jsonl"
    with path.open("w") as file:
        for user in range(30):
            for number, item in enumerate(draw.sample(ITEMS, 10)):
                time_ms = 1_767_323_045_000 + number * 60_000 + user
                event = {"event_type": "click", "occurred_at": time_ms, "user_id": f"u{user}", "item_id": item}
                file.write(json.dumps({**event, "category": f"c{item[-1]}"}) + "\n")
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    save_artifact(path, untrained_artifact(ITEMS, dim=8, hidden=8))
    return path


def test_json_has_metrics_by_name(driftline, log: Path, model: Path) -> None:
    done = driftline("evaluate", str(model), str(log), "--k", "5", "--k", "10", "-o", "json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (told["protocol"], told["seen_filtered"]) == ("leave-one-out", True)
    assert (told["questions"], told["users"], told["items"]) == (30, 30, 30)
    assert 0.0 < told["metrics"]["hr@5"] <= told["metrics"]["hr@10"] < 1.0
    assert told["metrics"]["ndcg@10"] < told["metrics"]["hr@10"]
    assert len(told["intervals"]["hr@10"]) == 2


@pytest.mark.parametrize("protocol", ["temporal", "prequential"])
def test_other_protocols(driftline, log: Path, model: Path, protocol: str) -> None:
    done = driftline("evaluate", str(model), str(log), "--protocol", protocol, "--keep-seen", "-o", "json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (told["protocol"], told["seen_filtered"]) == (protocol, False)
    assert told["questions"] == (30 if protocol == "temporal" else 300)


def test_a_model_that_learns_from_the_first_event(driftline, log: Path) -> None:
    done = driftline("evaluate", "online", str(log), "--protocol", "prequential", "--known-only", "-o", "json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["model"] == {"name": "online"}
    assert told["known_only"] is True
    assert 0.0 < told["metrics"]["hr@10"] < 1.0


def test_a_table_and_a_plot_of_several_models(driftline, log: Path, model: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot = tmp_path / "plot.svg"
    models = "popularity,itemknn"
    done = driftline("evaluate", str(model), str(log), "--models", models, "--against", str(model), "--plot", str(plot))
    assert done.code == 0, done.err
    first, header, *rows = done.out.splitlines()
    assert "leave-one-out, 30 questions of 30 users, all 30 items are candidates, seen items left out" in first
    assert {"model", "hr@10", "ndcg@10", "coverage@10"} <= set(header.split())
    assert [row.split()[0] for row in rows] == ["ours", "against", "popularity", "itemknn"]
    assert "<svg" in plot.read_text()


def test_refusals_come_with_what_to_do(driftline, log: Path, model: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.jsonl"
    short.write_text("\n".join(log.read_text().splitlines()[:2]))
    other = tmp_path / "other"
    save_artifact(other, untrained_artifact(["x1", "x2"], dim=8, hidden=8))
    for arguments, said in (
        ((model, log, "--protocol", "last-but-one"), "take one of leave-one-out, temporal, prequential"),
        ((model, short), "no user has 3 items"),
        ((other, log), "trained on others"),
        ((model, log, "--plot", "plot.pdf"), ".svg or .png"),
        ((model, log, "--models", "elsewhere"), "take some of ours, popularity"),
        ((tmp_path / "none", log), "there is no model at"),
    ):
        done = driftline("evaluate", *map(str, arguments))
        assert done.code == 2, (arguments, done.err)
        assert said in done.err
        assert done.out == ""


def test_a_model_trained_on_all_is_warned_of(driftline, log: Path, tmp_path: Path) -> None:
    out = tmp_path / "trained"
    done = driftline("train", str(log), "--out", str(out), "--seconds", "1")
    assert done.code == 0, done.err
    done = driftline("evaluate", str(out), str(log), "-q", "-o", "json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["trained_on_test"] is True
    (line,) = done.err.splitlines()
    assert line.startswith("WARNING")


def test_a_negative_seed_is_refused(driftline, log: Path, model: Path) -> None:
    done = driftline("evaluate", str(model), str(log), "--seed", "-1")
    assert done.code == 2
    assert "--seed" in done.err


def test_the_layout_can_be_said(driftline, log: Path, model: Path) -> None:
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    other = log.with_name("rows")
    other.write_text("\n".join(",".join(map(str, cells)) for cells in [rows[0], *(row.values() for row in rows)]))
    assert driftline("evaluate", str(model), str(other)).code == 2
    done = driftline("evaluate", str(model), str(other), "--layout", "csv", "-o", "json")
    assert done.code == 0, done.err
