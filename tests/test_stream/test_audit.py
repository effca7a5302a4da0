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
from stream.contract.control import error_headers
from stream.contract.recommendation import ModelRef, Recommendation, Source, encode_recommendation, recommendation_id
from stream.errors import EventError, RefusedError
from stream.settings import Settings, load_settings

pytestmark = pytest.mark.kafka


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
            },
            environ={},
        )
        self._admin = AdminClient({"bootstrap.servers": servers})
        topics = [NewTopic(f"{name}.{role}", 1, 1) for role in ("events", "lists", "dead")]
        for future in self._admin.create_topics(topics).values():
            future.result(20)
        self._producer = Producer({"bootstrap.servers": servers})
        self._offset = 0

    def event(self, user: str, event_id: str, *, key: str | None = None, **more: Any) -> int:
        fields = {
            "event_id": event_id,
            "event_type": "view",
            "user_id": user,
            "item_id": "i1",
            "occurred_at": int(time.time() * 1000),
        }
        value = msgspec.json.encode({**fields, **more})
        self._producer.produce(self.settings.topics.events, value, (key or user).encode(), 0)
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
