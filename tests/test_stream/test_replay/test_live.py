"""A log onto the events topic: in order, once, however often it was stopped or killed."""

import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from stream.brokers import EmbeddedBroker
from stream.engine.partitioner import partition_of
from stream.errors import RefusedError, ReplayError, TopicError
from stream.replay import live as module
from stream.replay.live import LiveCounts, group_of, replay_live
from stream.replay.pace import Pace
from stream.replay.rows import Row
from stream.replay.topic_range import TopicRange
from stream.settings import Settings, load_settings

AT_MS = 1_767_323_045_000
PARTITIONS = 4
NAMES = ["log.jsonl"]


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def live(request: pytest.FixtureRequest) -> Settings:
    """Settings whose events topic is there and empty."""
    if request.param == "embedded":
        broker: EmbeddedBroker = request.getfixturevalue("embedded")
        settings = settings_of(broker.bootstrap_servers)
        broker.create_topic(settings.topics.events, PARTITIONS)
        return settings
    return on_kafka(request.getfixturevalue("kafka"))


def settings_of(address: str) -> Settings:
    events = f"events-{uuid.uuid4().hex[:8]}"
    return load_settings(overrides={"kafka.bootstrap_servers": address, "topics.events": events}, environ={})


def on_kafka(address: str) -> Settings:
    settings = settings_of(address)
    create(settings, settings.topics.events)
    return settings


def create(settings: Settings, name: str) -> None:
    admin = AdminClient(settings.client_properties())
    admin.create_topics([NewTopic(name, PARTITIONS, 1)])[name].result(20)


def row(number: int, **more: Any) -> Row:
    user = f"u{number % 7}".encode()
    return Row(msgspec.json.encode({"event_id": f"e{number}"}), user, AT_MS + number * 1000, number + 1, **more)


def blocks(begin: int, end: int, size: int = 100) -> Iterator[list[Row]]:
    for at in range(begin, end, size):
        yield [row(number) for number in range(at, min(at + size, end))]


def run(settings: Settings, rows: int, replay_id: str = "r", **more: Any) -> LiveCounts:
    return replay_live(settings, blocks(0, rows), NAMES, replay_id=replay_id, **more)


def produced(settings: Settings) -> list[Row]:
    """What is on the events topic: committed records, in order within each partition."""
    return [row for block in TopicRange(settings, settings.topics.events).blocks({}) for row in block]


def check_once_in_order(settings: Settings, rows: int) -> None:
    found = produced(settings)
    assert len(found) == rows
    for partition in range(PARTITIONS):
        expected = [n for n in range(rows) if partition_of(row(n).key, PARTITIONS) == partition]
        assert [at.value for at in found if at.partition == partition] == [row(n).value for n in expected]


def test_rows_go_out_as_they_are(live: Settings) -> None:
    told: list[int] = []
    counts = run(live, 1000, on_progress=lambda counts: told.append(counts.sent))
    check_once_in_order(live, 1000)
    assert (counts.sent, counts.before, counts.stopped) == (1000, 0, False)
    assert counts.newest_ms == AT_MS + 999_000
    assert told == [1000]
    assert counts.seconds > 0


def test_again_sends_nothing_and_further_only_what_is_new(live: Settings) -> None:
    run(live, 500)
    assert run(live, 500) == LiveCounts(0, 500, exactly_once=run(live, 500).exactly_once)
    assert run(live, 700).sent == 200
    check_once_in_order(live, 700)
    assert run(live, 10, "another").sent == 10


def test_a_log_that_has_changed(live: Settings) -> None:
    run(live, 500)
    other = (block[1:] for block in blocks(0, 600))
    message = r"log.jsonl, row 506: is not what this replay sent there before. The log has changed"
    with pytest.raises(ReplayError, match=message):
        replay_live(live, other, NAMES, replay_id="r")
    check_once_in_order(live, 500)


def test_stopping(live: Settings) -> None:
    log = blocks(0, 40_000, 4000)
    stop = False

    def progress(counts: LiveCounts) -> None:
        nonlocal stop
        stop = counts.sent >= 10_000

    counts = replay_live(live, log, NAMES, replay_id="r", on_progress=progress, stopping=lambda: stop)
    assert counts.stopped
    assert 10_000 <= counts.sent < 20_000
    rest = replay_live(live, blocks(0, 40_000, 3000), NAMES, replay_id="r")
    assert rest.before == counts.sent
    check_once_in_order(live, 40_000)


def test_an_error_in_the_log_loses_nothing(live: Settings) -> None:
    def breaks() -> Iterator[list[Row]]:
        yield from blocks(0, 20_000, 1000)
        raise ReplayError("broken")

    with pytest.raises(ReplayError, match="broken"):
        replay_live(live, breaks(), NAMES, replay_id="r")
    run(live, 21_000)
    check_once_in_order(live, 21_000)


def test_a_topic_as_log(live: Settings, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on by the topic's own offsets: how partitions take turns may differ from run to run."""
    source = f"old-{uuid.uuid4().hex[:8]}"
    if "kafka" in request.node.callspec.id:
        create(live, source)
    else:
        request.getfixturevalue("embedded").create_topic(source, PARTITIONS)
    log = [
        [row(n, partition=n % 3, offset=n // 3, headers=[("h", b"x")]) for n in range(at, at + 30)]
        for at in range(0, 300, 30)
    ]
    monkeypatch.setattr(module, "_ROWS", 100)
    stops = iter([False, True])
    first = replay_live(live, log, [source], replay_id="r", stopping=lambda: next(stops))
    assert first.sent == 120
    by_partition = [[at for block in log for at in block if at.partition == partition] for partition in (2, 0, 1)]
    second = replay_live(live, by_partition, [source], replay_id="r")
    assert (second.before, second.sent) == (120, 180)
    found = produced(live)
    assert sorted(at.value or b"" for at in found) == sorted(row(n).value or b"" for n in range(300))
    assert found[0].headers == [("h", b"x")]


def test_what_kafka_has_forgotten_is_said(live: Settings, tmp_path: Path) -> None:
    marker = tmp_path / "sent"
    assert run(live, 0, marker=marker).sent == 0
    assert not marker.exists()
    run(live, 100, marker=marker)
    assert run(live, 200, marker=marker).sent == 100
    with pytest.raises(ReplayError, match="Kafka has forgotten how many"):  # a group that is as if it had been deleted
        run(live, 200, "forgotten", marker=marker)
    check_once_in_order(live, 200)


def test_pace(live: Settings) -> None:
    """At 10x ten events a second: those of a tenth of a second go together, and none comes before it is due."""
    seen: list[tuple[float, int]] = []
    began_s = time.monotonic()
    log = ([row(n) for n in range(at, at + 5)] for at in range(0, 20, 5))
    counts = replay_live(
        live,
        log,
        NAMES,
        replay_id="r",
        pace=Pace(10.0),
        on_progress=lambda counts: seen.append((time.monotonic() - began_s, counts.sent)),
    )
    assert counts.sent == 20
    assert len(seen) >= 8
    assert time.monotonic() - began_s >= 1.9
    for at_s, sent in seen:
        assert (sent - 1) / 10 <= at_s


def test_a_pause_holds_back(live: Settings) -> None:
    paused_until_s = time.monotonic() + 0.6
    seen: list[float] = []
    run(
        live,
        5,
        pace=Pace(paused=lambda: time.monotonic() < paused_until_s),
        on_progress=lambda _: seen.append(time.monotonic()),
    )
    assert seen[0] >= paused_until_s


def test_what_is_refused(live: Settings) -> None:
    with pytest.raises(RefusedError, match="would read what it writes"):
        replay_live(live, [], [live.topics.events], replay_id="r")
    missing = settings_of(live.kafka.bootstrap_servers)
    with pytest.raises(TopicError, match="is missing"):
        run(missing, 1)
    group = load_settings(
        overrides={
            "kafka.bootstrap_servers": live.kafka.bootstrap_servers,
            "topics.events": live.topics.events,
            "worker.group": group_of("r"),
        },
        environ={},
    )
    with pytest.raises(RefusedError, match="offsets of driftline-replay-r"):
        run(group, 1)


def test_exactly_once_is_said(live: Settings, request: pytest.FixtureRequest) -> None:
    assert run(live, 1).exactly_once == ("kafka" in request.node.callspec.id)


# --- what only a real Kafka does


@pytest.mark.kafka
def test_another_run_of_the_same_replay_ends_this_one(kafka: str) -> None:
    settings = on_kafka(kafka)

    def overtaken() -> Iterator[list[Row]]:
        yield from blocks(0, 20_000, 2000)
        run(settings, 30_000)
        yield from blocks(20_000, 30_000, 2000)

    with pytest.raises(ReplayError, match="Is another run of it going on"):
        replay_live(settings, overtaken(), NAMES, replay_id="r")
    check_once_in_order(settings, 30_000)


@pytest.mark.kafka
def test_a_row_that_the_topic_refuses(kafka: str) -> None:
    settings = settings_of(kafka)
    admin = AdminClient(settings.client_properties())
    small = NewTopic(settings.topics.events, 1, 1, config={"max.message.bytes": "500"})
    admin.create_topics([small])[settings.topics.events].result(20)
    log = [[row(0), row(1)._replace(value=random.Random(1).randbytes(2000))]]
    with pytest.raises(ReplayError, match="too large"):
        replay_live(settings, log, NAMES, replay_id="r")
    assert produced(settings) == []


KILLED = """
import sys
sys.path.insert(0, {folder!r})
from test_live import blocks, NAMES
from stream.replay.live import replay_live
from stream.settings import load_settings
settings = load_settings(
    overrides={{"kafka.bootstrap_servers": {address!r}, "topics.events": {events!r}}}, environ={{}}
)
def told(counts):
    print(counts.before, counts.sent, flush=True)
replay_live(settings, blocks(0, {rows}, 1000), NAMES, replay_id="r", on_progress=told)
"""


@pytest.mark.slow
@pytest.mark.kafka
def test_killed_five_times(kafka: str) -> None:
    settings, rows = on_kafka(kafka), 200_000
    program = KILLED.format(folder=str(Path(__file__).parent), address=kafka, events=settings.topics.events, rows=rows)
    draw = random.Random()
    for _ in range(5):
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline()  # at least one transaction is committed
            time.sleep(draw.random() * 0.2)
            process.send_signal(signal.SIGKILL)
    done = run(settings, rows)
    assert done.before >= 50_000
    assert done.before + done.sent == rows
    check_once_in_order(settings, rows)
