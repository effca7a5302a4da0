"""`driftline erase`: the event it sends, and waiting for the confirmation; on the embedded broker."""

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Producer

from stream.audit import read_topic
from stream.contract.control import ErasureConfirmed, encode_control, user_hash
from stream.contract.event import Event, decode_event
from stream.contract.recommendation import Source
from stream.engine.partitioner import partition_of
from stream.pseudonym import KEY_VARIABLE, Pseudonyms
from stream.settings import Settings

AT = "2026-01-02T03:04:05.000Z"


def sent(settings: Settings) -> list[tuple[bytes, int, Event]]:
    """Key, partition and event of what is on the events topic."""
    return [
        (m.key() or b"", m.partition() or 0, decode_event(m.value(), now_ms=m.timestamp()[1]))
        for m in read_topic(settings, settings.topics.events)
    ]


def confirm(settings: Settings, user: bytes, partition: int, offset: int) -> None:
    done = ErasureConfirmed(
        user_hash=user_hash(user),
        erased_at=AT,
        source=Source(settings.topics.events, partition, offset),
        requested_at=AT,
    )
    producer = Producer(settings.client_properties())
    producer.produce(settings.topics.erasures, encode_control(done), done.key)
    assert producer.flush(10) == 0


@pytest.fixture
def worker(settings: Settings) -> Callable[[bytes], threading.Thread]:
    """Confirms the erasure of a user, as a worker would, once it was asked for."""

    def start(user: bytes) -> threading.Thread:
        def run() -> None:
            while not (found := [(p, e) for key, p, e in sent(settings) if key == user]):
                pass
            confirm(settings, user, found[0][0], 0)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    return start


def test_the_event_goes_where_the_users_events_are(driftline: Any, there: Any, settings: Settings) -> None:
    outcome = driftline("erase", "ann", *there, "-o", "json")
    assert outcome.code == 0
    ((key, partition, event),) = sent(settings)
    assert (key, event.event_type, event.user_id, event.item_id) == (b"ann", "user_erased", "ann", None)
    assert partition == partition_of(b"ann", 6)
    (row,) = json.loads(outcome.out)
    assert row == {"user_hash": user_hash(b"ann"), "partition": partition, "offset": 0, "confirmed_at": None}
    assert "ann" not in outcome.out


def test_a_user_of_a_tenant(driftline: Any, there: Any, settings: Settings) -> None:
    assert driftline("erase", "ann", "--tenant", "shop", *there).code == 0
    ((key, _, event),) = sent(settings)
    assert (key, event.user_id, event.tenant) == (b"shop\x1fann", "ann", "shop")


def test_everywhere_is_on_every_partition(driftline: Any, there: Any, settings: Settings) -> None:
    outcome = driftline("erase", "ann", "--everywhere", *there, "-o", "json")
    assert sorted(row["partition"] for row in json.loads(outcome.out)) == list(range(6))
    assert {key for key, *_ in sent(settings)} == {b"ann"}


def test_waiting_ends_with_the_confirmation(driftline: Any, there: Any, settings: Settings, worker: Any) -> None:
    thread = worker(b"ann")
    outcome = driftline("erase", "ann", "--wait", *there, "-o", "json")
    thread.join(10)
    assert outcome.code == 0
    assert [row["confirmed_at"] for row in json.loads(outcome.out)] == [AT]


def test_without_a_worker_it_ends_with_1_and_says_so(driftline: Any, there: Any, settings: Settings) -> None:
    confirm(settings, b"ann", partition_of(b"ann", 6), 0)  # of an earlier time, and of another user
    confirm(settings, b"bob", partition_of(b"ann", 6), 5)
    outcome = driftline("erase", "ann", "--wait", "--timeout", "1", *there)
    assert outcome.code == 1
    assert "not confirmed within 1 s: is a worker running" in outcome.err
    assert "ann" not in outcome.err


@pytest.mark.parametrize("user", ["", "\0x"])
def test_nobody_is_refused(driftline: Any, there: Any, user: str) -> None:
    outcome = driftline("erase", user, *there)
    assert outcome.code == 2
    assert "no user is named" in outcome.err


def test_missing_topics_are_told(driftline: Any, embedded: Any) -> None:
    outcome = driftline("erase", "ann", "--bootstrap-servers", embedded.bootstrap_servers)
    assert outcome.code == 2
    assert "driftline topics create" in outcome.err


def test_pseudonyms_of_all_keys_are_erased(
    driftline: Any, there: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = "the-new-key-0123456789,the-old-key-0123456789"
    monkeypatch.setenv(KEY_VARIABLE, keys)
    names = Pseudonyms(keys).all_of("ann")
    hashes = [user_hash(name.encode()) for name in names]
    hashed = driftline("erase", "ann", *there, "--set", "events.pseudonyms=producer", "-o", "json")
    assert [row["user_hash"] for row in json.loads(hashed.out)] == hashes
    assert {key.decode() for key, *_ in sent(settings)} == set(names)
    real = driftline("erase", "ann", *there, "--set", "events.pseudonyms=worker", "-o", "json")
    assert [row["user_hash"] for row in json.loads(real.out)] == hashes
    assert len([key for key, *_ in sent(settings) if key == b"ann"]) == 1, "one event; the worker knows both keys"


def test_pseudonyms_without_a_key_are_refused(driftline: Any, there: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    outcome = driftline("erase", "ann", *there, "--set", "events.pseudonyms=producer")
    assert outcome.code == 2
    assert KEY_VARIABLE in outcome.err
