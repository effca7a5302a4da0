"""What the interest agent makes of a chunk; no broker, no Faust."""

from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from model.artifact import untrained_artifact
from model.recommender import Recommender
from state.codec import decode_state
from stream.agents.interest import InterestAgent
from stream.contract.control import ERROR_OFFSET, ERROR_REASON, ERROR_STAGE
from stream.contract.recommendation import Recommendation, decode_recommendation
from stream.engine.chunk import Chunk
from stream.metrics import Metrics
from stream.settings import Settings, load_settings
from tests.test_stream.test_agents.records import FakePartition, Record, event

LISTS = "driftline.recommendations.v1"
DEAD = "driftline.events.v1.dlq"
REKEY = "driftline.events.v1.rekey"


class Bench:
    """An agent with its counters and one partition."""

    def __init__(self, **overrides: Any) -> None:
        self.settings: Settings = load_settings(overrides=overrides, environ={})
        self.metrics = Metrics(CollectorRegistry())
        artifact = untrained_artifact(
            [f"i{n}" for n in range(60)], [f"c{n % 6}" for n in range(60)], dim=8, hidden=8, seed=1
        )
        recommender = Recommender(artifact, self.settings.state_settings(), self.settings.ranking_settings())
        self.agent = InterestAgent(self.settings, recommender, self.metrics, now_ms=lambda: 1_780_000_100_000)
        self.partition = FakePartition()

    def process(self, *records: Record, partitions: int = 1) -> Chunk:
        chunk = self.partition.chunk(list(records))
        with chunk:
            self.agent.process([chunk], partitions)
        return chunk

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
def bench() -> Bench:
    return Bench()


def _lists(chunk: Chunk) -> list[Recommendation]:
    return [decode_recommendation(value or b"") for topic, value, *_ in chunk.sends if topic == LISTS]


def _dead(chunk: Chunk) -> list[tuple[bytes | None, bytes | None, dict[str, bytes | None]]]:
    return [(key, value, dict(headers or [])) for topic, value, key, _, headers in chunk.sends if topic == DEAD]


def test_an_event_makes_a_state_and_a_list(bench: Bench) -> None:
    chunk = bench.process(event("ann", "i3", 0))
    (made,) = _lists(chunk)
    assert (made.user_id, made.events_applied, made.trigger_event_id) == ("ann", 1, "e0")
    assert (made.source.topic, made.source.partition, made.source.offset) == ("driftline.events.v1", 0, 0)
    assert len(made.items) == 20
    assert all(item.reasons for item in made.items)
    assert [item.rank for item in made.items] == list(range(1, 21))
    assert "i3" not in {item.item_id for item in made.items}  # seen
    state = decode_state(dict(chunk.puts)[b"ann"] or b"")
    assert state.events_applied == 1


def test_a_user_with_several_events_in_a_chunk_gets_one_list(bench: Bench) -> None:
    chunk = bench.process(event("ann", "i3", 0), event("bob", "i4", 1), event("ann", "i5", 2))
    assert {m.user_id: (m.events_applied, m.source.offset) for m in _lists(chunk)} == {"bob": (1, 1), "ann": (2, 2)}


def test_with_lists_for_each_event_every_event_gets_its_own() -> None:
    bench = Bench(**{"worker.lists": "event"})
    chunk = bench.process(event("ann", "i3", 0), event("ann", "i5", 1), event("ann", "i7", 2))
    assert [(m.events_applied, m.trigger_event_id) for m in _lists(chunk)] == [(1, "e0"), (2, "e1"), (3, "e2")]


def test_the_list_goes_to_the_partition_of_its_event(bench: Bench) -> None:
    chunk = bench.process(event("ann", "i3", 0))
    assert [(key, to) for topic, _, key, to, _ in chunk.sends if topic == LISTS] == [(b"ann", 0)]


def test_state_goes_on_from_the_store(bench: Bench) -> None:
    bench.partition.commit(bench.process(event("ann", "i3", 0)))
    (made,) = _lists(bench.process(event("ann", "i5", 1)))
    assert made.events_applied == 2


def test_an_event_sent_twice_counts_once_and_is_counted(bench: Bench) -> None:
    bench.partition.commit(bench.process(event("ann", "i3", 0)))
    again = event("ann", "i3", 1, event_id="e0")
    chunk = bench.process(again)
    assert not _lists(chunk)
    assert bench.count("driftline_duplicates_total") == 1
    assert bench.count("driftline_events_total", type="view", outcome="duplicate") == 1
    assert bench.count("driftline_events_total", type="view", outcome="applied") == 1


def test_a_broken_record_is_a_dead_letter_with_its_bytes_and_reason(bench: Bench) -> None:
    broken = Record(b"{not json", b"ann", 7, headers=[("trace", b"\xff")])
    chunk = bench.process(broken, event("ann", "i1", 8))
    ((key, value, headers),) = _dead(chunk)
    assert (key, value) == (b"ann", b"{not json")
    assert headers["trace"] == b"\xff"
    assert headers[ERROR_REASON] == b"not_json"
    assert headers[ERROR_STAGE] == b"decode"
    assert headers[ERROR_OFFSET] == b"7"
    assert bench.count("driftline_dead_letters_total", stage="decode", reason="not_json") == 1
    assert len(_lists(chunk)) == 1


class UnreadableHeaders(Record):
    """A record whose header's name is not UTF-8: confluent-kafka raises SystemError."""

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        if self._headers == []:
            return []
        raise SystemError("returned a result with an exception set")

    def set_headers(self, headers: list[tuple[str, bytes | None]]) -> None:
        self._headers = headers


def test_a_header_whose_name_cannot_be_read_stops_nobody(bench: Bench) -> None:
    good = event("ann", "i1", 7)
    chunk = bench.process(UnreadableHeaders(good.value(), b"ann", 7), event("bob", "i1", 8))
    ((key, value, headers),) = _dead(chunk)
    assert (key, value) == (b"ann", good.value())
    assert headers[ERROR_REASON] == b"bad_header"
    assert [made.user_id for made in _lists(chunk)] == ["bob"]


def test_an_event_under_another_key_is_sent_to_be_rekeyed(bench: Bench) -> None:
    stray = event("ann", "i3", 0, key=b"session-9")
    chunk = bench.process(stray)
    assert [(topic, value, key) for topic, value, key, *_ in chunk.sends] == [(REKEY, stray.value(), b"session-9")]
    assert not chunk.puts
    assert bench.count("driftline_events_total", type="view", outcome="rekeyed") == 1


def test_or_refused_by_setting() -> None:
    bench = Bench(**{"events.mismatched_key": "dead_letter"})
    ((_, _, headers),) = _dead(bench.process(event("ann", "i3", 0, key=b"bob")))
    assert headers[ERROR_REASON] == b"mismatched_key"


def test_a_misplaced_event_is_used_counted_and_the_log_says_what_to_do(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    users = [f"u{n}" for n in range(40)]
    chunk = bench.process(*(event(user, "i3", n) for n, user in enumerate(users)), partitions=4)
    assert len(_lists(chunk)) == 40
    misplaced = bench.count("driftline_misplaced_events_total")
    assert 20 < misplaced < 40  # three of four belong elsewhere
    assert "partitioner=murmur2_random" in caplog.text


def test_a_time_far_ahead_of_the_record_is_refused_whatever_the_clock_says(bench: Bench) -> None:
    ((_, _, headers),) = _dead(bench.process(event("ann", "i3", 0, occurred_at=1_780_000_400_000)))
    assert headers[ERROR_REASON] == b"future_time"


def test_every_record_ends_in_exactly_one_outcome(bench: Bench) -> None:
    bench.process(
        event("ann", "i3", 0),
        event("ann", "i3", 1, event_id="e0"),
        Record(None, b"ann", 2),
        event("ann", "i9", 3, key=None),
    )
    outcomes = {
        sample.labels["outcome"]: sample.value
        for metric in bench.metrics.events.collect()
        for sample in metric.samples
        if sample.name == "driftline_events_total"
    }
    assert outcomes == {"applied": 1, "duplicate": 1, "dead_letter": 1, "rekeyed": 1}


def test_states_do_not_depend_on_the_cut_into_chunks(tmp_path: Path) -> None:
    records = [event(f"u{n % 7}", f"i{n * 13 % 60}", n) for n in range(120)]
    whole, cut = Bench(), Bench()
    whole.partition.commit(whole.process(*records))
    position = 0
    for size in (1, 50, 3, 66):
        cut.partition.commit(cut.process(*records[position : position + size]))
        position += size
    users = [f"u{n}".encode() for n in range(7)]
    assert whole.partition.store.get_many(users) == cut.partition.store.get_many(users)
