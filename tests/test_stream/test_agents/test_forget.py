"""Erasure, expiry and pseudonyms in the agent.

offset     0     1            2     3
ann        e0    user_erased  e2    e3        events_applied 1, (nothing), 1, 2
"""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from model.artifact import untrained_artifact
from model.recommender import Recommender
from state.codec import decode_state
from state.erasure import ErasedUsers
from stream.agents.interest import InterestAgent
from stream.contract.control import (
    FIRST_SENT,
    REMOVED_AT,
    REMOVED_BECAUSE,
    ErasureConfirmed,
    decode_erasure,
    user_hash,
)
from stream.contract.recommendation import Recommendation, decode_recommendation
from stream.contract.times import END_MS, FIRST_MS, time_ms
from stream.engine.chunk import Chunk
from stream.metrics import Metrics
from stream.pseudonym import KEY_VARIABLE, Pseudonyms
from stream.settings import load_settings
from tests.test_stream.test_agents.records import FakePartition, Record, event

LISTS = "driftline.recommendations.v1"
ERASURES = "driftline.erasures.v1"
AT_MS = 1_780_000_000_000
DAY_MS = 86_400_000
ARTIFACT = untrained_artifact([f"i{n}" for n in range(60)], [f"c{n % 6}" for n in range(60)], dim=8, hidden=8, seed=1)


class KnownErasures:
    """The erasures topic of a test."""

    def __init__(self) -> None:
        self.users = ErasedUsers()
        self.asked = 0

    def catch_up(self) -> ErasedUsers:
        self.asked += 1
        return self.users


class Bench:
    """An agent with one partition; `process` commits."""

    def __init__(self, **overrides: Any) -> None:
        self.settings = load_settings(overrides={"events.late_policy": "admit", **overrides}, environ={})
        self.metrics = Metrics(CollectorRegistry())
        recommender = Recommender(ARTIFACT, self.settings.state_settings(), self.settings.ranking_settings())
        self.erasures = KnownErasures()
        self.agent = InterestAgent(
            self.settings,
            recommender,
            self.metrics,
            now_ms=lambda: AT_MS + 5_000,
            erasures=self.erasures,  # type: ignore[arg-type]  # what the agent uses of it
        )
        self.partition = FakePartition()

    def process(self, *records: Record, commit: bool = True) -> Chunk:
        chunk = self.partition.chunk(list(records))
        with chunk:
            self.agent.process([chunk], 1)
        if commit:
            self.partition.commit(chunk)
        return chunk

    def value(self, user: str) -> bytes | None:
        return self.partition.store.get_many([user.encode()])[0]

    def applied(self, user: str) -> int | None:
        value = self.value(user)
        return None if value is None else decode_state(value).events_applied

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


def erased(user: str, offset: int, **more: Any) -> Record:
    return event(user, "", offset, event_type="user_erased", **more)


def later(user: str, item: str, offset: int, days: float) -> Record:
    """A view, its record as late as the event."""
    at_ms = AT_MS + int(days * DAY_MS)
    made = event(user, item, offset, occurred_at=at_ms)
    return Record(made.value(), made.key(), offset, timestamp_ms=at_ms)


def lists(chunk: Chunk) -> list[Recommendation | None]:
    """Lists and tombstones of the chunk, in order."""
    return [decode_recommendation(value) if value else None for topic, value, *_ in chunk.sends if topic == LISTS]


def confirmed(chunk: Chunk) -> list[ErasureConfirmed]:
    return [decode_erasure(value or b"") for topic, value, *_ in chunk.sends if topic == ERASURES]


class TestErasure:
    def test_removes_state_and_list_and_confirms(self) -> None:
        bench = Bench()
        bench.process(event("ann", "i3", 0), event("bob", "i4", 1))
        chunk = bench.process(erased("ann", 2))
        assert (b"ann", None) in chunk.puts
        assert [(value, key, to) for topic, value, key, to, _ in chunk.sends if topic == LISTS] == [(None, b"ann", 0)]
        (done,) = confirmed(chunk)
        assert done.user_hash == user_hash(b"ann")
        assert (done.source.topic, done.source.partition, done.source.offset) == ("driftline.events.v1", 0, 2)
        assert [key for topic, _, key, *_ in chunk.sends if topic == ERASURES] == [done.key]
        assert bench.value("ann") is None
        assert bench.applied("bob") == 1
        assert bench.count("driftline_erasures_total") == 1
        assert bench.count("driftline_events_total", type="user_erased", outcome="applied") == 1

    def test_nothing_that_goes_out_then_names_the_user_but_as_a_key(self) -> None:
        chunk = Bench().process(event("ann-7531", "i3", 0), erased("ann-7531", 1))
        assert not any(b"ann-7531" in (value or b"") for _, value, *_ in chunk.sends)
        assert not any(b"ann-7531" in (value or b"") for _, value in chunk.puts)

    def test_before_and_after_it_in_one_chunk(self) -> None:
        bench = Bench()
        chunk = bench.process(event("ann", "i3", 0), erased("ann", 1), event("ann", "i5", 2), event("ann", "i6", 3))
        assert bench.applied("ann") == 2
        gone, made = lists(chunk)
        assert gone is None
        assert made is not None
        assert (made.events_applied, made.source.offset) == (2, 3)

    def test_an_event_id_from_before_it_is_no_duplicate(self) -> None:
        bench = Bench()
        bench.process(event("ann", "i3", 0), erased("ann", 1), event("ann", "i3", 2, event_id="e0"))
        assert bench.applied("ann") == 1

    def test_twice_is_harmless(self) -> None:
        bench = Bench()
        bench.process(event("ann", "i3", 0), erased("ann", 1), erased("ann", 2))
        chunk = bench.process(erased("ann", 3))
        assert bench.value("ann") is None
        assert [done.source.offset for done in confirmed(chunk)] == [3]

    def test_of_a_user_nobody_knows(self) -> None:
        assert len(confirmed(Bench().process(erased("ann", 0)))) == 1

    def test_with_lists_for_each_event_none_from_before_it_is_sent(self) -> None:
        chunk = Bench(**{"worker.lists": "event"}).process(
            event("ann", "i3", 0), erased("ann", 1), event("ann", "i5", 2), event("ann", "i6", 3)
        )
        assert [made and made.events_applied for made in lists(chunk)] == [None, 1, 2]

    def test_states_do_not_depend_on_the_cut_into_chunks(self) -> None:
        records = [
            erased(f"u{n % 5}", n) if n % 17 == 11 else event(f"u{n % 5}", f"i{n * 13 % 60}", n) for n in range(150)
        ]
        whole, cut = Bench(), Bench()
        whole.process(*records)
        position = 0
        for size in (1, 40, 3, 7, 60, 39):
            cut.process(*records[position : position + size])
            position += size
        users = [f"u{n}".encode() for n in range(5)]
        assert cut.partition.store.get_many(users) == whole.partition.store.get_many(users)
        assert cut.agent._trend_of(cut.partition.chunk([])).snapshot == (
            whole.agent._trend_of(whole.partition.chunk([])).snapshot
        )


class TestALogReadAgain:
    def test_events_before_a_confirmed_erasure_make_no_state_on_the_way(self) -> None:
        bench = Bench()
        bench.erasures.users.add(0, user_hash(b"ann"), 2, AT_MS)
        chunk = bench.process(event("ann", "i3", 0), event("bob", "i3", 1))
        assert b"ann" not in dict(chunk.puts)
        assert [made.user_id for made in lists(chunk) if made] == ["bob"]
        assert bench.count("driftline_events_total", type="view", outcome="erased") == 1
        bench.process(erased("ann", 2), event("ann", "i5", 3))
        assert bench.applied("ann") == 1

    def test_the_topic_is_asked_once_for_each_assignment(self) -> None:
        bench = Bench()
        bench.process(event("ann", "i3", 0))
        bench.process(event("ann", "i4", 1))
        assert bench.erasures.asked == 1
        bench.partition.memo.clear()  # reassigned, or a transaction was aborted
        bench.process(event("ann", "i5", 2))
        assert bench.erasures.asked == 2

    def test_an_aborted_chunk_is_read_again_as_it_was(self) -> None:
        bench = Bench()
        records = event("ann", "i3", 0), erased("ann", 1), event("ann", "i5", 2)
        first = bench.process(*records, commit=False)
        bench.partition.memo.clear()
        again = bench.process(*records)
        assert again.puts == first.puts
        assert bench.count("driftline_events_total", type="view", outcome="erased") == 0

    def test_an_event_sent_before_it_under_another_key_is_dropped_when_it_comes(self) -> None:
        bench = Bench()
        bench.process(event("ann", "i3", 0), erased("ann", 1))
        old = event("ann", "i4", 2)
        bench.process(Record(old.value(), b"ann", 2, headers=[(FIRST_SENT, b"%d" % (AT_MS - 1))]))
        assert bench.value("ann") is None
        assert bench.count("driftline_events_total", type="view", outcome="erased") == 1
        bench.process(Record(old.value(), b"ann", 3, headers=[(FIRST_SENT, b"%d" % (AT_MS + 1))]))
        assert bench.applied("ann") == 1

    def test_also_by_a_worker_that_got_the_partition_since(self) -> None:
        bench = Bench()
        bench.erasures.users.add(0, user_hash(b"ann"), 1, AT_MS)
        old = event("ann", "i4", 2)
        bench.process(Record(old.value(), b"ann", 2, headers=[(FIRST_SENT, b"%d" % (AT_MS - 1))]))
        assert bench.value("ann") is None


class TestExpiry:
    SETTINGS = {"state.expire_after_s": "100d"}  # noqa: RUF012

    def test_an_idle_user_loses_state_and_list(self) -> None:
        bench = Bench(**self.SETTINGS)
        bench.process(event("ann", "i3", 0))
        chunk = bench.process(later("bob", "i4", 1, days=101))
        assert bench.value("ann") is None
        ((value, key, to, headers),) = [
            (value, key, to, headers) for topic, value, key, to, headers in chunk.sends if topic == LISTS and not value
        ]
        assert (value, key, to) == (None, b"ann", 0)
        assert dict(headers or []) == {REMOVED_BECAUSE: b"expired", REMOVED_AT: b"1"}
        assert bench.count("driftline_expired_users_total") == 1
        assert not confirmed(chunk)

    def test_by_default_after_more_than_a_year_and_by_setting_never(self) -> None:
        for overrides, days, kept in (({}, 399, True), ({}, 401, False), ({"state.expire_after_s": "0"}, 9_999, True)):
            bench = Bench(**overrides)
            bench.process(event("ann", "i3", 0))
            bench.process(later("bob", "i4", 1, days=days))
            assert (bench.value("ann") is not None) is kept

    def test_who_comes_back_too_late_begins_anew_whether_swept_or_not(self) -> None:
        values = []
        for chunks in ([[0], [1], [2]], [[0], [1, 2]], [[0, 1, 2]]):
            bench = Bench(**self.SETTINGS)
            records = [event("ann", "i3", 0), later("bob", "i4", 1, days=101), later("ann", "i5", 2, days=101)]
            for chunk in chunks:
                bench.process(*(records[n] for n in chunk))
            assert bench.applied("ann") == 1
            values.append(bench.value("ann"))
        assert values[1:] == values[:1] * 2

    def test_a_pause_within_the_time_is_no_expiry(self) -> None:
        bench = Bench(**self.SETTINGS)
        bench.process(event("ann", "i3", 0), later("ann", "i5", 1, days=99))
        assert bench.applied("ann") == 2

    def test_lists_for_each_event_on_both_sides_of_a_pause(self) -> None:
        records = event("ann", "i3", 0), event("ann", "i4", 1), later("ann", "i5", 2, days=101)
        every = {**self.SETTINGS, "worker.lists": "event"}
        whole = [made for made in lists(Bench(**every).process(*records)) if made]
        assert [made.events_applied for made in whole] == [1, 2, 1]
        bench = Bench(**every)
        cut = [made for record in records for made in lists(bench.process(record)) if made]
        assert whole == cut

    def test_a_busy_fetch_sweeps_less(self) -> None:
        bench = Bench(**self.SETTINGS)
        bench.process(*(event(f"u{n:03d}", "i3", n) for n in range(100)))
        bench.process(*(later("bob", "i4", 100 + n, days=101) for n in range(257)))
        assert bench.count("driftline_expired_users_total") == 64
        bench.process(later("bob", "i4", 500, days=101))
        assert bench.count("driftline_expired_users_total") == 100


class TestOddErasures:
    @pytest.mark.parametrize("record_ms", [10**11 - 1000, 10**15])
    def test_a_timestamp_out_of_this_world_gives_a_confirmation_that_can_be_read(self, record_ms: int) -> None:
        bench = Bench()
        made = erased("ann", 0, occurred_at=min(max(record_ms, FIRST_MS), AT_MS))
        made._timestamp_ms = record_ms
        (done,) = confirmed(bench.process(made))
        assert FIRST_MS <= time_ms(done.requested_at) < END_MS

    def test_a_state_that_is_about_to_be_forgotten_need_not_be_readable(self) -> None:
        bench = Bench()
        bench.partition.store.write([(b"ann", b"damaged")], None)
        bench.process(erased("ann", 0), event("ann", "i3", 1))
        assert bench.applied("ann") == 1

    def test_asked_twice_it_is_done_once_and_confirmed_twice(self) -> None:
        chunk = Bench().process(event("ann", "i3", 0), erased("ann", 1), erased("ann", 2))
        assert [key for key, value in chunk.puts if value is None and key == b"ann"] == [b"ann"]
        assert lists(chunk) == [None]
        assert len(confirmed(chunk)) == 2


class TestPseudonyms:
    @pytest.fixture(autouse=True)
    def _key(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(KEY_VARIABLE, "a-new-key-of-our-own,an-old-key-of-our-own")

    def test_no_id_leaves_the_worker(self) -> None:
        bench = Bench(**{"events.pseudonyms": "worker"})
        chunk = bench.process(event("ann-7531", "i3", 0), event("ann-7531", "i5", 1))
        name = Pseudonyms("a-new-key-of-our-own").of("ann-7531")
        (made,) = [made for made in lists(chunk) if made]
        assert (made.user_id, made.events_applied) == (name, 2)
        assert bench.applied(name) == 2
        everything = [*chunk.puts, *((key, value) for _, value, key, *_ in chunk.sends)]
        assert not any(b"ann-7531" in (key or b"") + (value or b"") for key, value in everything)

    def test_an_erasure_reaches_states_under_old_keys_too(self) -> None:
        bench = Bench(**{"events.pseudonyms": "worker"})
        old = Pseudonyms("an-old-key-of-our-own").of("ann")
        bench.partition.store.write([(old.encode(), b"a state")], None)
        assert bench.value(old) == b"a state"
        chunk = bench.process(event("ann", "i3", 0), erased("ann", 1))
        assert bench.value(old) is None
        assert len(confirmed(chunk)) == 2

    def test_an_erasure_holds_after_the_keys_were_rotated(self) -> None:
        bench = Bench(**{"events.pseudonyms": "worker"})
        old = Pseudonyms("an-old-key-of-our-own").of("ann")
        bench.erasures.users.add(0, user_hash(old.encode()), 5, AT_MS)
        bench.process(event("ann", "i3", 0))
        assert bench.count("driftline_events_total", type="view", outcome="erased") == 1
        assert bench.applied(Pseudonyms("a-new-key-of-our-own").of("ann")) is None


def test_a_replay_that_knows_of_an_erasure_judges_what_is_late_as_the_live_run_did() -> None:
    """
    offset      0          1              2                    grace 1 h
    user       ann        bob            ann
    time        0        -2 h late     erased      the live run
                .        -2 h late     erased      a replay: ann's event is dropped, and still was the newest
    """
    settings = {"events.grace_s": 3600, "events.late_policy": "late_topic"}
    log = event("ann", "i3", 0), event("bob", "i4", 1, occurred_at=AT_MS - 2 * 3_600_000), erased("ann", 2)
    live, replay = Bench(**settings), Bench(**settings)
    done = confirmed(live.process(*log))
    replay.erasures.users.add(0, done[0].user_hash, done[0].source.offset, AT_MS)
    replay.process(*log)
    for bench in (live, replay):
        assert bench.count("driftline_late_events_total", outcome="late_topic") == 1
        assert bench.applied("bob") is None
    assert replay.count("driftline_events_total", type="view", outcome="erased") == 1
