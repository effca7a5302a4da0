"""`driftline simulate`: files, the truth, and the events topic of the embedded broker."""

import json
from pathlib import Path

import pytest

from model.simulation.files import event_lines
from model.simulation.world import World, WorldSettings
from state.weights import EVENT_TYPES
from stream.contract.event import EventDecoder
from stream.contract.item import decode_item
from stream.engine.partitioner import partition_of

SMALL = ("--users", "20", "--items", "30", "--categories", "5", "--events", "200", "--days", "3")


def test_every_event_is_one_by_the_contract() -> None:
    decoder = EventDecoder()
    world = World(WorldSettings(users=20, items=30, categories=5, events=2_000, days=3))
    types = set()
    for line in event_lines(world):
        event = decoder.decode(line, now_ms=1_800_000_000_000)
        types.add(event.event_type)
        assert event.user_id
        assert event.item_id
        assert event.category
        assert event.event_id
    assert types == {"view", "click", "add_to_cart", "purchase"}
    assert types <= set(EVENT_TYPES)


def test_files_and_truth(driftline, tmp_path: Path) -> None:
    paths = {name: tmp_path / f"{name}.jsonl" for name in ("events", "truth", "users", "items")}
    flags = ("--truth", paths["truth"], "--users-out", paths["users"], "--items-out", paths["items"])
    done = driftline("simulate", paths["events"], *flags, *SMALL)
    assert done.code == 0, done.err
    counts = {name: len(path.read_text().splitlines()) for name, path in paths.items()}
    assert counts == {"events": 200, "truth": 20, "users": 20, "items": 30}
    for line in paths["items"].read_bytes().splitlines():
        assert decode_item(line).category_path
    again = tmp_path / "again.jsonl"
    assert driftline("simulate", again, *SMALL).code == 0
    assert again.read_bytes() == paths["events"].read_bytes()
    other = tmp_path / "other.jsonl"
    assert driftline("simulate", other, *SMALL, "--seed", "2").code == 0
    assert other.read_bytes() != again.read_bytes()


def test_to_the_topic_under_their_users_keys(driftline, there: tuple[str, str]) -> None:
    done = driftline("simulate", "--to-topic", "--limit", "50", *SMALL, *there)
    assert done.code == 0, done.err
    assert done.err.startswith("50 events sent to driftline.events.v1")
    tailed = driftline("tail", "events", "--from", "earliest", "--no-follow", "-o", "json", *there)
    records = [json.loads(line) for line in tailed.out.splitlines()]
    assert sorted(int(record["value"]["event_id"].split("-")[1]) for record in records) == list(range(1, 51))
    assert all(record["key"] == record["value"]["user_id"] for record in records)
    assert all(record["partition"] == partition_of(record["key"].encode(), 6) for record in records)


def test_at_a_rate(driftline, there: tuple[str, str]) -> None:
    done = driftline("simulate", "--to-topic", "--limit", "20", "--rate", "40", *SMALL, *there)
    assert done.code == 0
    seconds = float(done.err.split(" in ")[1].split(" s ")[0])
    assert 0.45 <= seconds < 5.0


def test_events_of_the_future_are_refused_and_told(driftline, there: tuple[str, str]) -> None:
    done = driftline("simulate", "--to-topic", "--begin", "2100-01-01", *SMALL, *there)
    assert done.code == 1
    assert "200 events were not sent" in done.err
    assert "--begin" in done.err


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("events.csv",),
        ("events.jsonl", "--rate", "5"),
        ("events.jsonl", "--limit", "5"),
        ("events.jsonl", "--begin", "tomorrow"),
        ("events.jsonl", "--categories", "2"),
        ("missing-folder/events.jsonl", "--events", "5", "--users", "5"),
    ],
)
def test_refusals(driftline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]) -> None:
    monkeypatch.chdir(tmp_path)
    done = driftline("simulate", *flags)
    assert done.code == 2
    assert done.err.startswith("driftline: ")
    assert not list(tmp_path.iterdir())
