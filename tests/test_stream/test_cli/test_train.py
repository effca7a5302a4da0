"""`driftline train`: a log in, a model folder out."""

import json
import random
from pathlib import Path

from model.artifact import load_artifact


def a_log(path: Path) -> Path:
    """Forty users, each buying his way through twelve items in order."""
    draw = random.Random(1)
    lines = []
    for number in range(800):
        user = draw.randrange(40)
        lines.append(
            {
                "event_id": f"e{number}",
                "event_type": "purchase",
                "occurred_at": 1_767_323_045_000 + number * 60_000,
                "user_id": f"u{user}",
                "item_id": f"i{(user + number // 40) % 12}",
            }
        )
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_trains_and_writes_a_model(driftline, tmp_path: Path) -> None:
    out = tmp_path / "model"
    log = a_log(tmp_path / "log.jsonl")
    done = driftline("train", str(log), "--out", str(out), "--seconds", "1", "--name", "mine", "-o", "json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    artifact = load_artifact(out)
    assert (told["name"], told["version"], told["items"]) == ("mine", artifact.version, 12)
    assert sorted(artifact.item_ids) == sorted(f"i{n}" for n in range(12))
    assert f"driftline worker --model {out}" in done.err


def test_refuses_a_folder_of_other_things_before_it_trains(driftline, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    done = driftline("train", str(a_log(tmp_path / "log.jsonl")), "--out", str(tmp_path))
    assert done.code == 2
    assert "holds no model" in done.err


def test_no_such_log(driftline, tmp_path: Path) -> None:
    done = driftline("train", str(tmp_path / "none.jsonl"), "--out", str(tmp_path / "model"))
    assert done.code == 2
    assert "none.jsonl" in done.err


def test_a_log_that_is_wrong_names_file_and_row(driftline, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"event_type": "purchase"}\n')
    done = driftline("train", str(log), "--out", str(tmp_path / "model"))
    assert done.code == 2
    assert "log.jsonl" in done.err
