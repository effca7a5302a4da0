"""`driftline state stats`, from a changelog written by hand on the embedded broker."""

import json
from typing import Any

import yaml
from confluent_kafka import Producer

from state.codec import encode_state
from state.interest import InterestState
from stream.settings import Settings
from stream.state_stats import read_stats, total

AT_MS = 1_767_323_045_000


def _write(settings: Settings, records: list[tuple[bytes, bytes | None, int]]) -> None:
    producer = Producer(settings.client_properties())
    for key, value, partition in records:
        producer.produce(settings.topics.changelog, value, key, partition)
    assert producer.flush(10) == 0


def _state(at_ms: int) -> bytes:
    return encode_state(InterestState(last_time_ms=at_ms))


def _fill(settings: Settings) -> int:
    """Three users on two partitions, one of them written twice, a fourth erased; the length of a state."""
    _write(
        settings,
        [
            (b"ann", _state(AT_MS - 999), 0),
            (b"\0trend", b"a record of the partition", 0),
            (b"bob", _state(AT_MS + 5_000), 0),
            (b"ann", _state(AT_MS), 0),
            (b"cat", _state(AT_MS + 9_000), 3),
            (b"dan", _state(AT_MS - 99_000), 3),
            (b"dan", None, 3),
            (b"odd", b"\xffno state", 3),
        ],
    )
    return len(_state(AT_MS))


def test_figures_of_each_partition_and_all_together(settings: Settings) -> None:
    size_bytes = _fill(settings)
    first, second = read_stats(settings)
    assert (first.partition, first.users, first.bytes, first.max_bytes) == (0, 2, 2 * size_bytes, size_bytes)
    assert (first.oldest_ms, first.newest_ms, first.records) == (AT_MS, AT_MS + 5_000, 4)
    assert (second.partition, second.users, second.unreadable, second.oldest_ms) == (3, 2, 1, AT_MS + 9_000)
    whole = total([first, second])
    assert (whole.users, whole.oldest_ms, whole.newest_ms, whole.records) == (4, AT_MS, AT_MS + 9_000, 8)


def test_nothing_is_no_mistake(driftline: Any, there: Any) -> None:
    told = json.loads(driftline("state", "stats", *there, "-o", "json").out)
    assert told["partitions"] == []
    assert (told["total"]["users"], told["total"]["oldest"]) == (0, None)


def test_as_json_yaml_and_a_table(driftline: Any, there: Any, settings: Settings) -> None:
    size_bytes = _fill(settings)
    told = json.loads(driftline("state", "stats", *there, "-o", "json").out)
    assert told == yaml.safe_load(driftline("state", "stats", *there, "-o", "yaml").out)
    assert told["total"]["users"] == 4
    assert told["partitions"][0] == {
        "partition": 0,
        "users": 2,
        "bytes": 2 * size_bytes,
        "mean_bytes": float(size_bytes),
        "max_bytes": size_bytes,
        "oldest": "2026-01-02T03:04:05.000Z",
        "newest": "2026-01-02T03:04:10.000Z",
        "unreadable": 0,
        "records": 4,
    }
    table = driftline("state", "stats", *there).out.splitlines()
    assert table[0].split()[:4] == ["partition", "users", "bytes", "mean_bytes"]
    assert [line.split()[:2] for line in table[1:]] == [["0", "2"], ["3", "2"], ["all", "4"]]
    assert "ann" not in "".join(table)
