"""Two models over one log, in process, with the worker's own agent."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Producer

from model.artifact import Artifact, save_artifact, untrained_artifact
from state.keys import key_of
from stream.brokers import EmbeddedBroker
from stream.errors import RefusedError
from stream.replay.comparison import LIVE, SIDES, compare, compare_lists, kept_lists
from stream.replay.judge import NO_DIFFERENCE, read_answers
from stream.replay.lists import Vocabulary
from stream.replay.log import LogSpec
from stream.replay.report import Report, headline
from stream.replay.run import Options, replay
from stream.replay.workers import Outcome
from stream.settings import Settings, load_settings
from stream.topics import create_topics

USERS, EVENTS, ITEMS = 60, 1200, 120
CATEGORIES = [f"c{n % 8}" for n in range(ITEMS)]
BEGIN_MS = 1_780_000_000_000


def artifact() -> Artifact:
    return untrained_artifact([f"i{n}" for n in range(ITEMS)], CATEGORIES, dim=8, hidden=8, seed=1)


def boosted(model: Artifact, category: str, by: float) -> Artifact:
    """The same model, which thinks more of the items of a category."""
    inside = np.array([name == category for name in model.item_categories])
    return dataclasses.replace(model, item_bias=model.item_bias + by * inside.astype(np.float32), version="boosted")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    draw = random.Random(3)
    path = tmp_path / "log.jsonl"
    with path.open("w") as file:
        for number in range(EVENTS):
            event = {
                "event_id": f"e{number}",
                "event_type": draw.choice(["view", "click", "purchase"]),
                "user_id": f"u{draw.randrange(USERS)}",
                "item_id": f"i{draw.randrange(ITEMS)}",
                "occurred_at": BEGIN_MS + number * 60_000,
            }
            file.write(json.dumps(event) + "\n")
    return path


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., Settings]:
    def made(model: Artifact, **overrides: Any) -> Settings:
        folder = tmp_path / f"model-{model.version}"
        if not folder.exists():
            save_artifact(folder, model)
        given = {"model.path": str(folder), "topics.partitions": 3, "worker.lists": "event", **overrides}
        return load_settings(overrides=given, environ={})

    return made


def replayed(log: Path, a: Settings, b: Settings, work: Path, **more: Any) -> tuple[Report, Outcome]:
    return compare(LogSpec((str(log),)), (a, b), work, chunk_records=64, **more)


def test_a_boosted_category_is_named(log: Path, settings: Callable[..., Settings], tmp_path: Path) -> None:
    model = artifact()
    for category in ("c5", "c2"):
        b = settings(boosted(model, category, 0.3), **{"topics.partitions": 3})
        report, outcome = replayed(log, settings(model), b, tmp_path / f"work-{category}")
        assert outcome.records == EVENTS
        first = report.diff.categories[0]
        assert (first.name, first.verdict) == (category, "raised")
        assert any(line.startswith(f"Most raised category: {category}, from ") for line in headline(report))
        (tmp_path / "model-boosted").rename(tmp_path / f"was-{category}")


def test_one_model_against_itself_differs_in_nothing(
    log: Path, settings: Callable[..., Settings], tmp_path: Path
) -> None:
    same = settings(artifact())
    report, outcome = replayed(log, same, same, tmp_path / "work", told=({"note": "x"}, {}))
    assert (report.diff.users_a, report.diff.users_b, report.diff.users_both) == (USERS, USERS, USERS)
    assert report.diff.changed == 0.0
    assert report.quality is not None
    assert report.quality.questions == report.quality.questions_a == EVENTS
    assert report.quality.without_list_a == USERS  # each user's first event
    assert report.quality.verdict == NO_DIFFERENCE
    assert report.a == {"model": f"untrained {artifact().version}", "note": "x"}
    assert outcome.counts["applied"] == 2 * EVENTS


def test_two_settings_of_one_model(log: Path, settings: Callable[..., Settings], tmp_path: Path) -> None:
    a, b = settings(artifact()), settings(artifact(), **{"ranking.list_size": 5})
    report, _ = replayed(log, a, b, tmp_path / "work", k=(5, 10))
    assert report.diff.overlap["10"].mean is not None
    assert report.diff.overlap["10"].mean < 0.6


def test_the_answers_are_those_of_the_lists_that_were_made(
    log: Path, settings: Callable[..., Settings], tmp_path: Path
) -> None:
    """Each rank is looked up anew in the lists of a run that keeps every one of them."""
    one = settings(artifact())
    replayed(log, one, one, tmp_path / "work", k=(10,))
    out = tmp_path / "out"
    replay(one, LogSpec((str(log),)), Options(work=str(tmp_path / "plain"), out=str(out), processes=1))
    lists: dict[str, dict[int, list[str]]] = {}
    for path in (out / "lists").glob("*.jsonl"):
        for line in path.read_text().splitlines():
            made = json.loads(line)
            by_offset = lists.setdefault(made["user_id"], {})
            by_offset[int(made["trigger_event_id"][1:])] = [item["item_id"] for item in made["items"]]

    wanted = []
    for number, line in enumerate(log.read_text().splitlines()):
        event = json.loads(line)
        before = [at for at in lists[event["user_id"]] if at < number]
        shown = lists[event["user_id"]][max(before)][:10] if before else None
        item = event["item_id"]
        wanted.append((key_of(item), -1 if shown is None else shown.index(item) + 1 if item in shown else 0))
    found = read_answers(tmp_path / "work" / "a")
    assert sorted(wanted) == sorted(zip(found.place[:, 2].tolist(), found.rank.tolist(), strict=True))
    assert max(rank for _, rank in wanted) > 0

    side = kept_lists("a", tmp_path / "work" / "a", 3, Vocabulary(), 10)
    table = side.table()
    for user, by_offset in lists.items():
        row = table.items[side.words.users.number(user)]
        assert [side.words.items.texts[item] for item in row] == by_offset[max(by_offset)][:10]


@pytest.mark.slow
def test_two_processes_give_the_same(log: Path, settings: Callable[..., Settings], tmp_path: Path) -> None:
    a, b = settings(artifact()), settings(boosted(artifact(), "c5", 0.3))
    here, _ = replayed(log, a, b, tmp_path / "here")
    apart, _ = replayed(log, a, b, tmp_path / "apart", processes=2)
    assert apart == here


def test_run_again_it_goes_on_and_ends_the_same(log: Path, settings: Callable[..., Settings], tmp_path: Path) -> None:
    a, b = settings(artifact()), settings(boosted(artifact(), "c5", 0.3))
    whole, _ = replayed(log, a, b, tmp_path / "whole")

    class Killed(Exception):  # noqa: N818 - no error of ours
        pass

    def die(outcome: Outcome, _: object) -> None:
        raise Killed

    with pytest.raises(Killed):
        replayed(log, a, b, tmp_path / "again", on_progress=die)
    for side in SIDES:  # as a kill may leave it: more in the file than the store knows of
        (path,) = (tmp_path / "again" / side / "answers").glob("00000.jsonl")
        with path.open("ab") as file:
            file.write(b'{"half": ')
    again, _ = replayed(log, a, b, tmp_path / "again")
    assert again == whole


def test_a_folder_of_another_comparison_is_refused(
    log: Path, settings: Callable[..., Settings], tmp_path: Path
) -> None:
    one = settings(artifact())
    replayed(log, one, one, tmp_path / "work")
    with pytest.raises(RefusedError, match="another replay"):
        replayed(log, one, one, tmp_path / "work", k=(5,))
    with pytest.raises(RefusedError, match=r"topics\.partitions"):
        replayed(log, one, settings(artifact(), **{"topics.partitions": 4}), tmp_path / "other")


class TestLists:
    """A replay's lists beside others."""

    def test_another_replay_with_its_quality_where_both_were_judged(
        self, log: Path, settings: Callable[..., Settings], tmp_path: Path
    ) -> None:
        spec, a, b = LogSpec((str(log),)), settings(artifact()), settings(boosted(artifact(), "c5", 0.3))
        for one, name, judged in ((a, "a", True), (b, "b", True), (a, "c", False)):
            options = Options(work=str(tmp_path / f"{name}.work"), out=str(tmp_path / name), judged=judged, processes=1)
            replay(one, spec, options)
        found = compare_lists(b, tmp_path / "b", str(tmp_path / "a"))
        assert found.quality is not None
        assert found.quality.questions == EVENTS
        assert (found.diff.categories[0].name, found.diff.categories[0].verdict) == ("c5", "raised")
        plain = compare_lists(a, tmp_path / "c", str(tmp_path / "a"))
        assert plain.quality is None
        assert plain.diff.changed == 0.0

    def test_the_workers_lists(
        self, log: Path, settings: Callable[..., Settings], tmp_path: Path, embedded: EmbeddedBroker
    ) -> None:
        one = settings(artifact(), **{"kafka.bootstrap_servers": embedded.bootstrap_servers})
        out = tmp_path / "out"
        replay(one, LogSpec((str(log),)), Options(work=str(tmp_path / "work"), out=str(out), processes=1))
        create_topics(one)
        producer = Producer({"bootstrap.servers": embedded.bootstrap_servers})
        for path in sorted((out / "lists").glob("*.jsonl")):
            for line in path.read_bytes().splitlines():
                user = json.loads(line)["user_id"]
                if user != "u7":
                    producer.produce(one.topics.recommendations, line, user, partition=int(path.stem))
            producer.produce(one.topics.recommendations, None, "u8", partition=int(path.stem))  # forgotten since
        assert producer.flush(10) == 0
        found = compare_lists(one, out, LIVE)
        assert (found.diff.only_a, sorted(found.diff.only_b)) == ([], ["u7", "u8"])
        assert found.diff.changed == 0.0

    def test_a_log_that_is_a_topic(
        self, log: Path, settings: Callable[..., Settings], tmp_path: Path, embedded: EmbeddedBroker
    ) -> None:
        servers = {"kafka.bootstrap_servers": embedded.bootstrap_servers}
        a, b = settings(artifact(), **servers), settings(boosted(artifact(), "c5", 0.3), **servers)
        create_topics(a)
        producer = Producer({"bootstrap.servers": embedded.bootstrap_servers, "partitioner": "murmur2_random"})
        for line in log.read_text().splitlines():
            producer.produce(a.topics.events, line, json.loads(line)["user_id"])
        assert producer.flush(10) == 0
        report, outcome = compare(LogSpec((f"topic:{a.topics.events}",)), (a, b), tmp_path / "work", chunk_records=64)
        assert outcome.records == EVENTS
        assert report.diff.categories[0].name == "c5"
        files, _ = replayed(log, a, b, tmp_path / "files")
        assert report.diff.categories == files.diff.categories
