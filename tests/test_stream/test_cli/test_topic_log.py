"""Training on a range of the events topic, on the embedded broker."""

import json
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, Message, Producer

from model.artifact import load_artifact
from model.training.dataset import Dataset, LogReader
from stream.cli.topic_log import read_topic
from stream.errors import RefusedError
from stream.reading import End, Start
from stream.settings import Settings

AT_MS = 1_767_323_045_000


def event(number: int, user: str, item: str, **more: Any) -> dict[str, Any]:
    return {
        "event_id": f"e{number}",
        "event_type": "purchase",
        "occurred_at": AT_MS + number * 1000,
        "user_id": user,
        "item_id": item,
        **more,
    }


def send(settings: Settings, values: list[bytes], partition: int = 0) -> None:
    producer = Producer(settings.client_properties())
    for number, value in enumerate(values):
        producer.produce(settings.topics.events, value, partition=partition, timestamp=AT_MS + number * 1000)
    assert producer.flush(10) == 0


def encoded(*events: dict[str, Any]) -> list[bytes]:
    return [json.dumps(event).encode() for event in events]


def learnt(settings: Settings, start: str = "earliest", end: str = "latest") -> tuple[Dataset, Counter[str]]:
    reader, broken = LogReader(), Counter[str]()
    span = Start.parse(start, AT_MS), End.parse(end)
    for _ in read_topic(settings, settings.topics.events, *span, reader, broken):
        pass
    return reader.dataset(min_item_events=1, session_gap_s=1800, source="topic"), broken


def rows(data: Dataset) -> list[tuple[str, str]]:
    return [(data.user_ids[u], data.item_ids[i]) for u, i in zip(data.user, data.item, strict=True)]


def test_events_are_decoded_as_the_worker_does(settings: Settings) -> None:
    send(
        settings,
        encoded(
            event(1, "u", "a", category="tea", brand="acme", price=2.5),
            event(2, "u", "", items=[{"item_id": "b", "price": 4}, "c"]),
            {"event": "Product Viewed", "userId": "u", "timestamp": "2026-01-02T03:04:07Z", "product_id": "d"},
            event(1, "u", "a"),  # sent twice
            event(5, "u", "e", event_type="impression"),
        ),
    )
    data, broken = learnt(settings)
    assert rows(data) == [("u", "a"), ("u", "b"), ("u", "c"), ("u", "d")]
    assert (data.item_categories[0], data.item_brands[0]) == ("tea", "acme")
    assert data.item_prices == [2.5, 4.0, None, None]
    assert not broken


def test_broken_events_are_counted_and_not_fatal(settings: Settings) -> None:
    send(settings, [b"{", *encoded(event(1, "u", "a"), event(2, "", "a"), event(3, "u", "a", event_type="stare"))])
    data, broken = learnt(settings)
    assert rows(data) == [("u", "a")]
    assert broken == {"not_json": 1, "no_user": 1, "unknown_event_type": 1}


def test_times_are_judged_by_the_record_as_the_worker_does_and_not_by_when_it_is_trained(settings: Settings) -> None:
    """The second is a day ahead of its record; the clock of the third's sender is an hour behind."""
    day_ms, hour_ms = 86_400_000, 3_600_000
    behind = {"occurred_at": AT_MS - hour_ms, "sent_at": AT_MS + 2000 - hour_ms}
    values = encoded(event(0, "u", "a"), event(1, "u", "b", occurred_at=AT_MS + day_ms), event(2, "u", "c", **behind))
    send(settings, values)
    data, broken = learnt(settings)
    assert rows(data) == [("u", "a"), ("u", "c")]
    assert data.time_ms.tolist() == [AT_MS, AT_MS]
    assert broken == {"future_time": 1}
    events = settings.events.model_copy(update={"future_policy": "clamp", "correct_skew": "off"})
    data, broken = learnt(settings.model_copy(update={"events": events}))
    assert rows(data) == [("u", "c"), ("u", "a"), ("u", "b")]
    assert data.time_ms.tolist() == [AT_MS - hour_ms, AT_MS, AT_MS + 1000]
    assert not broken


def test_a_header_that_cannot_be_read_ends_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """confluent-kafka raises SystemError for the name of a header that is not UTF-8."""
    (value,) = encoded(event(1, "u", "a"))
    record = create_autospec(Message, instance=True)
    record.value.return_value, record.timestamp.return_value = value, (TIMESTAMP_CREATE_TIME, AT_MS)
    record.headers.side_effect = SystemError("returned a result with an exception set")
    monkeypatch.setattr("stream.cli.topic_log.read", lambda *_, **__: iter([record]))
    broken = Counter[str]()
    list(read_topic(settings, "events", Start(), End(), LogReader(), broken))
    assert broken == {"bad_header": 1}


def test_what_came_before_a_user_was_erased_is_not_learnt(settings: Settings) -> None:
    erased = event(3, "u", "", event_type="user_erased")
    send(settings, encoded(event(1, "u", "a"), event(2, "v", "b"), erased, event(4, "u", "c")))
    data, _ = learnt(settings)
    assert rows(data) == [("u", "c"), ("v", "b")]


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ("earliest", "latest", "abcde"),
        ("offset=2", "latest", "cde"),
        ("earliest", "offset=2", "ab"),
        ("offset=1", "offset=3", "bc"),
        (f"ts={AT_MS + 1000}", f"ts={AT_MS + 3000}", "bc"),
        ("offset=0", "offset=99", "abcde"),
    ],
)
def test_a_range(settings: Settings, start: str, end: str, expected: str) -> None:
    send(settings, encoded(*(event(number, "u", item) for number, item in enumerate("abcde"))), partition=3)
    data, _ = learnt(settings, start, end)
    assert "".join(item for _, item in rows(data)) == expected


@pytest.mark.parametrize("text", ["now", "offset=x", "offset=-1", "ts=soon"])
def test_an_end_that_is_none(text: str) -> None:
    with pytest.raises(RefusedError, match=f"--to {text}"):
        End.parse(text)


@pytest.mark.parametrize("more", [(), ("--memory-events", "10")])
def test_trains_on_a_topic(
    driftline, there: tuple[str, str], settings: Settings, tmp_path: Path, more: tuple[str, ...]
) -> None:
    good = [event(n, f"u{n % 10}", f"i{(n % 10 + n // 10) % 12}") for n in range(200)]
    send(settings, [*encoded(*good), b"nonsense"])
    out = tmp_path / "model"
    flags = ("--topic", settings.topics.events, "--out", str(out), "--epochs", "2", "--threads", "1", "-o", "json")
    done = driftline("train", *there, *flags, *more)
    assert done.code == 0, done.err
    assert json.loads(done.out)["broken_events"] == 1
    assert "1 broken events were left out: not_json 1" in done.err
    artifact = load_artifact(out)
    assert artifact.data["events"] == 200
    assert artifact.data["source"] == settings.topics.events
