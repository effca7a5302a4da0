"""`driftline compare`: a log and two models or settings in, a verdict out."""

import dataclasses
import json
import random
from pathlib import Path

import pytest

from model.artifact import save_artifact, untrained_artifact
from stream.cli.compare import side_settings
from stream.errors import RefusedError, SettingsError
from stream.settings import load_settings

ITEMS = [f"i{n}" for n in range(60)]
CATEGORIES = [f"c{n % 6}" for n in range(60)]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Forty users, each taking ten items; and a line that is no event."""
    draw = random.Random(1)
    path = tmp_path / "log.jsonl"
    with path.open("w") as file:
        for number in range(400):
            event = {
                "event_type": "click",
                "occurred_at": 1_767_323_045_000 + number * 60_000,
                "user_id": f"u{number % 40}",
                "item_id": draw.choice(ITEMS),
            }
            file.write(json.dumps(event) + "\n")
        file.write("no event\n")
    return path


@pytest.fixture
def models(tmp_path: Path) -> tuple[str, str, str, str]:
    """Flags: a model, and the same with more of category c4."""
    plain = untrained_artifact(ITEMS, CATEGORIES, dim=8, hidden=8)
    bias = plain.item_bias.copy()
    bias[4::6] += 0.5
    save_artifact(tmp_path / "a", plain)
    save_artifact(tmp_path / "b", dataclasses.replace(plain, item_bias=bias, version="boosted"))
    return "--model", str(tmp_path / "a"), "--model", str(tmp_path / "b")


@pytest.fixture
def here(tmp_path: Path) -> tuple[str, ...]:
    return ("--data-dir", str(tmp_path / "data"), "--processes", "1", "--set", "topics.partitions=3")


def test_it_tells_the_verdict_and_names_the_boosted_category(
    driftline, log: Path, models, here, tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    done = driftline("compare", *models, "--log", log, "--report", page, *here)
    assert done.code == 0, done.err
    assert done.out.startswith("Verdict: ")
    assert "Most raised category: c4, from " in done.out
    assert "Quality of lists, event by event" in done.out
    assert "log.jsonl" in done.err  # the row that is no event
    assert "Most raised category: c4" in page.read_text()
    assert not list((tmp_path / "data").rglob("*.db"))  # the states are gone


def test_json_has_it_all(driftline, log: Path, models, here, tmp_path: Path) -> None:
    done = driftline("compare", *models, "--log", log, "--k", "5", "-o", "json", "--work", tmp_path / "work", *here)
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["quality"]["questions"] == 400
    assert [metric["name"] for metric in told["quality"]["metrics"]] == ["hr@5", "ndcg@5", "mrr@5"]
    assert told["diff"]["categories"][0]["name"] == "c4"
    assert (tmp_path / "work" / "a" / "stores").is_dir()  # kept, as --work was given


def test_two_settings_of_one_model(driftline, log: Path, models, here) -> None:
    flags = ("--set", f"model.path={models[1]}", "--set-b", "ranking.list_size=5", "--lists", "chunk")
    done = driftline("compare", "--log", log, *flags, "-o", "json", *here)
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (told["a"].get("settings"), told["b"]["settings"]) == (None, "ranking.list_size=5")
    assert told["diff"]["changed"] == 1.0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--model", "x"), "give it twice"),
        (("--model", "x", "--model", "y", "--model", "z"), "given 3 times"),
        ((), "no model is given"),
        (("--set-a", "ranking=3"), "--set-a ranking=3 is no SECTION.KEY=VALUE"),
        (("--set", "model.path=x", "--set-b", "ranking.list_size=none"), "ranking.list_size"),
        (("--lists", "none"), "--lists none is none of event, chunk"),
        (("--report", "/nowhere/at/all.html"), "give a file in a folder that is there"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(driftline, log: Path, here, flags, said: str) -> None:
    done = driftline("compare", "--log", log, *flags, *here)
    assert done.code == 2
    assert said in done.err


def test_settings_of_a_side_are_those_of_the_command_but_for_its_own() -> None:
    given = {"kafka.bootstrap_servers": "a:1", "ranking.list_size": 7, "profile": "shop", "model.path": "m"}
    base = load_settings(overrides=given, environ={})
    same = side_settings(base, None, [], "--set-a", base.worker.lists)
    assert same == base
    other = side_settings(base, "n", ["state.recent_items=9"], "--set-b", "event")
    assert (other.model.path, other.state.recent_items, other.worker.lists) == ("n", 9, "event")
    assert (other.kafka.bootstrap_servers, other.ranking.list_size) == ("a:1", 7)
    with pytest.raises(SettingsError, match="unknown setting"):
        side_settings(base, None, ["ranking.nothing=1"], "--set-a", "event")
    with pytest.raises(RefusedError, match="SECTION"):
        side_settings(base, None, ["list_size=1"], "--set-a", "event")
