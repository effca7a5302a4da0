"""Records and chunks without a broker, for tests of agents."""

from __future__ import annotations

import json
from typing import Any

from state.store import MemoryStore
from stream.engine.chunk import Chunk
from stream.engine.cycle import Partition


class Record:
    """What an agent reads of a confluent_kafka.Message."""

    def __init__(
        self,
        value: bytes | None,
        key: bytes | None,
        offset: int,
        *,
        topic: str = "driftline.events.v1",
        partition: int = 0,
        timestamp_ms: int = 1_780_000_000_000,
        headers: list[tuple[str, bytes | None]] | None = None,
    ) -> None:
        self._value, self._key, self._offset, self._headers = value, key, offset, headers
        self._topic, self._partition, self._timestamp_ms = topic, partition, timestamp_ms

    def value(self) -> bytes | None:
        return self._value

    def key(self) -> bytes | None:
        return self._key

    def offset(self) -> int:
        return self._offset

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return self._partition

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return self._headers

    def timestamp(self) -> tuple[int, int]:
        return 1, self._timestamp_ms


def event(user: str, item: str, offset: int, **more: Any) -> Record:
    """A valid view, on partition 0, under its user's key."""
    fields = {
        "event_id": f"e{offset}",
        "event_type": "view",
        "user_id": user,
        "item_id": item,
        "occurred_at": 1_780_000_000_000 + offset,
    }
    key = more.pop("key", user.encode())
    return Record(json.dumps({**fields, **more}).encode(), key, offset)


class FakePartition(Partition):
    """Partition 0 with a store in memory; `take` runs an agent's work and commits it, as a cycle does."""

    def __init__(self) -> None:
        super().__init__("driftline.events.v1", 0, "driftline.state.v1.changelog", MemoryStore(), 0)

    def chunk(self, records: list[Record]) -> Chunk:
        return Chunk(self, records, lambda _: None)  # type: ignore[arg-type]  # a stand-in for Message

    def commit(self, chunk: Chunk) -> None:
        self.store.write(chunk.puts, None)
