"""Ranges of topics as rows."""

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from stream.brokers import EmbeddedBroker
from stream.errors import ReplayError, TopicError
from stream.event_file import BadRow
from stream.reading import End, Start
from stream.replay import topic_range
from stream.replay.rows import Row
from stream.replay.topic_range import TopicRange
from stream.settings import Settings, load_settings

AT_MS = 1_767_323_045_000
TOPIC = "events"

Make = Callable[[int], tuple[Settings, str]]


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def topic(request: pytest.FixtureRequest) -> Make:
    """Makes a topic of so many partitions."""

    def make(partitions: int) -> tuple[Settings, str]:
        name = f"{TOPIC}-{uuid.uuid4().hex[:8]}"
        if request.param == "embedded":
            broker: EmbeddedBroker = request.getfixturevalue("embedded")
            broker.create_topic(name, partitions)
            address = broker.bootstrap_servers
        else:
            address = request.getfixturevalue("kafka")
            create(address, name, partitions)
        return settings_of(address), name

    return make


def settings_of(address: str) -> Settings:
    return load_settings(overrides={"kafka.bootstrap_servers": address}, environ={})


def create(address: str, name: str, partitions: int) -> None:
    admin = AdminClient({"bootstrap.servers": address})
    admin.create_topics([NewTopic(name, partitions, 1, config={"segment.bytes": "1048576"})])[name].result(20)


def event(number: int, at_ms: int | str | None = None) -> bytes:
    return json.dumps(
        {
            "event_id": f"e{number}",
            "event_type": "view",
            "occurred_at": AT_MS + number * 1000 if at_ms is None else at_ms,
            "user_id": f"u{number}",
            "item_id": "i",
        }
    ).encode()


def send(settings: Settings, name: str, values: list[bytes | None], partition: int = 0, **more: Any) -> None:
    producer = Producer(settings.client_properties({"linger.ms": 5}))
    for number, value in enumerate(values):
        timestamp = AT_MS + number * 1000
        producer.produce(name, value, f"u{number}", partition=partition, timestamp=timestamp, **more)
        producer.poll(0)
    assert producer.flush(20) == 0


def rows_of(source: TopicRange, since: dict[int, int] | None = None) -> list[Row]:
    return [row for block in source.blocks(since or {}) for row in block]


def test_rows_have_what_their_records_have(topic: Make) -> None:
    settings, name = topic(2)
    send(settings, name, [event(0)], 0)
    send(settings, name, [event(7), None], 1, headers=[("h", b"x")])
    rows = sorted(rows_of(TopicRange(settings, name)), key=lambda row: (row.partition, row.offset))
    assert rows == [
        Row(event(0), b"u0", AT_MS, 0, 0, 0, 0, AT_MS, ()),
        Row(event(7), b"u0", AT_MS + 7000, 0, 0, 1, 0, AT_MS, [("h", b"x")]),
        Row(None, b"u1", -1, 1, 0, 1, 1, AT_MS + 1000, [("h", b"x")]),
    ]


@pytest.mark.parametrize(
    ("value", "time_ms"),
    [
        (event(0, AT_MS), AT_MS),
        (event(0, AT_MS // 1000), AT_MS),
        (event(0, "2026-01-02T03:04:05Z"), AT_MS),
        (b'{"eventType": "detail-page-view", "eventTime": "2026-01-02T03:04:05Z", "userId": "u", '
         b'"items": [{"item_id": "i"}]}', AT_MS),
        (b'{"eventType": "detail-page-view", "userId": "u", "items": [{"item_id": "i"}]}', -1),
        (b'{"type": "track", "event": "Product Viewed", "timestamp": 1767323045, "userId": "u", '
         b'"properties": {"product_id": "i"}}', AT_MS),
        (event(0, 5), -1),
        (b"\xff{", -1),
        (b"[1]", -1),
        (b"", -1),
        (b"[" * 100_000, -1),
    ],
)  # fmt: skip
def test_times(value: bytes, time_ms: int, embedded: EmbeddedBroker) -> None:
    embedded.create_topic(TOPIC, 1)
    settings = settings_of(embedded.bootstrap_servers)
    send(settings, TOPIC, [value])
    [row] = rows_of(TopicRange(settings, TOPIC))
    assert row.time_ms == time_ms
    assert row.value == value


def test_bounds_by_offset(topic: Make) -> None:
    settings, name = topic(2)
    for partition in range(2):
        send(settings, name, [event(n) for n in range(10)], partition)
    source = TopicRange(settings, name, Start(3), End(offset=8))
    assert (source.begins, source.ends) == ({0: 3, 1: 3}, {0: 8, 1: 8})
    found = sorted((row.partition, row.offset) for row in rows_of(source, {1: 6}))
    assert found == [(0, offset) for offset in range(3, 8)] + [(1, 6), (1, 7)]
    assert source.share_done == 1


def test_bounds_by_time(topic: Make) -> None:
    settings, name = topic(1)
    send(settings, name, [event(n) for n in range(10)])
    source = TopicRange(settings, name, Start(since_ms=AT_MS + 2000), End(before_ms=AT_MS + 5000))
    assert [row.offset for row in rows_of(source)] == [2, 3, 4]
    later = TopicRange(settings, name, Start(since_ms=AT_MS + 86_400_000))
    assert rows_of(later) == []
    assert later.share_done == 1


def test_some_partitions(topic: Make) -> None:
    settings, name = topic(3)
    for partition in range(3):
        send(settings, name, [event(0)], partition)
    assert [row.partition for row in rows_of(TopicRange(settings, name, partitions=[2]))] == [2]


def test_what_comes_later_is_not_read(topic: Make) -> None:
    settings, name = topic(2)
    send(settings, name, [event(n) for n in range(5)], 0)
    source = TopicRange(settings, name)
    send(settings, name, [event(n) for n in range(5)], 0)
    send(settings, name, [event(n) for n in range(5)], 1)
    assert source.ends == {0: 5, 1: 0}
    assert [row.offset for row in rows_of(source)] == list(range(5))
    again = TopicRange(settings, name, ends=source.ends)
    assert [row.offset for row in rows_of(again)] == list(range(5))


def test_nothing_there(topic: Make) -> None:
    settings, name = topic(2)
    source = TopicRange(settings, name)
    assert rows_of(source) == []
    assert source.share_done == 1
    with pytest.raises(TopicError, match="not-there is missing"):
        TopicRange(settings, "not-there")


@pytest.mark.parametrize("waiting", [40, 100_000])
def test_by_time(waiting: int, topic: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a partition runs far ahead of another, and one has no times in between."""
    monkeypatch.setattr(topic_range, "_WAITING_ROWS", waiting)
    monkeypatch.setattr(topic_range, "_FETCH_RECORDS", 50)
    settings, name = topic(3)
    send(settings, name, [event(n) for n in range(1000)], 0)
    send(settings, name, [event(n) for n in range(500, 1500)], 1)
    send(settings, name, [event(n) if n % 3 == 0 else b"?" for n in range(0, 1500, 5)], 2)
    source = TopicRange(settings, name, by_time=True)
    rows = rows_of(source)
    assert len(rows) == 2300
    times = [row.time_ms for row in rows if row.time_ms >= 0]
    assert times == sorted(times)
    for partition in range(3):
        offsets = [row.offset for row in rows if row.partition == partition]
        assert offsets == list(range(len(offsets)))
    assert source.share_done == 1
    assert rows_of(TopicRange(settings, name, by_time=True)) == rows


def test_share_done(topic: Make) -> None:
    settings, name = topic(1)
    send(settings, name, [event(n) for n in range(20_000)])
    source = TopicRange(settings, name)
    assert source.share_done == 0
    shares = [source.share_done for _ in source.blocks({})]
    assert shares == sorted(shares)
    assert 0 < shares[0] < 1
    assert shares[-1] == 1


def test_a_broker_that_went_away(embedded: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded.create_topic(TOPIC, 1)
    settings = settings_of(embedded.bootstrap_servers)
    send(settings, TOPIC, [event(0)])
    monkeypatch.setattr(topic_range, "SILENCE_S", 0.5)
    source = TopicRange(settings, TOPIC)
    embedded.stop()
    with pytest.raises(ReplayError, match=r"events: nothing heard for 0.5 s. See to the broker, then run again"):
        rows_of(source)


# --- what only a real Kafka does


def aborted(settings: Settings, name: str, values: list[bytes], *, commit: bool) -> None:
    producer = Producer(settings.client_properties({"transactional.id": f"test-{uuid.uuid4()}"}))
    producer.init_transactions(20)
    producer.begin_transaction()
    for value in values:
        producer.produce(name, value, partition=0)
    assert producer.flush(20) == 0
    if commit:
        producer.commit_transaction(20)
    else:
        producer.abort_transaction(20)


@pytest.mark.kafka
def test_aborted_records_are_no_rows(kafka: str) -> None:
    settings, name = settings_of(kafka), f"{TOPIC}-{uuid.uuid4().hex[:8]}"
    create(kafka, name, 1)
    aborted(settings, name, [event(0), event(1)], commit=True)
    aborted(settings, name, [event(2)], commit=False)
    source = TopicRange(settings, name)
    assert [row.value for row in rows_of(source)] == [event(0), event(1)]
    assert source.ends == {0: 5}  # with the markers of both
    assert source.share_done == 1


@pytest.mark.kafka
def test_gone_by_retention(kafka: str) -> None:
    settings, name = settings_of(kafka), f"{TOPIC}-{uuid.uuid4().hex[:8]}"
    create(kafka, name, 2)
    for partition in range(2):
        send(settings, name, [event(n) for n in range(10)], partition)
    source = TopicRange(settings, name)
    delete_before(kafka, name, 0, 6)
    said: list[BadRow] = []
    kept = TopicRange(settings, name, Start(2), on_bad=said.append)
    assert kept.begins == {0: 2, 1: 2}
    found = sorted((row.partition, row.offset) for row in rows_of(kept))
    assert found == [(0, offset) for offset in range(6, 10)] + [(1, offset) for offset in range(2, 10)]
    assert [str(row) for row in said] == [
        f"{name}, partition 0:2: offsets 2 to 5 (4) were deleted by retention",
    ]
    assert kept.gone == 4
    assert kept.share_done == 1
    assert len(rows_of(source, {0: 3, 1: 9})) == 5  # deleted after the range was made
    assert source.gone == 3
    assert rows_of(TopicRange(settings, name))[0].number in (0, 6)  # from the earliest nothing is gone
    with pytest.raises(ReplayError, match=rf"{name}, partition 0: offsets 2 to 5 \(4\) were deleted by retention"):
        rows_of(TopicRange(settings, name, Start(2), bad="stop"))
    delete_before(kafka, name, 0, 10)
    assert rows_of(TopicRange(settings, name, Start(2), End(offset=8), [0])) == []


def delete_before(kafka: str, name: str, partition: int, offset: int) -> None:
    admin = AdminClient({"bootstrap.servers": kafka})
    for done in admin.delete_records([TopicPartition(name, partition, offset)]).values():
        done.result(20)


@pytest.mark.kafka
def test_an_open_transaction_is_beyond_the_end(kafka: str) -> None:
    settings, name = settings_of(kafka), f"{TOPIC}-{uuid.uuid4().hex[:8]}"
    create(kafka, name, 1)
    send(settings, name, [event(0)])
    producer = Producer(settings.client_properties({"transactional.id": f"test-{uuid.uuid4()}"}))
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(name, event(1), partition=0)
    assert producer.flush(20) == 0
    source = TopicRange(settings, name)
    assert source.ends == {0: 1}
    assert [row.offset for row in rows_of(source)] == [0]
    producer.abort_transaction(20)
