"""A whole replay: what it says of the golden log for ever, what makes it another replay, and going on with it.

The golden log and its results are in tests/golden/replay; golden.py beside this file says how they are made and why
they hold on every machine. Where a change of the results is wanted:

    python -m tests.test_stream.test_replay.golden
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from model.artifact import save_artifact, untrained_artifact
from stream.brokers import EmbeddedBroker
from stream.errors import RefusedError, ReplayError
from stream.event_file import BadRow
from stream.replay.log import LogSpec
from stream.replay.run import Options, Replayed, identity_of, lanes, make_share, partitions_of, replay, work_of
from stream.replay.work import identity_digest
from stream.replay.workers import Plan, Watching
from stream.settings import Settings, load_settings
from tests.test_stream.test_replay.golden import LOG, RESULTS, golden_settings, last_lists, make_log, results, states


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return golden_settings(tmp_path_factory.mktemp("model"))


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(work=str(tmp_path / "work"), chunk_records=64, processes=1)


def a_log(folder: Path, lines: int | None = None) -> LogSpec:
    """The golden log, or its first lines."""
    path = folder / "log.jsonl"
    path.write_text("".join(LOG.read_text().splitlines(keepends=True)[:lines]))
    return LogSpec(sources=(str(path),))


def written(found: Replayed) -> dict[str, bytes]:
    """All files of the output."""
    assert found.out is not None
    return {str(path.relative_to(found.out)): path.read_bytes() for path in sorted(found.out.rglob("*.jsonl"))}


# ------------------------------------------------------------------ the golden log


@pytest.mark.parametrize("chunk_records", [1, 64, 1000])
def test_the_golden_log_gives_its_golden_results(settings: Settings, tmp_path: Path, chunk_records: int) -> None:
    assert results(settings, tmp_path, chunk_records) == json.loads(RESULTS.read_text())


def test_the_golden_log_is_what_its_generator_makes() -> None:
    assert LOG.read_text().splitlines() == make_log()


def test_the_golden_log_has_all_that_a_log_has() -> None:
    golden = json.loads(RESULTS.read_text())
    assert all(golden["counts"][name] > 0 for name in ("applied", "duplicate", "late", "erased"))
    assert sum(golden["counts"].values()) == golden["log"]["given"]
    assert any(user.startswith("acme/") for user in golden["users"])
    assert golden["log"]["read"] == golden["log"]["given"] + sum(
        count for name, count in golden["log"].items() if name.startswith("bad.")
    )


# ------------------------------------------------------------------ what makes it another replay


SPEC = LogSpec(sources=("log.jsonl",))


def digest(settings: Settings, spec: LogSpec = SPEC, **options: Any) -> str:
    return identity_digest(identity_of(settings, spec, Options(**options)))


def with_values(settings: Settings, **values: Any) -> Settings:
    return load_settings(overrides={**settings.model_dump(), **values}, environ={})


@pytest.mark.parametrize(
    "values",
    [
        {"state.recent_items": 11},
        {"events.grace_s": 3601},
        {"weights.view": 1.5},
        {"ranking.list_size": 5},
        {"worker.lists": "event"},
        {"topics.partitions": 4},
        {"catalog.learnt_items": 7},
        {"model.path": "another"},
    ],
    ids=str,
)
def test_settings_that_change_results_make_another_replay(settings: Settings, values: Mapping[str, Any]) -> None:
    assert digest(with_values(settings, **values)) != digest(settings)


@pytest.mark.parametrize(
    "values",
    [{"kafka.bootstrap_servers": "other:9092"}, {"worker.group": "g"}, {"worker.data_dir": "elsewhere"}],
    ids=str,
)
def test_others_do_not(settings: Settings, values: Mapping[str, Any]) -> None:
    assert digest(with_values(settings, **values)) == digest(settings)


@pytest.mark.parametrize(
    "options", [{"chunk_records": 7}, {"into": "state"}, {"into": "shadow", "name": "x"}, {"judged": True}], ids=str
)
def test_options_that_change_results_make_another_replay(settings: Settings, options: Mapping[str, Any]) -> None:
    assert digest(settings, **options) != digest(settings)


def test_what_goes_live_is_of_no_model_and_no_replay_beside_it(settings: Settings) -> None:
    """A replay that was killed must go on, not begin again, when a model was trained meanwhile."""
    live = digest(settings, into="live")
    assert live != digest(settings)
    assert digest(with_values(settings, **{"model.path": "another", "ranking.list_size": 5}), into="live") == live
    assert digest(with_values(settings, **{"topics.events": "others"}), into="live") != live
    assert digest(settings, LogSpec(sources=("another.jsonl",)), into="live") != live


@pytest.mark.parametrize("options", [{"processes": 3}, {"share": (1, 2)}, {"out": "o"}, {"fresh": True}], ids=str)
def test_how_it_is_run_does_not(settings: Settings, options: Mapping[str, Any]) -> None:
    assert digest(settings, **options) == digest(settings)


def test_another_log_is_another_replay(settings: Settings) -> None:
    specs = [
        SPEC,
        LogSpec(sources=("log.jsonl", "more.jsonl")),
        LogSpec(sources=("log.jsonl",), limit=5),
        LogSpec(sources=("log.jsonl",), users=frozenset({"u1"})),
        LogSpec(sources=("log.jsonl",), columns={"user_id": "visitor"}),
        LogSpec(sources=("log.jsonl",), bad="stop"),
    ]
    assert len({digest(settings, spec) for spec in specs}) == len(specs)


def test_many_users_are_told_in_one_order(settings: Settings) -> None:
    """A set's own order changes from process to process, and a killed replay must find its folder."""
    users = [f"u{n}" for n in range(50)]
    spec = LogSpec(sources=("log.jsonl",), users=frozenset(users))
    assert identity_of(settings, spec, Options())["log"]["users"] == sorted(users)


def test_it_has_a_folder_of_its_own(settings: Settings) -> None:
    found = work_of(settings, SPEC, Options())
    assert found.path == settings.worker.data_dir / "replay" / digest(settings)
    assert work_of(settings, SPEC, Options(work="w")).path == Path("w")


# ------------------------------------------------------------------ partitions


def test_partitions_of_files_are_those_of_the_settings(settings: Settings) -> None:
    assert partitions_of(settings, SPEC, Options()) == (3, False)


def test_partitions_of_one_topic_are_its_own(settings: Settings, embedded: EmbeddedBroker) -> None:
    embedded.create_topic("log", 5)
    embedded.create_topic(settings.topics.events, 2)
    there = with_values(settings, **{"kafka.bootstrap_servers": embedded.bootstrap_servers})
    one, two = LogSpec(sources=("topic:log",)), LogSpec(sources=("topic:log", "topic:log2"))
    assert partitions_of(there, one, Options()) == (5, True)
    assert partitions_of(there, two, Options()) == (3, False)  # merged: their places are given anew
    assert partitions_of(there, SPEC, Options(into="state")) == (2, False)  # a changelog must fit its topic


@pytest.mark.parametrize(("share", "numbers"), [((0, 1), [0, 1, 2]), ((0, 2), [0, 2]), ((1, 2), [1]), ((2, 3), [2])])
def test_a_share_has_every_nth_partition(
    settings: Settings, tmp_path: Path, share: tuple[int, int], numbers: list[int]
) -> None:
    plan = Plan(partitions=3, chunk_records=64, work=str(tmp_path), out=None, now_ms=0, share=share)
    (lane,) = lanes(lambda mine: make_share(settings, plan, mine, broker=False), plan, 1)
    assert sorted(lane.numbers) == numbers
    lane.close()


def test_a_share_without_partitions_is_refused(settings: Settings, tmp_path: Path) -> None:
    plan = Plan(partitions=3, chunk_records=64, work=str(tmp_path), out=None, now_ms=0, share=(3, 4))
    with pytest.raises(RefusedError, match="--share 4/4: there are only 3 partitions; give fewer shares"):
        lanes(lambda mine: make_share(settings, plan, mine, broker=False), plan, 1)


# ------------------------------------------------------------------ again, and on


def test_a_finished_replay_does_nothing_again(settings: Settings, options: Options, tmp_path: Path) -> None:
    spec = a_log(tmp_path)
    first = replay(settings, spec, options)
    before, told = written(first), states(settings, first)
    again = replay(settings, spec, options)
    assert written(again) == before
    assert states(settings, again) == told
    assert again.outcome.counts == first.outcome.counts
    assert again.replay_id == first.replay_id


def test_a_log_that_grew_is_gone_on_with(settings: Settings, options: Options, tmp_path: Path) -> None:
    replay(settings, a_log(tmp_path, 250), options)
    found = replay(settings, a_log(tmp_path), options)
    golden = json.loads(RESULTS.read_text())
    told, lists = states(settings, found), last_lists(found)
    assert {user: {"state": told[user], "list": lists[user]} for user in told} == golden["users"]
    assert {name: count for name, count in found.outcome.counts.items() if name != "lists"} == golden["counts"]


def test_another_log_in_its_place_is_refused(settings: Settings, options: Options, tmp_path: Path) -> None:
    spec = a_log(tmp_path)
    found = replay(settings, spec, options)
    before = written(found)
    path = Path(spec.sources[0])
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    with pytest.raises(ReplayError, match=r"log\.jsonl, row \d+: is not what this replay read there.*--fresh"):
        replay(settings, spec, options)
    assert written(found) == before


def test_a_shorter_log_in_its_place_is_refused(settings: Settings, options: Options, tmp_path: Path) -> None:
    """Its few rows are before what was read of the other, so that no row can tell."""
    found = replay(settings, a_log(tmp_path), options)
    before = written(found)
    with pytest.raises(ReplayError, match=r"the log has \d+ rows less than this replay read of partition \d.*--fresh"):
        replay(settings, a_log(tmp_path, 100), options)
    assert written(found) == before


def a_topic(broker: EmbeddedBroker, settings: Settings, name: str, lines: Sequence[str], seed: int) -> Settings:
    """Events on a topic of three partitions; settings of its broker."""
    broker.create_topic(name, 3)
    there = with_values(settings, **{"kafka.bootstrap_servers": broker.bootstrap_servers})
    producer = Producer(there.client_properties({}))
    for number, line in enumerate(lines):
        producer.produce(name, line, json.loads(line)["user_id"], partition=(number + seed) % 3)
    assert producer.flush(20) == 0
    return there


def good_lines(count: int) -> list[str]:
    found = []
    for line in LOG.read_text().splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and event.get("user_id") and event.get("event_type") == "view":
            found.append(line)
    return found[:count]


def test_topics_together_are_gone_on_with_from_their_beginning(
    settings: Settings, options: Options, tmp_path: Path, embedded: EmbeddedBroker
) -> None:
    """Places are counted over both, so that they are no offsets of one of them."""
    lines = good_lines(90)
    there = a_topic(embedded, settings, "one", lines[:60], 0)
    a_topic(embedded, settings, "two", lines[60:], 1)
    spec = LogSpec(sources=("topic:one", "topic:two"), order="time")
    first = replay(there, spec, options)
    again = replay(there, spec, options)
    assert first.outcome.counts.total() > 90
    assert again.log["given"] == first.log["given"] == 90
    assert again.outcome.counts == first.outcome.counts
    assert states(there, again) == states(there, first)


def test_a_limit_of_a_topic_takes_no_more_the_second_time(
    settings: Settings, options: Options, embedded: EmbeddedBroker
) -> None:
    there = a_topic(embedded, settings, "limited", good_lines(80), 0)
    spec = LogSpec(sources=("topic:limited",), limit=25)
    first = replay(there, spec, options)
    again = replay(there, spec, options)
    kinds = ("applied", "duplicate", "late", "dead_letter", "erased", "rekeyed")
    assert sum(first.outcome.counts[kind] for kind in kinds) == 25
    assert again.outcome.counts == first.outcome.counts


def test_another_model_in_its_place_is_refused(tmp_path: Path, options: Options) -> None:
    settings = golden_settings(tmp_path)
    spec = a_log(tmp_path, 20)
    replay(settings, spec, options)
    artifact = untrained_artifact([f"i{n}" for n in range(24)], dim=8, hidden=8, seed=2)
    save_artifact(tmp_path / "other", artifact)
    other = with_values(settings, **{"model.path": str(tmp_path / "other")})
    with pytest.raises(RefusedError, match=r"holds another replay: model differ\. Give another folder with --work"):
        replay(other, spec, options)
    assert work_of(other, spec, Options()).path != work_of(settings, spec, Options()).path


def test_fresh_forgets_what_was_done(settings: Settings, tmp_path: Path) -> None:
    spec = a_log(tmp_path, 100)
    options = Options(work=str(tmp_path / "work"), chunk_records=64, processes=1)
    first = written(replay(settings, spec, options))
    other = Options(work=str(tmp_path / "work"), chunk_records=16, processes=1, fresh=True)
    assert written(replay(settings, spec, other)).keys() == first.keys()
    assert written(replay(settings, spec, Options(**{**vars_of(options), "fresh": True}))) == first


def vars_of(options: Options) -> dict[str, Any]:
    return {name: getattr(options, name) for name in options.__struct_fields__}


def test_an_out_folder_of_another_replay_is_left_alone(settings: Settings, tmp_path: Path) -> None:
    """Its files would be cut, and those of other partitions taken for this replay's."""
    spec = a_log(tmp_path, 60)
    options = Options(work=str(tmp_path / "work"), out=str(tmp_path / "out"), chunk_records=64, processes=1)
    before = written(replay(settings, spec, options))
    assert written(replay(settings, spec, options)) == before
    other = Options(work=str(tmp_path / "other"), out=str(tmp_path / "out"), chunk_records=32, processes=1)
    with pytest.raises(RefusedError, match="holds what another replay sent"):
        replay(settings, spec, other)
    assert not (tmp_path / "other").exists()
    assert written(replay(settings, spec, Options(**{**vars_of(options), "fresh": True}))) == before


def test_stopped_it_says_so_and_goes_on(settings: Settings, options: Options, tmp_path: Path) -> None:
    spec = a_log(tmp_path)
    stopped = replay(settings, spec, options, watching=lambda *_: Watching(stopping=lambda: True))
    assert stopped.outcome.stopped
    assert stopped.outcome.records == 0
    found = replay(settings, spec, options)
    assert not found.outcome.stopped
    assert states(settings, found) == {
        user: one["state"] for user, one in json.loads(RESULTS.read_text())["users"].items()
    }


def test_what_is_no_event_stops_it_or_is_said(settings: Settings, options: Options, tmp_path: Path) -> None:
    spec = a_log(tmp_path, 60)
    told: list[BadRow] = []
    replay(settings, spec, options, on_bad=told.append)
    assert [(row.file, row.row) for row in told] == [("log.jsonl", 51)]
    strict = LogSpec(sources=spec.sources, bad="stop")
    work = Options(work=str(tmp_path / "strict"), chunk_records=64, processes=1)
    for _ in range(2):  # running it again is safe
        with pytest.raises(ReplayError, match=r"log\.jsonl:51: .*Mend it and run again, or leave it out"):
            replay(settings, strict, work)
    path = Path(spec.sources[0])
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:50], *lines[51:]]))
    assert replay(settings, strict, work).outcome.counts["applied"] > 50


def test_a_model_that_is_not_there_is_said(settings: Settings, options: Options, tmp_path: Path) -> None:
    from model.errors import ArtifactError

    gone = with_values(settings, **{"model.path": str(tmp_path / "gone")})
    with pytest.raises(ArtifactError, match="gone"):
        replay(gone, a_log(tmp_path, 5), options)
