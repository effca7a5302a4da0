"""The reader of the items topic: on the embedded broker, and where transactions matter on a real Kafka."""

import json
import logging
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from prometheus_client import CollectorRegistry

import stream.catalog
from model.ranking.filters import Availability
from model.ranking.index import ItemIndex
from state.catalog import CatalogItem
from state.keys import key_of
from stream.brokers import EmbeddedBroker
from stream.catalog import Changed, ItemsReader
from stream.errors import EngineError, RefusedError
from stream.metrics import Metrics
from stream.settings import Settings, load_settings

Record = tuple[bytes | None, bytes | None]


def settings_of(servers: str, **more: object) -> Settings:
    return load_settings(None, {"kafka.bootstrap_servers": servers, **more}, {})


def item(item_id: str, **fields: object) -> Record:
    return item_id.encode(), json.dumps({"item_id": item_id, **fields}).encode()


def send(settings: Settings, *records: Record) -> None:
    producer = Producer(settings.client_properties({"linger.ms": 0}))
    for key, value in records:
        producer.produce(settings.topics.items, value, key)
    assert producer.flush(20) == 0


@contextmanager
def reading(settings: Settings, changed: Changed | None = None) -> Iterator[ItemsReader]:
    """A reader that has caught up and follows."""
    reader = ItemsReader(settings, Metrics(CollectorRegistry()), changed)
    try:
        reader.catch_up()
        reader.start()
        yield reader
    finally:
        reader.stop()


def until(what: Callable[[], bool], seconds: float = 15) -> None:
    end_s = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end_s, "it did not come"
        time.sleep(0.02)


def held(reader: ItemsReader, item_id: str) -> CatalogItem | None:
    with reader.lock:
        return reader.catalog.get(key_of(item_id))


def count(reader: ItemsReader, outcome: str) -> float:
    found = reader._metrics.registry.get_sample_value("driftline_catalog_records_total", {"outcome": outcome})
    return found or 0.0


@pytest.fixture
def settings(embedded: EmbeddedBroker) -> Settings:
    found = settings_of(embedded.bootstrap_servers)
    embedded.create_topic(found.topics.items, 4)
    return found


def test_all_partitions_are_read_before_anything_else(settings: Settings) -> None:
    known = {"category": ["A", "B"], "domain": "books"}
    send(settings, *[item(f"i{n}", price=n, **known) for n in range(300)], (b"i7", None), item("i8"))
    with reading(settings) as reader:
        assert len(reader.catalog) == 299
        assert held(reader, "i7") is None
        assert held(reader, "i8") == CatalogItem(item_id="i8")
        assert held(reader, "i9") == CatalogItem(item_id="i9", category=("A", "B"), domain="books", price=9.0)
        assert (count(reader, "upsert"), count(reader, "tombstone")) == (301, 1)
        assert reader.ready


def test_what_comes_afterwards_is_followed_and_told(settings: Settings) -> None:
    availability = Availability(ItemIndex(["a", "b", "c"]), 8)
    send(settings, item("a", available=False))
    with reading(settings, availability.update) as reader:

        def barred() -> list[int]:
            with reader.lock:
                found = availability.with_barred(None, 0)
            return [] if found is None else np.flatnonzero(found).tolist()

        assert barred() == [0]
        send(settings, item("b", available=False), item("a"))
        until(lambda: barred() == [1])
        send(settings, (b"c", None))
        until(lambda: barred() == [1, 2])
        assert reader._metrics.registry.get_sample_value("driftline_catalog_items") == 2


def test_what_is_no_item_is_counted_and_told_of_without_its_values(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    send(
        settings,
        item("a"),
        (b"b", b"secret nonsense"),
        (b"b", b'{"item_id": "b", "price": "secret"}'),
        (b"secret", b'{"item_id": "b"}'),
        (None, b'{"item_id": "b"}'),
        (b"", None),
        (b"\xff\xfe", b'{"item_id": "b"}'),
        (b"b", b""),
        (b"b", b'{"item_id": "b", "expires_at": "secret"}'),
    )
    with caplog.at_level(logging.WARNING), reading(settings) as reader:
        assert len(reader.catalog) == 1
        assert (count(reader, "upsert"), count(reader, "invalid")) == (1, 8)
        assert reader.ready
    assert "no items and are left out" in caplog.text
    assert "secret" not in caplog.text
    assert len(caplog.records) == 1  # and not one for each


@pytest.mark.parametrize("partitions", [0, 4])
def test_no_topic_and_an_empty_one_give_an_empty_catalogue(embedded: EmbeddedBroker, partitions: int) -> None:
    settings = settings_of(embedded.bootstrap_servers)
    if partitions:
        embedded.create_topic(settings.topics.items, partitions)
    with reading(settings) as reader:
        assert len(reader.catalog) == 0
        assert reader.ready


def test_a_topic_that_comes_later_is_found(embedded: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream.catalog, "_LOOK_AGAIN_S", 0.1)
    settings = settings_of(embedded.bootstrap_servers)
    with reading(settings) as reader:
        embedded.create_topic(settings.topics.items, 2)
        send(settings, item("a"))
        until(lambda: held(reader, "a") is not None)


def test_the_wait_at_start_is_bounded(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    send(settings, *[item(f"i{n}") for n in range(50)])
    hurried = settings_of(settings.kafka.bootstrap_servers, **{"catalog.start_timeout_s": 1})
    reader = ItemsReader(hurried, Metrics(CollectorRegistry()))
    monkeypatch.setattr(stream.catalog, "watermarks", lambda *_: (0, 1_000_000))  # as of a topic that goes on
    monkeypatch.setattr(stream.catalog, "_is_end", lambda _: False)
    with pytest.raises(RefusedError, match=r"50 of some 4000000 records.* within 1 s.*catalog\.start_timeout_s"):
        reader.catch_up()
    reader.stop()


def test_a_broker_that_is_not_there_is_refused(embedded: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream.catalog, "_ASK_S", 0.5)
    monkeypatch.setattr(stream.catalog, "_PATIENCE_S", 0.5)
    settings = settings_of(embedded.bootstrap_servers)
    embedded.stop()
    reader = ItemsReader(settings, Metrics(CollectorRegistry()))
    with pytest.raises(RefusedError, match=r"cannot read driftline\.items\.v1: .*See to the broker"):
        reader.catch_up()
    reader.stop()


def test_a_reader_that_ends_is_not_ready(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with reading(settings) as reader:
        monkeypatch.setattr(reader, "_take", lambda _: (_ for _ in ()).throw(EngineError("broken")))
        until(lambda: reader.failure is not None)
        assert isinstance(reader.failure, EngineError)
        assert not reader.ready


def test_a_reader_that_stands_still_is_not_ready(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with reading(settings) as reader:
        until(lambda: reader.ready)
        monkeypatch.setattr(stream.catalog, "SILENT_S", 0.3)
        with reader.lock:
            send(settings, item("a"))
            until(lambda: not reader.ready)
        until(lambda: reader.ready)


@pytest.mark.kafka
def test_a_transaction_that_ends_or_is_aborted_does_not_hold_it_up(kafka: str) -> None:
    name = f"items-{uuid.uuid4().hex[:8]}"
    settings = settings_of(kafka, **{"topics.items": name})
    admin = AdminClient({"bootstrap.servers": kafka})
    admin.create_topics([NewTopic(name, 2, 1)])[name].result(20)
    producer = Producer(settings.client_properties({"transactional.id": name}))
    producer.init_transactions(20)
    for committed in (True, False):
        producer.begin_transaction()
        for n in range(20):
            key, value = item(f"i{n}", price=1 if committed else 2)
            producer.produce(name, value, key)
        producer.flush(20)
        if committed:
            producer.commit_transaction(20)
        else:
            producer.abort_transaction(20)
    began_s = time.monotonic()
    with reading(settings) as reader:
        assert time.monotonic() - began_s < 10
        assert len(reader.catalog) == 20
        assert held(reader, "i3") == CatalogItem(item_id="i3", price=1.0)
