"""What a worker learns from the erasures topic; on the embedded broker."""

from __future__ import annotations

import logging

import pytest
from confluent_kafka import Producer

from stream.brokers import EmbeddedBroker
from stream.contract.control import ErasureConfirmed, encode_control, user_hash
from stream.contract.recommendation import Source
from stream.erasure import ErasureLog
from stream.errors import ContractError
from stream.settings import Settings, load_settings
from stream.topics import create_topics

AT = "2026-01-02T03:04:05.000Z"
ANN = user_hash(b"ann")


@pytest.fixture
def settings(embedded: EmbeddedBroker) -> Settings:
    found = load_settings(None, {"kafka.bootstrap_servers": embedded.bootstrap_servers, "topics.partitions": 3}, {})
    create_topics(found)
    return found


def _fill_events(settings: Settings, records: int, partition: int = 1) -> None:
    producer = Producer(settings.client_properties())
    for _ in range(records):
        producer.produce(settings.topics.events, b"{}", b"x", partition)
    assert producer.flush(10) == 0


def _confirm(settings: Settings, user: bytes, offset: int, topic: str | None = None) -> None:
    done = ErasureConfirmed(
        user_hash=user_hash(user),
        erased_at=AT,
        source=Source(topic or settings.topics.events, 1, offset),
        requested_at=AT,
    )
    producer = Producer(settings.client_properties())
    producer.produce(settings.topics.erasures, encode_control(done), done.key)
    assert producer.flush(10) == 0


def test_an_empty_topic_erases_nobody(settings: Settings) -> None:
    assert len(ErasureLog(settings).catch_up()) == 0


def test_for_the_past_of_the_log_every_confirmation_counts(settings: Settings) -> None:
    _fill_events(settings, 3)
    _confirm(settings, b"ann", 400)  # of a topic of that name which is no more
    assert not ErasureLog(settings).catch_up().covers(1, ANN, -5)
    assert ErasureLog(settings, past=True).catch_up().covers(1, ANN, -5)


def test_confirmations_are_known_and_later_ones_too(settings: Settings) -> None:
    _fill_events(settings, 10)
    _confirm(settings, b"ann", 4)
    log = ErasureLog(settings)
    users = log.catch_up()
    assert users.covers(1, ANN, 3)
    assert not users.covers(1, ANN, 4)
    _confirm(settings, b"ann", 7)
    _confirm(settings, b"bob", 2)
    log.catch_up()
    assert users.covers(1, ANN, 6)
    assert users.covers(1, user_hash(b"bob"), 1)
    assert len(log.catch_up()) == 2


def test_the_time_of_the_request_is_known(settings: Settings) -> None:
    _fill_events(settings, 10)
    _confirm(settings, b"ann", 4)
    assert ErasureLog(settings).catch_up().covers(1, ANN, 9, sent_ms=1_767_323_045_000)


def test_those_of_another_log_are_left_out(settings: Settings) -> None:
    _fill_events(settings, 10)
    _confirm(settings, b"ann", 4, topic="another.shop.events")
    assert len(ErasureLog(settings).catch_up()) == 0


def test_a_log_that_was_made_anew_loses_no_event_to_old_erasures(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    _fill_events(settings, 3)
    _confirm(settings, b"ann", 900)
    with caplog.at_level(logging.WARNING):
        assert len(ErasureLog(settings).catch_up()) == 0
    assert "make the erasures topic anew too" in caplog.text


def test_what_is_no_confirmation_is_not_passed_over(settings: Settings) -> None:
    producer = Producer(settings.client_properties())
    producer.produce(settings.topics.erasures, b"{}", b"x")
    assert producer.flush(10) == 0
    with pytest.raises(ContractError, match="who writes"):
        ErasureLog(settings).catch_up()


def test_a_confirmation_without_a_time_holds_by_its_place(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """It is compacted and kept for ever: it must not stop every worker at its start."""
    _fill_events(settings, 10)
    done = ErasureConfirmed(
        user_hash=ANN, erased_at=AT, source=Source(settings.topics.events, 1, 4), requested_at="1960-01-01T00:00:00Z"
    )
    producer = Producer(settings.client_properties())
    producer.produce(settings.topics.erasures, encode_control(done), done.key)
    assert producer.flush(10) == 0
    with caplog.at_level(logging.WARNING):
        users = ErasureLog(settings).catch_up()
    assert users.covers(1, ANN, 3)
    assert "has no time" in caplog.text
