"""`driftline train`: a log in, a model folder out."""

import json
import random
from pathlib import Path
from typing import Any

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


def test_the_protocol_is_kept_and_told(driftline, tmp_path: Path) -> None:
    out = tmp_path / "model"
    log = tmp_path / "log.txt"
    log.write_text("".join(f"{user} {' '.join(str(user * 2 + k) for k in range(12))}\n" for user in range(30)))
    flags = ("--protocol", "leave-one-out", "--epochs", "3", "--threads", "1", "-o", "json")
    done = driftline("train", str(log), "--out", str(out), *flags)
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (told["protocol"], told["stopped"]) == ("leave-one-out", "steps")
    assert 0.0 <= told["hr@10"] <= 1.0
    artifact = load_artifact(out)
    assert artifact.settings["protocol"] == "leave-one-out"
    assert artifact.popularity[artifact.item_ids.index("69")] == 0.0  # the last item of the last user: only a test
    assert not (tmp_path / "model.checkpoint").exists()


def test_from_disk_as_from_memory(driftline, tmp_path: Path) -> None:
    log = a_log(tmp_path / "log.jsonl")
    told = []
    for name, more in (("memory", ()), ("disk", ("--memory-events", "10"))):
        flags = ("--epochs", "3", "--threads", "1", "-o", "json", *more)
        done = driftline("train", str(log), "--out", str(tmp_path / name), *flags)
        assert done.code == 0, done.err
        told.append(done.err)
    memory, disk = (load_artifact(tmp_path / name) for name in ("memory", "disk"))
    assert "parts on disk" in told[1]
    assert "parts on disk" not in told[0]
    assert memory.item_ids == disk.item_ids
    assert (memory.rules_to[:, 0] == disk.rules_to[:, 0]).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "log.jsonl", "memory"]


def a_catalog(path: Path, **first: Any) -> Path:
    items = [
        {"item_id": f"i{n}", "name": f"Item {n}", "brand": "ab"[n % 2], "category": ["All", "xy"[n % 2]]}
        for n in range(15)
    ]
    items[0] |= first
    path.write_text("\n".join(map(json.dumps, items)))
    return path


def test_a_catalogue_tells_what_the_items_are(driftline, tmp_path: Path) -> None:
    flags = (str(a_log(tmp_path / "log.jsonl")), "--epochs", "1", "--threads", "1", "--items")
    made = []
    for name, first in (("a", {}), ("b", {}), ("c", {"text": "item of b"})):
        items = str(a_catalog(tmp_path / "items.jsonl", **first))
        done = driftline("train", *flags, items, "--out", str(tmp_path / name))
        assert done.code == 0, done.err
        assert "items.jsonl tells of 12 of the log's 12 items" in done.err
        made.append(load_artifact(tmp_path / name))
    assert sorted(zip(made[0].item_ids, made[0].item_names, made[0].item_categories, strict=True))[:2] == [
        ("i0", "Item 0", "x"),
        ("i1", "Item 1", "y"),
    ]
    assert made[0].checksum == made[1].checksum
    assert made[0].data == made[1].data != made[2].data


def test_a_catalogue_that_changed_is_another_training(driftline, tmp_path: Path) -> None:
    log, checkpoint = str(a_log(tmp_path / "log.jsonl")), str(tmp_path / "kept")
    flags = (
        log,
        "--out",
        str(tmp_path / "model"),
        "--checkpoint",
        checkpoint,
        "--checkpoint-every",
        "0",
        "--threads",
        "1",
        *("--epochs", "1000000", "--max-steps", "0", "--seconds", "1"),  # no machine ends it sooner
    )
    first = driftline("train", *flags, "--items", str(a_catalog(tmp_path / "items.jsonl")))
    assert "Time was over" in first.err
    done = driftline("train", *flags, "--items", str(a_catalog(tmp_path / "items.jsonl", brand="new")))
    assert done.code == 1
    assert "of another training" in done.err


def test_a_catalogue_that_is_wrong_is_refused(driftline, tmp_path: Path) -> None:
    flags = ("train", str(a_log(tmp_path / "log.jsonl")), "--out", str(tmp_path / "model"), "--items")
    for file, told in (
        (
            a_catalog(tmp_path / "items.jsonl", price="dear"),
            "items.jsonl, row 1: the value is no item (Expected `float | ",
        ),
        (tmp_path / "none.jsonl", "none.jsonl"),
        (a_catalog(tmp_path / "items.txt"), "cannot tell what"),
    ):
        done = driftline(*flags, str(file))
        assert done.code == 2
        assert told in done.err
    assert "one of the two" in driftline(*flags, str(file), "--items-topic", "items").err


def test_files_or_a_topic(driftline, tmp_path: Path) -> None:
    for given in ((), (str(a_log(tmp_path / "log.jsonl")), "--topic", "events")):
        done = driftline("train", *given, "--out", str(tmp_path / "model"))
        assert done.code == 2
        assert "one of the two" in done.err


def test_fresh_begins_anew(driftline, tmp_path: Path) -> None:
    log, out = a_log(tmp_path / "log.jsonl"), tmp_path / "model"
    (tmp_path / "model.checkpoint").mkdir()
    (tmp_path / "model.checkpoint" / "checkpoint.pt").write_bytes(b"nonsense")
    flags = (str(log), "--out", str(out), "--epochs", "1", "--threads", "1")
    done = driftline("train", *flags)
    assert done.code != 0
    assert "remove it to begin anew" in done.err
    assert driftline("train", *flags, "--fresh").code == 0


def test_items_are_not_left_out_of_what_is_held_out(driftline, tmp_path: Path) -> None:
    flags = ("--out", str(tmp_path / "model"), "--min-item-events", "2")
    for protocol in ("leave-one-out", "temporal"):
        done = driftline("train", str(a_log(tmp_path / "log.jsonl")), *flags, "--protocol", protocol)
        assert done.code == 2
        assert f"change what {protocol} holds out" in done.err


def test_a_seed_that_torch_cannot_take_is_refused(driftline, tmp_path: Path) -> None:
    log = a_log(tmp_path / "log.jsonl")
    done = driftline("train", str(log), "--out", str(tmp_path / "model"), "--seed", str(2**31))
    assert done.code == 2
    assert "--seed" in done.err
