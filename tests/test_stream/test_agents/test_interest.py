"""What the interest agent makes of a chunk; no broker, no Faust."""

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import pytest
from prometheus_client import CollectorRegistry

from model.artifact import untrained_artifact
from model.recommender import Recommender
from state.catalog import Catalog, CatalogItem
from state.clock import WATERMARK_KEY, Watermark
from state.codec import decode_state
from state.interest import InterestState
from state.weights import DISLIKE
from state.window import interest_key
from stream.agents.interest import InterestAgent
from stream.contract.control import ERROR_OFFSET, ERROR_REASON, ERROR_STAGE, FIRST_SENT, LATE_BY_MS
from stream.contract.recommendation import Recommendation, decode_recommendation
from stream.engine.chunk import Chunk
from stream.metrics import Metrics
from stream.settings import Settings, load_settings
from tests.test_stream.test_agents.records import FakePartition, Record, event

LISTS = "driftline.recommendations.v1"
DEAD = "driftline.events.v1.dlq"
REKEY = "driftline.events.v1.rekey"


class Bench:
    """An agent with its counters, a catalogue and one partition."""

    def __init__(self, **overrides: Any) -> None:
        self.settings: Settings = load_settings(overrides=overrides, environ={})
        self.metrics = Metrics(CollectorRegistry())
        artifact = untrained_artifact(
            [f"i{n}" for n in range(60)], [f"c{n % 6}" for n in range(60)], dim=8, hidden=8, seed=1
        )
        recommender = Recommender(artifact, self.settings.state_settings(), self.settings.ranking_settings())
        self.catalog = Catalog()
        self.agent = InterestAgent(
            self.settings, recommender, self.metrics, now_ms=lambda: 1_780_000_100_000, catalog=self.catalog
        )
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


# ------------------------------------------------------------------ event time

LATE = "driftline.events.v1.late"
AT_MS = 1_780_000_000_000  # the time of every record
HOUR_MS = 3_600_000


def _late(chunk: Chunk) -> list[tuple[bytes | None, str]]:
    return [
        (key, (dict(headers or [])[LATE_BY_MS] or b"").decode())
        for topic, _, key, _, headers in chunk.sends
        if topic == LATE
    ]


def test_a_late_event_goes_to_the_late_topic_and_changes_nothing() -> None:
    """
    offset   0      1         2         3           grace 1 h
    user    ann    ann       bob       ann
    time     0   -30 min   -61 min   -1 h 1 ms
                   |         |         |
                on time    late      late
    """
    bench = Bench(**{"events.grace_s": 3600})
    early = [event("ann", "i3", 0, occurred_at=AT_MS), event("ann", "i4", 1, occurred_at=AT_MS - HOUR_MS // 2)]
    late = [
        event("bob", "i3", 2, occurred_at=AT_MS - 61 * 60_000),
        event("ann", "i5", 3, occurred_at=AT_MS - HOUR_MS - 1),
    ]
    chunk = bench.process(*early, *late)
    assert _late(chunk) == [(b"bob", "3660000"), (b"ann", "3600001")]
    assert [(made.user_id, made.events_applied) for made in _lists(chunk)] == [("ann", 2)]
    alone = Bench(**{"events.grace_s": 3600})
    assert alone.process(*early).puts == chunk.puts
    assert bench.count("driftline_events_total", type="view", outcome="late") == 2
    assert bench.count("driftline_events_total", type="view", outcome="applied") == 2
    assert bench.count("driftline_late_events_total", outcome="late_topic") == 2


def test_by_setting_a_late_event_is_applied_and_counted() -> None:
    bench = Bench(**{"events.grace_s": 3600, "events.late_policy": "admit"})
    chunk = bench.process(
        event("ann", "i3", 0, occurred_at=AT_MS), event("ann", "i4", 1, occurred_at=AT_MS - 2 * HOUR_MS)
    )
    assert not _late(chunk)
    assert [made.events_applied for made in _lists(chunk)] == [2]
    assert bench.count("driftline_late_events_total", outcome="admitted") == 1
    assert bench.count("driftline_events_total", type="view", outcome="applied") == 2


def test_by_default_a_day_is_no_reason_to_be_late(bench: Bench) -> None:
    chunk = bench.process(
        event("ann", "i3", 0, occurred_at=AT_MS),
        event("ann", "i4", 1, occurred_at=AT_MS - 24 * HOUR_MS),
        event("ann", "i4", 2, occurred_at=AT_MS - 24 * HOUR_MS - 1),
    )
    assert _late(chunk) == [(b"ann", str(24 * HOUR_MS + 1))]


def test_one_clock_ahead_makes_nobody_elses_events_late() -> None:
    bench = Bench(**{"events.grace_s": 0})
    chunk = bench.process(
        event("eve", "i3", 0, occurred_at=AT_MS + 299_000),  # clamped
        event("eve", "i3", 1, occurred_at=AT_MS + HOUR_MS),  # refused
        event("eve", "i3", 2, occurred_at=AT_MS + HOUR_MS, sent_at=AT_MS + HOUR_MS),  # corrected
        event("ann", "i3", 3, occurred_at=AT_MS),
    )
    assert not _late(chunk)
    assert len(_dead(chunk)) == 1
    assert bench.count("driftline_future_events_total", outcome="clamped") == 1
    assert bench.count("driftline_future_events_total", outcome="refused") == 1
    assert bench.count("driftline_skew_corrected_events_total") == 1


def test_which_events_are_late_does_not_depend_on_the_cut_into_chunks_or_on_restarts() -> None:
    times = [AT_MS - (n * 7919 % 600) * 1000 for n in range(120)]
    records = [event(f"u{n % 7}", f"i{n % 60}", n, occurred_at=at) for n, at in enumerate(times)]
    naive = [
        (f"u{n % 7}".encode(), str(max(times[:n]) - at))
        for n, at in enumerate(times)
        if n and max(times[:n]) - at > 300_000
    ]
    assert 20 < len(naive) < 100
    whole, cut = Bench(**{"events.grace_s": 300}), Bench(**{"events.grace_s": 300})
    chunk = whole.process(*records)
    whole.partition.commit(chunk)
    assert _late(chunk) == naive
    found = []
    position = 0
    for size in (1, 50, 3, 66):
        cut.partition.memo.clear()  # another worker, or an aborted transaction
        chunk = cut.process(*records[position : position + size])
        cut.partition.commit(chunk)
        found += _late(chunk)
        position += size
    assert found == naive
    assert list(cut.partition.store.items())
    keys = [f"u{n}".encode() for n in range(7)] + [WATERMARK_KEY]
    assert whole.partition.store.get_many(keys) == cut.partition.store.get_many(keys)


def _state(chunk: Chunk, user: bytes) -> InterestState:
    return decode_state(dict(chunk.puts)[user] or b"")


class TestWithoutAnEventId:
    def test_an_event_sent_twice_counts_once(self, bench: Bench) -> None:
        at_ms = 1_780_000_000_000
        for offset in (0, 1):
            bench.partition.commit(bench.process(event("ann", "i3", offset, event_id=None, occurred_at=at_ms)))
        (made,) = _lists(bench.process(event("ann", "i3", 2, event_id=None, occurred_at=at_ms + 1)))
        assert made.events_applied == 2
        assert made.trigger_event_id.startswith("content-")
        assert bench.count("driftline_duplicates_total") == 1
        assert not bench.count("driftline_duplicate_conflicts_total")

    def test_whenever_it_comes_and_by_whatever_clock(self, bench: Bench) -> None:
        # The sender's clock is an hour ahead and is corrected by when the record came: twice to another time.
        wrong = {"event_id": None, "occurred_at": 1_780_003_600_000, "sent_at": 1_780_003_600_000}
        chunk = bench.process(event("ann", "i3", 0, **wrong), _later(event("ann", "i3", 1, **wrong)))
        assert [made.events_applied for made in _lists(chunk)] == [1]
        assert bench.count("driftline_duplicates_total") == 1


def _later(record: Record) -> Record:
    return Record(record.value(), record.key(), record.offset(), timestamp_ms=1_780_000_009_000)


def test_an_id_used_for_another_event_is_counted_as_a_conflict(bench: Bench) -> None:
    bench.process(event("ann", "i3", 0, event_id="e"), event("ann", "i4", 1, event_id="e"))
    assert bench.count("driftline_duplicates_total") == 1
    assert bench.count("driftline_duplicate_conflicts_total") == 1


@pytest.mark.parametrize(
    ("told", "weight"),
    [
        ({"event_type": "purchase"}, 8.0),
        ({"event_type": "purchase", "quantity": 3}, 16.0),
        ({"event_type": "purchase", "item_id": None, "items": [{"item_id": "i3", "quantity": 3}]}, 16.0),
        ({"event_type": "purchase", "item_id": None, "items": [{"item_id": "i3", "quantity": 3}, "i4"]}, 8.0),
        ({"dwell_ms": 30_000}, 1.0),
        ({"dwell_ms": 1_000}, 0.25),
        ({"event_type": "rating", "value": 5}, 3.0),
        ({"event_type": "rating", "value": 1}, -6.0),
    ],
)
def test_what_an_event_tells_scales_its_weight(bench: Bench, told: dict[str, Any], weight: float) -> None:
    state = _state(bench.process(event("ann", "i3", 0, **told)), b"ann")
    assert state.counted_items(bench.settings.state_settings())[0].count == pytest.approx(weight, rel=1e-5)


def test_nothing_is_recommended_because_of_a_low_rating(bench: Bench) -> None:
    chunk = bench.process(event("ann", "i3", 0, event_type="rating", value=1))
    assert [item.type for item in _state(chunk, b"ann").recent_items()] == [DISLIKE]
    (made,) = _lists(chunk)
    assert "i3" not in {item.item_id for item in made.items}
    assert {reason.type for item in made.items for reason in item.reasons} == {"popular"}


class TestTenants:
    def test_users_of_one_id_are_apart(self, bench: Bench) -> None:
        chunk = bench.process(
            event("ann", "i3", 0),
            event("ann", "i4", 1, tenant="acme", key=b"acme\x1fann", event_id="e0"),
            event("ann", "i5", 2, tenant="bolt", key=b"bolt\x1fann", event_id="e0"),
        )
        assert {(m.user_id, m.tenant, m.events_applied) for m in _lists(chunk)} == {
            ("ann", "", 1),
            ("ann", "acme", 1),
            ("ann", "bolt", 1),
        }
        keys = {key for topic, _, key, *_ in chunk.sends if topic == LISTS}
        assert keys == {b"ann", b"acme\x1fann", b"bolt\x1fann"}
        assert keys <= dict(chunk.puts).keys()

    def test_a_key_without_the_tenant_is_sent_to_be_rekeyed(self, bench: Bench) -> None:
        chunk = bench.process(event("ann", "i4", 0, tenant="acme"))
        assert [topic for topic, *_ in chunk.sends] == [REKEY]

    def test_a_key_of_another_tenant_makes_no_state_of_its_user(self, bench: Bench) -> None:
        chunk = bench.process(event("ann", "i4", 0, tenant="bolt", key=b"acme\x1fann"))
        assert [topic for topic, *_ in chunk.sends] == [REKEY]


def test_an_event_that_waited_hours_for_its_key_is_not_taken_for_one_of_a_clock_behind() -> None:
    """
    first record 12:00 ── rekey topic, its agent away ──> second record 15:00, sent_at 12:00
    """
    sent_ms = AT_MS - 3 * HOUR_MS
    first = [(FIRST_SENT, b"%d" % sent_ms)]
    waited = event("ann", "i3", 0, occurred_at=sent_ms, sent_at=sent_ms)
    record = Record(waited.value(), b"ann", 0, timestamp_ms=AT_MS, headers=first)
    bench = Bench()
    bench.partition.commit(bench.process(record))
    assert bench.count("driftline_skew_corrected_events_total") == 0
    assert Watermark.load(lambda key: bench.partition.store.get_many([key])[0]).time_ms == sent_ms


class TestDomains:
    def _bench(self, **overrides: Any) -> Bench:
        bench = Bench()  # whose model knows no domains
        bench.settings = load_settings(overrides=overrides, environ={})
        artifact = untrained_artifact([f"i{n}" for n in range(60)], dim=8, hidden=8, seed=1)
        domained = dataclasses.replace(artifact, item_domains=["books", "films"] * 30)
        recommender = Recommender(domained, bench.settings.state_settings(), bench.settings.ranking_settings())
        bench.agent = InterestAgent(bench.settings, recommender, bench.metrics, now_ms=lambda: 1_780_000_100_000)
        return bench

    def test_a_list_is_limited_to_that_of_its_event_and_says_so(self) -> None:
        bench = self._bench(**{"ranking.domains": "event"})
        chunk = bench.process(event("ann", "i0", 0, domain="books"), event("ann", "i1", 1, domain="films"))
        (made,) = _lists(chunk)
        assert made.domain == "films"
        assert len(made.items) == 20
        assert all(int(item.item_id[1:]) % 2 for item in made.items)
        assert made.events_applied == 2  # one state: interests span domains

    def test_or_not_by_default(self) -> None:
        (made,) = _lists(self._bench().process(event("ann", "i1", 0, domain="films")))
        assert made.domain == ""
        assert len({int(item.item_id[1:]) % 2 for item in made.items}) == 2


class TestCategories:
    """Whose word counts: the event's, the catalogue's, the model's, or that of earlier events."""

    def interests(self, chunk: Chunk) -> list[str]:
        return [interest.name for made in _lists(chunk) for interest in made.interests]

    def test_the_catalogue_before_the_model(self, bench: Bench) -> None:
        assert self.interests(bench.process(event("ann", "i3", 0))) == ["c3"]
        bench.catalog.upsert(CatalogItem(item_id="i3", category=("Kitchen", "Cups")))
        assert self.interests(bench.process(event("bob", "i3", 1))) == ["Cups"]
        assert self.interests(bench.process(event("cat", "i3", 2, category="Mugs"))) == ["Mugs"]
        many = event("dan", "x", 3, items=[{"item_id": "i3"}])
        assert self.interests(bench.process(many)) == ["Cups"]
        bench.catalog.remove("i3")
        assert self.interests(bench.process(event("eve", "i3", 4))) == ["c3"]

    def test_of_an_item_that_nobody_else_knows_events_are_believed(self, bench: Bench) -> None:
        chunk = bench.process(event("ann", "new", 0, category="Jugs"), event("bob", "new", 1))
        assert self.interests(chunk) == ["Jugs", "Jugs"]
        bench.partition.commit(chunk)
        bench.partition.memo.clear()  # as after a restart
        assert self.interests(bench.process(event("cat", "new", 2))) == ["Jugs"]
        bench.catalog.upsert(CatalogItem(item_id="new", category=("Bowls",)))
        assert self.interests(bench.process(event("dan", "new", 3))) == ["Bowls"]

    def test_what_the_model_or_the_catalogue_knows_is_not_learnt(self, bench: Bench) -> None:
        bench.catalog.upsert(CatalogItem(item_id="new", category=("Bowls",)))
        chunk = bench.process(event("ann", "i3", 0, category="Jugs"), event("ann", "new", 1, category="Jugs"))
        assert not [key for key, _ in chunk.puts if key.startswith(b"\0learnt")]

    def test_it_can_be_turned_off(self) -> None:
        bench = Bench(**{"catalog.learnt_items": 0})
        assert self.interests(bench.process(event("ann", "new", 0, category="Jugs"), event("bob", "new", 1))) == [
            "Jugs"
        ]


class TestKinds:
    """`state.interests`: brands and properties of items make interests beside their categories, or instead."""

    ALL: ClassVar = {"state.interests": "category,brand,properties.color"}

    def found(self, chunk: Chunk) -> list[tuple[str, str]]:
        return [(interest.kind, interest.name) for made in _lists(chunk) for interest in made.interests]

    def test_by_default_there_are_categories_alone(self, bench: Bench) -> None:
        told = event("ann", "i3", 0, brand="Acme", properties={"color": "red"})
        bench.catalog.upsert(CatalogItem(item_id="i3", brand="Other", properties=("blue",)))
        chunk = bench.process(told)
        assert self.found(chunk) == [("", "c3")]
        assert b'"kind"' not in next(value or b"" for topic, value, *_ in chunk.sends if topic == LISTS)

    def test_what_the_event_says_counts(self) -> None:
        bench = Bench(**self.ALL)
        bench.catalog.upsert(CatalogItem(item_id="i3", brand="Other", properties=("blue",)))
        chunk = bench.process(event("ann", "i3", 0, brand="Acme", properties={"color": "red", "size": "L"}))
        assert sorted(self.found(chunk)) == [("", "c3"), ("brand", "Acme"), ("color", "red")]

    def test_else_what_the_catalogue_says(self) -> None:
        bench = Bench(**self.ALL)
        bench.catalog.upsert(CatalogItem(item_id="i3", brand="Other", properties=("blue",)))
        assert sorted(self.found(bench.process(event("ann", "i3", 0)))) == [
            ("", "c3"),
            ("brand", "Other"),
            ("color", "blue"),
        ]
        assert self.found(bench.process(event("bob", "i4", 1))) == [("", "c4")]  # nobody knows them

    def test_of_several_items_each_line_says_its_own(self) -> None:
        bench = Bench(**self.ALL)
        bench.catalog.upsert(CatalogItem(item_id="i4", brand="Other", properties=("blue",)))
        lines = [{"item_id": "i3", "brand": "Acme", "properties": {"color": "red"}}, "i4", {"item_id": "i3"}]
        order = event("ann", "x", 0, event_type="purchase", items=lines, brand="of no line")
        state = decode_state(dict(bench.process(order).puts)[b"ann"] or b"")
        windowing = bench.settings.state_settings().windowing
        weights = {key: each[0] for key, each in windowing.view(state.windows, 1_780_000_000).items()}
        names = [("c3", "", 2), ("c4", "", 1), ("Acme", "brand", 1), ("Other", "brand", 1), ("red", "color", 1)]
        assert weights == {
            interest_key(name, kind): 8.0 * times for name, kind, times in [*names, ("blue", "color", 1)]
        }

    def test_a_category_need_not_be_one_and_is_learnt_all_the_same(self) -> None:
        bench = Bench(**{"state.interests": "brand"})
        chunk = bench.process(event("ann", "new", 0, category="Jugs", brand="Acme"), event("bob", "new", 1))
        assert self.found(chunk) == [("brand", "Acme")]
        assert [key for key, _ in chunk.puts if key.startswith(b"\0learnt")]

    def test_names_are_known_after_a_restart_and_a_brand_is_no_category_of_its_name(self) -> None:
        bench = Bench(**self.ALL)
        bench.partition.commit(bench.process(event("ann", "i3", 0, category="Acme", brand="Acme")))
        bench.partition.memo.clear()
        (made,) = _lists(bench.process(event("ann", "i3", 1, category="Acme")))
        assert [(one.kind, one.name, one.weight) for one in made.interests] == [
            ("", "Acme", 2 * 21.0),
            ("brand", "Acme", 21.0),
        ]
        assert [one.share for one in made.interests] == [0.6667, 0.3333]


class TestByType:
    """Windows and half-lives of a type, from the settings to the list."""

    NOW_MS, DAY_MS = 1_780_000_000_000, 86_400_000

    def test_a_type_counts_in_windows_up_to_its_last(self) -> None:
        bench = Bench(**{"state.last_window": {"view": "session"}, "worker.lists": "event"})
        earlier = self.NOW_MS - self.DAY_MS // 4
        log = [
            event("ann", "i1", 0, occurred_at=earlier),
            event("ann", "i2", 1, event_type="click", occurred_at=earlier),
            event("ann", "i3", 2, event_type="click"),
        ]
        first, second, third = _lists(bench.process(*log))
        assert [(one.name, one.weight) for one in first.interests] == [("c1", 16.0)]
        assert [(one.name, one.weight) for one in second.interests] == [("c2", 42.0), ("c1", 16.0)]
        assert {one.name: one.weight for one in third.interests} == {"c3": 42.0, "c2": 10.0}

    def test_a_purchase_outlasts_the_views_that_are_forgotten_by_then(self) -> None:
        ago = self.NOW_MS - 30 * self.DAY_MS
        log = [
            event("ann", "i1", 0, event_type="purchase", occurred_at=ago),
            *[event("ann", "i2", n, occurred_at=ago) for n in range(1, 21)],
            event("ann", "i3", 21),
        ]
        reasons = {"ranking.exclude": "none", "ranking.personal_weight": 5.0, "ranking.list_size": 2}
        same = Bench(**reasons, **{"state.count_half_life_s": "30d"})
        own = Bench(**reasons, **{"state.count_half_life_s": "30d", "state.count_half_lives_s": {"view": "2d"}})
        chunks = [bench.process(*log) for bench in (same, own)]
        assert [_lists(chunk)[0].items[0].item_id for chunk in chunks] == ["i2", "i1"]
        state = decode_state(dict(chunks[1].puts)[b"ann"] or b"")
        counted = state.counted_items(own.settings.state_settings())
        assert [item.count for item in counted] == pytest.approx([4.0, 20 * 2.0**-15, 1.0], rel=1e-3)
