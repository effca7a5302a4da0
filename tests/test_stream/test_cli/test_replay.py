"""`driftline replay`: the golden log and its like through the command."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from stream.engine.partitioner import partition_of
from tests.chaos.world import World
from tests.test_stream.test_replay.golden import FIRST_MS, LOG, RESULTS, golden_settings

GOLDEN = json.loads(RESULTS.read_text())
KINDS = ("applied", "duplicate", "late", "dead_letter", "erased", "rekeyed")
STEP_MS = 120_000
"""From one line of the golden log to the next."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    return Path(golden_settings(folder).model.path)


@pytest.fixture
def here(model: Path, tmp_path: Path) -> tuple[str, ...]:
    """The flags that make it the golden replay."""
    values = {
        "topics.partitions": 3,
        "events.grace_s": 3600,
        "ranking.network_weight": 0,
        "ranking.exclude": "none",
        "ranking.list_size": 24,
        "ranking.trend_refresh_events": 32,
        "state.max_counted_items": 8,
        "state.recent_items": 10,
    }
    sets = [part for name, value in values.items() for part in ("--set", f"{name}={value}")]
    data = ("--data-dir", str(tmp_path / "data"))
    return ("--model", str(model), *data, "--processes", "1", "--chunk-records", "64", *sets)


Replaying = Callable[..., dict[str, Any]]


@pytest.fixture
def replayed(driftline, here: tuple[str, ...]) -> Replaying:
    """replayed("log.jsonl", ...) replays and returns what the command told as JSON."""

    def run(*arguments: str | Path) -> dict[str, Any]:
        done = driftline("replay", *here, *arguments, "-o", "json")
        assert done.code == 0, done.err
        told: dict[str, Any] = json.loads(done.out)
        told["err"] = done.err
        return told

    return run


def lists(told: dict[str, Any]) -> list[dict[str, Any]]:
    """All lists that were made, by partition."""
    paths = sorted((Path(told["out"]) / "lists").glob("*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def users(told: dict[str, Any]) -> set[str]:
    return {made["user_id"] for made in lists(told) if "user_id" in made}


def outputs(told: dict[str, Any]) -> dict[str, bytes]:
    """Its files, but for confirmations of erasures: they name the time at which the replay was begun."""
    out = Path(told["out"])
    paths = [path for path in sorted(out.rglob("*.jsonl")) if path.parent.name != "erasures"]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


# ------------------------------------------------------------------ a log


def test_the_golden_log_is_counted_as_it_must(replayed: Replaying) -> None:
    told = replayed(LOG)
    assert {kind: told[kind] for kind in KINDS if told[kind]} == GOLDEN["counts"]
    assert told["log"] == {name: count for name, count in GOLDEN["log"].items() if count}
    assert sum(told[kind] for kind in KINDS) == told["log"]["given"]
    assert (told["into"], told["records"]) == ("folder", GOLDEN["log"]["given"])
    assert told["lists"] == sum("user_id" in made for made in lists(told))
    assert told["events_per_s"] > 0
    assert "log.jsonl:51: " in told["err"]
    assert f"Replaying into {told['work']}" in told["err"]
    assert Path(told["out"]) == Path(told["work"]) / "out"


def test_a_table_says_it_to_people(driftline, here: tuple[str, ...]) -> None:
    done = driftline("replay", "run", str(LOG), *here)
    assert done.code == 0, done.err
    assert [line.split()[:2] for line in done.out.splitlines() if line.startswith(("applied", "late"))] == [
        ["applied", str(GOLDEN["counts"]["applied"])],
        ["late", str(GOLDEN["counts"]["late"])],
    ]


def test_some_users(replayed: Replaying, tmp_path: Path) -> None:
    told = replayed(LOG, "--users", "u1,u3", "--work", tmp_path / "one")
    assert users(told) == {"u1", "u3"}  # u3 is one of a tenant
    names = tmp_path / "names.txt"
    names.write_text("\ufeffu1\nu3 \n\nu 5\n", encoding="utf-8")
    assert outputs(replayed(LOG, "--users", f"@{names}", "--work", tmp_path / "two")) == outputs(told)


def test_a_limit(replayed: Replaying) -> None:
    told = replayed(LOG, "--limit", "10")
    assert told["records"] == told["log"]["given"] == 10


def test_bounds_are_times_of_events(replayed: Replaying) -> None:
    begin, end = FIRST_MS + 100 * STEP_MS, FIRST_MS + 110 * STEP_MS
    told = replayed(LOG, "--from", f"ts={begin}", "--to", f"ts={end}")
    wanted = 0
    for line in LOG.read_text().splitlines():
        try:
            at_ms = json.loads(line)["occurred_at"]
        except (ValueError, KeyError):
            continue
        wanted += begin <= at_ms < end
    assert told["log"]["given"] == wanted > 5


def test_the_same_command_is_the_same_replay_also_with_a_time_from_now(replayed: Replaying, tmp_path: Path) -> None:
    log = write(tmp_path / "log.jsonl", events(0, 20, occurred_at="2020-01-01T00:00:00Z"))
    first = replayed(log, "--from", "last=3d")
    assert first["log"]["outside"] == 20
    time.sleep(0.01)
    assert replayed(log, "--from", "last=3d")["work"] == first["work"]
    assert replayed(log, "--from", "last=4d")["work"] != first["work"]


def test_a_list_for_each_event(replayed: Replaying, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"  # without the erasure: who is erased has no lists of the same chunk
    log.write_text("".join(line for line in LOG.read_text().splitlines(keepends=True) if "user_erased" not in line))
    told = replayed(log, "--lists", "event")
    assert told["lists"] == told["applied"] == GOLDEN["counts"]["applied"]
    assert len({made["recommendation_id"] for made in lists(told) if "user_id" in made}) == told["applied"]


def test_states_alone(replayed: Replaying) -> None:
    told = replayed(LOG, "--lists", "none")
    assert told["lists"] == 0
    assert users(told) == set()
    assert told["applied"] == GOLDEN["counts"]["applied"]


def test_columns_are_mapped(replayed: Replaying, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("visitor,thing,at\n" + "".join(f"v{n % 3},i{n},{FIRST_MS + n * STEP_MS}\n" for n in range(9)))
    maps = ("--map", "user=visitor", "--map", "item=thing", "--map", "time=at")
    told = replayed(path, *maps, "--event-type", "view")
    assert (told["applied"], users(told)) == (9, {"v0", "v1", "v2"})


def test_a_preset_is_told_by_content_or_named(replayed: Replaying, tmp_path: Path) -> None:
    path = tmp_path / "UserBehavior.csv"
    path.write_text("".join(f"u{n % 3},i{n},c1,pv,{FIRST_MS // 1000 + n}\n" for n in range(9)))
    told = replayed(path, "--preset", "taobao", "--work", tmp_path / "named")
    assert (told["applied"], users(told)) == (9, {"u0", "u1", "u2"})


def test_events_judge_the_lists_before_them(replayed: Replaying) -> None:
    told = replayed(LOG, "--judge")
    answers = [
        json.loads(line)["value"]
        for path in (Path(told["out"]) / "answers").glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]
    assert sum(len(one["offset"]) for one in answers) > 200
    assert max(max(one["rank"], default=0) for one in answers) > 1


# ------------------------------------------------------------------ shared, again, compared


def test_two_shares_are_the_whole(replayed: Replaying, tmp_path: Path) -> None:
    whole = replayed(LOG)
    first = replayed(LOG, "--share", "1/2", "--work", tmp_path / "shared")
    second = replayed(LOG, "--share", "2/2", "--work", tmp_path / "shared")
    assert outputs(second) == outputs(whole)
    for kind in (*KINDS, "lists"):
        assert first[kind] + second[kind] == whole[kind]


def test_again_it_does_nothing_and_fresh_does_it_all(replayed: Replaying) -> None:
    first = replayed(LOG)
    made = outputs(first)
    again = replayed(LOG)
    assert outputs(again) == made
    fresh = replayed(LOG, "--fresh")
    assert outputs(fresh) == made
    assert [again[kind] for kind in KINDS] == [fresh[kind] for kind in KINDS] == [first[kind] for kind in KINDS]


def test_two_replays_are_compared(replayed: Replaying, tmp_path: Path) -> None:
    first = replayed(LOG, "--judge", "--work", tmp_path / "a")
    page = tmp_path / "report.html"
    same = replayed(LOG, "--judge", "--work", tmp_path / "b", "--diff", first["out"])
    assert same["diff"]["diff"]["changed"] == 0
    flags = ("--set", "ranking.popularity_weight=5", "--work", tmp_path / "c")
    other = replayed(LOG, "--judge", *flags, "--diff", first["out"], "--report", page)
    assert other["diff"]["diff"]["changed"] > 0.5
    assert other["diff"]["quality"]["questions"] > 200
    assert "<html" in page.read_text()
    assert f"The report is in {page}." in other["err"]


# ------------------------------------------------------------------ stopped, paused, and gone on with


def test_it_waits_goes_on_and_is_stopped_by_ctrl_c(
    driftline, replayed: Replaying, here: tuple[str, ...], tmp_path: Path
) -> None:
    """Begun with a line, paused; the same command waits, goes on, is stopped, and ends as if nothing had been."""
    log, work = tmp_path / "log.jsonl", tmp_path / "work"
    text = LOG.read_text()
    log.write_text(text[: text.index("\n") + 1])
    small = ("--chunk-records", "8", "--work", str(work))
    replayed(log, *small)
    log.write_text(text)
    assert driftline("replay", "pause", str(work)).code == 0

    def size() -> int:
        return sum(path.stat().st_size for path in (work / "out").rglob("*.jsonl"))

    before = size()
    command = [sys.executable, "-m", "stream.cli", "replay", str(log), *here, *small, "--speed", "4000x"]
    environ = {**os.environ, "PYTHONPATH": os.getcwd()}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environ, **pipes) as process:
        try:
            assert process.stderr is not None
            assert "Replaying into" in process.stderr.readline()
            time.sleep(2.0)
            assert process.poll() is None, process.communicate()
            assert size() == before  # a line is no chunk, and no more may come
            assert driftline("replay", "resume", str(work)).code == 0
            until_s = time.monotonic() + 60
            while size() == before and process.poll() is None and time.monotonic() < until_s:
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
            assert size() > before, err
        finally:
            process.kill()
    assert process.returncode == 1, err
    assert "Stopping after what is in hand" in err
    assert "Stopped. The same command goes on where this one was." in err
    assert "Traceback" not in err
    assert "records" in out
    told = replayed(log, *small)
    assert {kind: told[kind] for kind in KINDS if told[kind]} == GOLDEN["counts"]
    whole = replayed(LOG, "--chunk-records", "8", "--work", tmp_path / "whole")
    assert last(lists(told)) == last(lists(whole))


def last(made: list[dict[str, Any]]) -> dict[str, Any]:
    return {f"{one.get('tenant')}/{one['user_id']}": one["items"] for one in made if "user_id" in one}


@pytest.mark.parametrize("what", ["pause", "resume"])
def test_only_a_replay_can_be_paused(driftline, tmp_path: Path, what: str) -> None:
    done = driftline("replay", what, str(tmp_path / "none"))
    assert done.code == 2
    assert "holds no replay" in done.err


# ------------------------------------------------------------------ what does not go together


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--into", "nowhere"), "--into nowhere is none of folder, shadow, state, live"),
        (("--share", "3/2"), "--share 3/2 is no K/N"),
        (("--share", "0/2"), "--share 0/2 is no K/N"),
        (("--share", "4/4"), "only 3 partitions"),
        (("--share", "1/2", "--fresh"), "forget what other shares did"),
        (("--speed", "fast"), "--speed fast is none of max"),
        (("--speed", "0x"), "--speed 0x is none of max"),
        (("--order", "random"), "--order random is none of log, time"),
        (("--bad", "keep"), "--bad keep is none of skip, stop"),
        (("--from", "offset=3"), "times of events"),
        (("--from", "latest"), "times of events"),
        (("--verify",), "give topic:NAME alone"),
        (("--into", "shadow", "--diff", "live"), "look at lists in a folder"),
        (("--into", "live", "--judge"), "look at lists in a folder"),
        (("--then", "latest"), "--then is for --into state"),
        (("--into", "state", "--share", "1/2"), "needs all partitions"),
        (("--diff", "live", "--report", "/nowhere/at/all.html"), "give a file in a folder that is there"),
        (("--preset", "nosuch"), "nosuch"),
        (("--map", "nosuch=column"), "nosuch"),
        (("--users", "@/nowhere/at/all"), "Give @FILE"),
        (("--set", "worker.lists=nosuch"), "worker.lists"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_work_is_refused(driftline, here: tuple[str, ...], tmp_path: Path, flags, said: str) -> None:
    done = driftline("replay", str(LOG), *flags, *here[:4], *here[8:])
    assert done.code == 2, done.err
    assert said in " ".join(done.err.split())
    assert not list(tmp_path.rglob("*.db"))


@pytest.mark.parametrize("flags", [("--to", "ts=2026-01-01T00:00:00Z"), ("--limit", "5")], ids=" ".join)
def test_a_state_of_some_of_the_records_is_refused(
    driftline, there: tuple[str, str], here: tuple[str, ...], flags: tuple[str, str]
) -> None:
    """Live would go on behind records that are not in it."""
    done = driftline("replay", "topic:driftline.events.v1", "--into", "state", *flags, *there, *here)
    assert done.code == 2
    assert "leave out --then, --limit, --users and --to ts=TIME" in done.err


@pytest.mark.parametrize("source", ["nowhere.jsonl", "*.nothing", "empty", "topic:x"])
def test_a_log_that_is_not_there_leaves_nothing(
    driftline, here: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    done = driftline("replay", source, "--work", "work", "--bootstrap-servers", "127.0.0.1:1", *here)
    assert done.code in (1, 2)
    assert source in done.err or "127.0.0.1:1" in done.err
    assert not Path("work").exists()
    done = driftline("replay", str(LOG), "--work", "work", *here)  # what was meant
    assert done.code == 0, done.err


def test_a_model_that_is_not_there(driftline, here: tuple[str, ...], tmp_path: Path) -> None:
    done = driftline("replay", str(LOG), *here, "--model", str(tmp_path / "gone"))
    assert done.code != 0
    assert "gone" in done.err
    assert "Traceback" not in done.err


# ------------------------------------------------------------------ bad input


def events(begin: int, end: int, **more: Any) -> list[str]:
    return [
        json.dumps(
            {
                "event_id": f"n{n}",
                "event_type": "view",
                "occurred_at": FIRST_MS + n * 1_000,
                "user_id": f"u{n % 5}",
                "item_id": f"i{n % 24}",
            }
            | more
        )
        for n in range(begin, end)
    ]


def write(path: Path, lines: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def refused(driftline, here: tuple[str, ...], *arguments: str | Path) -> str:
    """Ends with 1 and says why, twice alike: running again is safe."""
    said = []
    for _ in range(2):
        done = driftline("replay", *arguments, "--bad", "stop", *here)
        assert done.code == 1, done.err
        assert "Traceback" not in done.err
        said.append([line for line in done.err.splitlines() if "Replaying" not in line])
    assert said[0] == said[1]
    return " ".join(said[0])


def test_an_unsorted_file_is_replayed_and_counted(driftline, replayed: Replaying, tmp_path: Path) -> None:
    lines = events(0, 100)
    lines[10], lines[60] = lines[60], lines[10]
    path = write(tmp_path / "log.jsonl", lines)
    told = replayed(path)
    assert (told["log"]["unsorted"], told["applied"]) == (2, 100)
    assert "driftline: log.jsonl:12: " in told["err"]
    assert "(unsorted: 2 in all)" in told["err"]
    shown = driftline("replay", "inspect", str(path), "-o", "json")
    assert json.loads(shown.out)["unsorted"]["first"][0].startswith("log.jsonl:12: ")


def test_mixed_zones_are_said(driftline, replayed: Replaying, tmp_path: Path) -> None:
    lines = [*events(0, 5, occurred_at="2025-06-15T12:00:00+02:00"), *events(5, 9, occurred_at="2025-06-15T12:00:00")]
    path = write(tmp_path / "log.jsonl", lines)
    told = replayed(path)
    assert (told["log"]["mixed_zones"], told["applied"]) == (1, 9)
    shown = driftline("replay", "inspect", str(path), "-o", "json")
    (first,) = json.loads(shown.out)["mixed_zones"]["first"]
    assert "row 1 names a zone; that of row 6 does not" in first


@pytest.fixture
def truncated(tmp_path: Path) -> Path:
    """A folder whose second file of three breaks off."""
    folder = tmp_path / "logs"
    write(folder / "1.jsonl", events(0, 50))
    whole = gzip.compress("".join(f"{line}\n" for line in events(50, 5_000)).encode())
    (folder / "2.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    write(folder / "3.jsonl", events(5_000, 5_100))
    return folder


def test_a_truncated_gzip_is_left_off_and_the_rest_goes_on(replayed: Replaying, truncated: Path) -> None:
    told = replayed(truncated)
    assert told["log"]["bad.rest_of_file"] == 1
    assert "2.jsonl.gz" in told["err"]
    assert 150 < told["applied"] < 5_100
    made = outputs(told)
    assert outputs(replayed(truncated)) == made  # running again is safe


def test_a_truncated_gzip_stops_it(driftline, replayed: Replaying, here, truncated: Path) -> None:
    assert "2.jsonl.gz" in refused(driftline, here, truncated)
    write(truncated / "2.jsonl", events(50, 5_000))
    (truncated / "2.jsonl.gz").unlink()
    assert replayed(truncated, "--bad", "stop")["applied"] == 5_100


def test_a_schema_that_changes_in_the_middle_of_a_folder(driftline, replayed: Replaying, here, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    head = "user_id,item_id,event_type,occurred_at"
    for day in range(3):
        lines = [f"u{n},i{n},view,{FIRST_MS + (day * 10 + n) * 1000}" for n in range(10)]
        write(
            folder / f"date=2025-06-1{day}" / "log.csv",
            [head.replace("user_id", "member") if day == 1 else head, *lines],
        )
    told = replayed(folder)
    assert (told["applied"], told["log"]["bad.file"]) == (20, 1)
    for said in (told["err"], refused(driftline, here, folder)):
        assert "date=2025-06-11/log.csv has no column for a user. It has: member, item_id" in " ".join(said.split())


def test_a_file_that_is_there_twice_counts_once(replayed: Replaying, tmp_path: Path) -> None:
    write(tmp_path / "logs" / "a.jsonl", events(0, 50))
    write(tmp_path / "logs" / "b.jsonl", events(0, 50))
    write(tmp_path / "logs" / "c.jsonl", events(50, 60))
    told = replayed(tmp_path / "logs")
    assert (told["applied"], told["duplicate"], told["log"]["duplicate_files"]) == (60, 0, 1)
    assert "b.jsonl: is the same as " in told["err"]


def test_a_missing_column_is_refused_with_those_there(driftline, here, tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", ["visitor,item_id,event_type,occurred_at", f"u1,i1,view,{FIRST_MS}"])
    done = driftline("replay", str(path), "--work", str(tmp_path / "work"), *here)
    assert done.code == 2
    said = " ".join(done.err.split())
    assert "log.csv has no column for a user. It has: visitor, item_id, event_type, occurred_at." in said
    assert "--map user_id=COLUMN" in said
    done = driftline("replay", str(path), "--work", str(tmp_path / "work"), "--map", "user=visitor", *here)
    assert done.code == 0, done.err


def test_a_row_that_is_no_event_stops_it(driftline, replayed: Replaying, here, tmp_path: Path) -> None:
    lines = events(0, 40)
    path = write(tmp_path / "log.jsonl", [*lines[:30], "no event", *lines[30:]])
    assert "log.jsonl:31: " in refused(driftline, here, path)
    write(path, lines)
    assert replayed(path, "--bad", "stop")["applied"] == 40


def test_inspect_says_before_anything_runs(driftline, here, tmp_path: Path) -> None:
    done = driftline(
        "replay", "inspect", str(LOG), "--set", "topics.partitions=3", "--set", "events.grace_s=3600", "-o", "json"
    )
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["rows"]["read"] == 400
    assert found["rows"]["users"] == len(GOLDEN["users"])
    assert sum(one["count"] for one in found["rejected"].values()) == 4
    assert found["late"]["count"] == GOLDEN["counts"]["late"]
    assert driftline("replay", "inspect", str(LOG)).out.count("view") > 0
    assert not list(tmp_path.rglob("*.db"))


@pytest.mark.slow
@pytest.mark.kafka
def test_offsets_that_retention_deleted(driftline, kafka: str, tmp_path: Path) -> None:
    """Offsets 0 to 59 of partition 1 are gone: said, counted, the rest goes on; or the run stops."""
    world = World(kafka, tmp_path, partitions=2)
    topic = world.settings.topics.events
    producer = Producer(world.settings.client_properties())
    for number in range(2):
        for line in events(0, 100, user_id=USER_OF[number]):
            producer.produce(topic, line, USER_OF[number], partition=number)
    assert producer.flush(30) == 0
    admin = AdminClient({"bootstrap.servers": kafka})
    for deleted in admin.delete_records([TopicPartition(topic, 1, 60)]).values():
        deleted.result(30)
    sets = [part for name, value in world.values.items() for part in ("--set", f"{name}={value}")]
    flags = (*sets, "--data-dir", str(tmp_path / "data"), "--processes", "1", "-o", "json")
    source = ("replay", f"topic:{topic}", "--from", "offset=0")

    for _ in range(2):
        stopped = driftline(*source, *flags, "--bad", "stop")
        assert stopped.code == 1
        assert f"{topic}, partition 1: offsets 0 to 59 (60) were deleted by retention" in stopped.err
    made = []
    for _ in range(2):
        done = driftline(*source, *flags)
        assert done.code == 0, done.err
        told = json.loads(done.out)
        assert (told["applied"], told["late"]) == (140, 0)
        made.append(outputs(told))
        if len(made) == 1:
            assert f"{topic}, partition 1: offsets 0 to 59 (60) were deleted by retention" in done.err
            assert (told["records"], told["log"]["bad.gone"]) == (140, 1)
    assert made[0] == made[1]
    stopped = driftline(*source[:2], *flags, "--bad", "stop")  # from the earliest that is there
    assert stopped.code == 0, stopped.err
    assert json.loads(stopped.out)["applied"] == 140


USER_OF = {partition_of(user.encode(), 2): user for user in ("u0", "u1", "u2", "u3", "u4", "u5", "u6", "u7")}
"""A user of each of two partitions."""

# ------------------------------------------------------------------ known data in their own layouts

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"


def lines_of(path: Path) -> list[str]:
    with gzip.open(path, "rt") as file:
        return file.read().splitlines()


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "taobao").exists(), reason="Taobao is not in ../shared/data")
def test_taobao_in_its_own_layout(replayed: Replaying) -> None:
    path = DATA / "taobao" / "small_sample.csv.gz"
    count = len(lines_of(path))
    told = replayed(path, "--lists", "none", "--set", "events.late_policy=admit")
    assert told["log"]["read"] == told["log"]["given"] == told["records"] == count
    assert told["applied"] + told["duplicate"] == count
    assert "left out" not in told["err"]


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "ml-1m").exists(), reason="ML-1M is not in ../shared/data")
def test_ml_1m_in_its_own_layout(replayed: Replaying) -> None:
    path = DATA / "ml-1m" / "ml-1m.txt.gz"
    count = sum(len(line.split()) for line in lines_of(path))
    told = replayed(path, "--lists", "none")
    assert told["log"]["given"] == told["records"] == told["applied"] == count
    assert told["duplicate"] == told["late"] == 0
