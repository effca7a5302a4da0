"""The audit against topics whose faults are known: it must find each, and nothing else."""

import time
import uuid
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from stream.audit import AuditReport, as_dict, audit
from stream.contract.control import FIRST_SENT, LATE_BY_MS, LATE_GRACE_MS, LATE_WATERMARK_MS, error_headers
from stream.contract.recommendation import ModelRef, Recommendation, Source, encode_recommendation, recommendation_id
from stream.errors import EventError, RefusedError
from stream.settings import Settings, load_settings

pytestmark = pytest.mark.kafka

NOW_MS = int(time.time() * 1000)


class Topics:
    """An events and a recommendations topic, one partition each, written by hand."""

    def __init__(self, servers: str) -> None:
        name = f"audit-{uuid.uuid4().hex[:8]}"
        self.settings: Settings = load_settings(
            overrides={
                "kafka.bootstrap_servers": servers,
                "topics.events": f"{name}.events",
                "topics.recommendations": f"{name}.lists",
                "topics.dead_letters": f"{name}.dead",
                "topics.late": f"{name}.late",
            },
            environ={},
        )
        self._admin = AdminClient({"bootstrap.servers": servers})
        topics = [NewTopic(f"{name}.{role}", 1, 1) for role in ("events", "lists", "dead", "late")]
        for future in self._admin.create_topics(topics).values():
            future.result(20)
        self._producer = Producer({"bootstrap.servers": servers})
        self._offset = 0

    def event(
        self, user: str, event_id: str, *, key: str | None = None, headers: dict[str, bytes] | None = None, **more: Any
    ) -> int:
        fields = {
            "event_id": event_id,
            "event_type": "view",
            "user_id": user,
            "item_id": "i1",
            "occurred_at": int(time.time() * 1000),
        }
        value = msgspec.json.encode({**fields, **more})
        self._producer.produce(self.settings.topics.events, value, (key or user).encode(), 0, headers=headers)
        self._offset += 1
        return self._offset - 1

    def made(self, user: str, events_applied: int, offset: int) -> None:
        value = encode_recommendation(
            Recommendation(
                recommendation_id=recommendation_id(user.encode(), 0, offset),
                user_id=user,
                generated_at="2026-05-01T10:00:00.000Z",
                trigger_event_id="e",
                events_applied=events_applied,
                source=Source(self.settings.topics.events, 0, offset),
                model=ModelRef("m", "1"),
                strategy="popular",
                interests=[],
                items=[],
            )
        )
        self._producer.produce(self.settings.topics.recommendations, value, user.encode(), 0)

    def dead_letter(self, offset: int) -> None:
        headers = error_headers(
            EventError("not_json", "x"), stage="decode", topic=self.settings.topics.events, partition=0, offset=offset
        )
        self._producer.produce(self.settings.topics.dead_letters, b"x", headers=headers)

    def late(self, offset: int, *, late_by_ms: int, watermark_ms: int, grace_ms: int = 1000) -> None:
        headers = error_headers(
            EventError("late", "x"), stage="time", topic=self.settings.topics.events, partition=0, offset=offset
        )
        told = ((LATE_BY_MS, late_by_ms), (LATE_WATERMARK_MS, watermark_ms), (LATE_GRACE_MS, grace_ms))
        headers += [(name, str(value).encode()) for name, value in told]
        self._producer.produce(self.settings.topics.late, b"x", headers=headers)

    def report(self) -> AuditReport:
        assert self._producer.flush(20) == 0
        return audit(self.settings)


@pytest.fixture
def topics(kafka: str) -> Topics:
    return Topics(kafka)


def _good(topics: Topics, users: Iterable[str]) -> None:
    for user in users:
        topics.event(user, f"{user}-1")
        topics.made(user, 2, topics.event(user, f"{user}-2"))


def test_a_sound_log_is_exact(topics: Topics) -> None:
    _good(topics, ["ann", "bob"])
    report = topics.report()
    assert report.exact
    assert (report.events, report.users, report.lists) == (4, 2, 2)
    assert as_dict(report)["exact"] is True


def test_a_lost_event_is_found_and_its_user_named(topics: Topics) -> None:
    _good(topics, ["ann"])
    topics.event("bob", "b1")
    topics.made("bob", 1, topics.event("bob", "b2"))
    report = topics.report()
    assert not report.exact
    assert (report.lost_events, report.doubled_events, report.stale_users) == (1, 0, 0)
    (found,) = report.examples
    assert (found.user_id, found.expected_events, found.applied_events, found.last_offset) == ("bob", 2, 1, 3)


def test_a_doubled_event_is_found(topics: Topics) -> None:
    topics.made("bob", 2, topics.event("bob", "b1"))
    report = topics.report()
    assert (report.exact, report.lost_events, report.doubled_events) == (False, 0, 1)


def test_a_doubled_list_is_found(topics: Topics) -> None:
    offset = topics.event("bob", "b1")
    topics.made("bob", 1, offset)
    topics.made("bob", 1, offset)
    report = topics.report()
    assert (report.exact, report.doubled_lists, report.lost_events) == (False, 1, 0)


def test_a_user_without_a_list_is_found(topics: Topics) -> None:
    _good(topics, ["ann"])
    topics.event("bob", "b1")
    report = topics.report()
    assert (report.exact, report.missing_users, report.lost_events) == (False, 1, 1)


def test_a_list_that_is_not_of_the_last_event_is_found(topics: Topics) -> None:
    first = topics.event("bob", "b1")
    topics.event("bob", "b2")
    topics.made("bob", 2, first)
    report = topics.report()
    assert (report.exact, report.stale_users, report.lost_events) == (False, 1, 0)


def test_duplicates_dead_letters_and_strays_are_told_apart_and_expected_of_no_state(topics: Topics) -> None:
    topics.event("bob", "b1")
    topics.event("bob", "b1")
    topics.dead_letter(topics.event("bob", "b2", event_type="teleport"))
    topics.event("bob", "b3", key="session-1")
    topics.made("bob", 2, topics.event("bob", "b3"))
    report = topics.report()
    assert report.exact, report
    assert (report.duplicates, report.rekeyed, report.dead_letters) == (1, 1, {"unknown_event_type": 1})


def test_events_without_an_id_are_told_apart_by_their_content(topics: Topics) -> None:
    at_ms = int(time.time() * 1000)
    topics.event("bob", "", occurred_at=at_ms)
    topics.event("bob", "", occurred_at=at_ms, sent_at=at_ms + 1)
    topics.made("bob", 2, topics.event("bob", "", occurred_at=at_ms, item_id="i2"))
    report = topics.report()
    assert report.exact, report
    assert (report.events, report.duplicates) == (2, 1)


def test_users_of_two_tenants_are_two(topics: Topics) -> None:
    topics.made("bob", 1, topics.event("bob", "b1"))
    topics.made("acme\x1fbob", 2, topics.event("bob", "b1", tenant="acme", key="acme\x1fbob"))
    report = topics.report()
    assert (report.users, report.doubled_events) == (2, 1)
    assert [(found.user_id, found.tenant) for found in report.examples] == [("bob", "acme")]


def test_a_stray_that_never_came_back_is_lost(topics: Topics) -> None:
    _good(topics, ["ann", "bob"])
    topics.event("bob", "b3", key="session-1")
    topics.event("new", "n1", key="session-1")
    report = topics.report()
    assert (report.exact, report.rekeyed, report.lost_events) == (False, 2, 2)


def test_a_list_of_nobody_is_found(topics: Topics) -> None:
    _good(topics, ["ann"])
    topics.made("ghost", 1, 0)
    report = topics.report()
    assert (report.exact, report.extra_users) == (False, 1)


def test_an_earlier_list_that_was_wrong_is_found_though_the_last_is_right(topics: Topics) -> None:
    topics.made("bob", 2, topics.event("bob", "b1"))
    topics.made("bob", 2, topics.event("bob", "b2"))
    report = topics.report()
    assert (report.exact, report.lost_events, report.doubled_events, report.wrong_lists) == (False, 0, 0, 1)


def test_a_bad_record_needs_one_dead_letter(topics: Topics) -> None:
    first = topics.event("bob", "b1", event_type="teleport")
    topics.event("bob", "b2", event_type="teleport")
    topics.dead_letter(first)
    topics.dead_letter(first)
    report = topics.report()
    assert (report.exact, report.unlettered, report.doubled_letters) == (False, 1, 1)


def test_a_late_event_is_expected_of_no_state(topics: Topics) -> None:
    """
    offset    0        1        2
    user    bob      bob      ann
    time    now   now - 5 s  now - 5 s
                    late     late
    """
    topics.made("bob", 1, topics.event("bob", "b1", occurred_at=NOW_MS))
    for user, event_id in (("bob", "b2"), ("ann", "a1")):
        offset = topics.event(user, event_id, occurred_at=NOW_MS - 5000)
        topics.late(offset, late_by_ms=5000, watermark_ms=NOW_MS)
    report = topics.report()
    assert report.exact, report
    assert (report.late, report.events, report.users, report.lost_events) == (2, 1, 1, 0)


def test_a_late_event_that_was_counted_all_the_same_is_doubled(topics: Topics) -> None:
    topics.made("bob", 1, topics.event("bob", "b1", occurred_at=NOW_MS))
    topics.late(topics.event("bob", "b2", occurred_at=NOW_MS - 5000), late_by_ms=5000, watermark_ms=NOW_MS)
    topics.made("bob", 3, topics.event("bob", "b3", occurred_at=NOW_MS))
    report = topics.report()
    assert (report.exact, report.lost_events, report.doubled_events, report.wrongly_late) == (False, 0, 1, 0)


def test_events_on_the_late_topic_that_were_not_late_are_found(topics: Topics) -> None:
    topics.made("bob", 1, topics.event("bob", "b1", occurred_at=NOW_MS))
    on_time = topics.event("bob", "b2", occurred_at=NOW_MS - 500)
    topics.late(on_time, late_by_ms=500, watermark_ms=NOW_MS)  # within its grace
    ahead = topics.event("bob", "b3", occurred_at=NOW_MS - 2000)
    topics.late(ahead, late_by_ms=3000, watermark_ms=NOW_MS + 1000)  # by another watermark than the log's
    twice = topics.event("bob", "b4", occurred_at=NOW_MS - 2000)
    topics.late(twice, late_by_ms=2000, watermark_ms=NOW_MS)
    topics.late(twice, late_by_ms=2000, watermark_ms=NOW_MS)
    topics.late(99, late_by_ms=2000, watermark_ms=NOW_MS)  # of a record that is not there
    report = topics.report()
    assert (report.exact, report.late, report.wrongly_late, report.lost_events) == (False, 3, 4, 0)


def test_a_late_event_that_is_on_no_topic_is_lost(topics: Topics) -> None:
    topics.made("bob", 1, topics.event("bob", "b1", occurred_at=NOW_MS))
    topics.event("bob", "b2", occurred_at=NOW_MS - 5000)
    report = topics.report()
    assert (report.exact, report.late, report.lost_events) == (False, 0, 1)


def test_a_stray_that_came_back_too_late_is_not_lost(topics: Topics) -> None:
    topics.event("bob", "b2", key="session-1", occurred_at=NOW_MS - 5000)
    topics.made("ann", 1, topics.event("ann", "a1", occurred_at=NOW_MS))
    topics.late(topics.event("bob", "b2", occurred_at=NOW_MS - 5000), late_by_ms=5000, watermark_ms=NOW_MS)
    report = topics.report()
    assert report.exact, report
    assert (report.rekeyed, report.late, report.lost_events) == (1, 1, 0)


def test_a_log_whose_beginning_is_gone_gets_no_verdict(topics: Topics, kafka: str) -> None:
    from confluent_kafka import TopicPartition

    topics.event("bob", "b1")
    topics.made("bob", 2, topics.event("bob", "b2"))
    topics.report()
    admin = AdminClient({"bootstrap.servers": kafka})
    at = TopicPartition(topics.settings.topics.events, 0, 1)
    admin.delete_records([at])[at].result(20)
    report = topics.report()
    assert not report.log_is_whole
    whole = TopicPartition(topics.settings.topics.events, 0, 2)
    admin.delete_records([whole])[whole].result(20)
    report = topics.report()
    assert not report.log_is_whole
    assert not report.exact


def test_a_missing_topic_is_refused(kafka: str) -> None:
    settings = load_settings(overrides={"kafka.bootstrap_servers": kafka, "topics.events": "never-made"}, environ={})
    with pytest.raises(RefusedError, match="topics create"):
        audit(settings)


def _erase(topics: Topics, user: str) -> None:
    topics.event(user, f"erase-{user}", event_type="user_erased", item_id=None)


def _no_list(topics: Topics, user: str) -> None:
    topics._producer.produce(topics.settings.topics.recommendations, None, user.encode(), 0)


def test_after_an_erasure_counting_begins_anew(topics: Topics) -> None:
    topics.made("ann", 1, topics.event("ann", "a1"))
    _erase(topics, "ann")
    _no_list(topics, "ann")
    topics.made("ann", 1, topics.event("ann", "a1"))  # the id that was there before is no duplicate now
    topics.made("ann", 2, topics.event("ann", "a2"))
    report = topics.report()
    assert report.exact, report
    assert (report.erasures, report.events, report.users) == (1, 3, 1)


def test_who_was_erased_and_came_back_with_the_old_count_is_found(topics: Topics) -> None:
    topics.made("ann", 1, topics.event("ann", "a1"))
    _erase(topics, "ann")
    topics.made("ann", 2, topics.event("ann", "a2"))
    report = topics.report()
    assert (report.wrong_lists, report.doubled_events) == (1, 1)


def test_who_was_erased_needs_no_list_and_must_not_have_one(topics: Topics) -> None:
    for user in ("ann", "bob"):
        topics.made(user, 1, topics.event(user, f"{user}-1"))
        _erase(topics, user)
    _erase(topics, "nobody")
    _erase(topics, "ann")
    _no_list(topics, "ann")
    report = topics.report()
    assert not report.exact
    assert (report.unerased_users, report.missing_users, report.lost_events, report.erasures) == (1, 0, 0, 4)


def test_a_stray_from_before_the_erasure_is_neither_lost_nor_counted(topics: Topics) -> None:
    topics.made("ann", 1, topics.event("ann", "a1"))
    topics.event("ann", "a2", key="another")
    _erase(topics, "ann")
    _no_list(topics, "ann")
    topics.event("ann", "a2", headers={FIRST_SENT: str(int(time.time() * 1000) - 60_000).encode()})
    report = topics.report()
    assert report.exact, report
    assert (report.erased, report.rekeyed) == (1, 1)


def test_an_idle_user_may_be_gone_and_begins_anew(topics: Topics) -> None:
    long_ago_ms = NOW_MS - 500 * 86_400_000
    topics.made("gone", 1, topics.event("gone", "g1", occurred_at=long_ago_ms))
    topics.made("kept", 1, topics.event("kept", "k1", occurred_at=long_ago_ms))
    topics.made("back", 1, topics.event("back", "b1", occurred_at=long_ago_ms))
    topics.made("back", 1, topics.event("back", "b2"))
    _no_list(topics, "gone")
    report = topics.report()
    assert report.exact, report
    assert report.expired_users == 1


def test_a_list_that_is_gone_too_early_is_missed(topics: Topics) -> None:
    topics.made("ann", 1, topics.event("ann", "a1", occurred_at=NOW_MS - 300 * 86_400_000))
    topics.made("bob", 1, topics.event("bob", "b1"))
    _no_list(topics, "ann")
    assert topics.report().missing_users == 1
