"""What an agent of a chunk topic gets: a run of records of one partition, as one Faust event.

    events = app.topic("driftline.events.v1", schema=ChunkTopic(changelog="driftline.state.v1.changelog"), acks=False)

    @app.agent(events)
    async def interest(stream):
        async for chunk in stream:
            with chunk:                      # leaving it without an exception puts the chunk into the transaction
                for record in chunk.records: ...
                chunk.put(key, value)        # -> local store and changelog
                chunk.send(topic, value)     # -> the same transaction

A fetch brings a chunk of each partition that has records. An agent whose work costs less for all of them together
lets the others pass and takes `chunk.fetched` when the last comes (`chunk.last`).

What the agent puts and sends is only collected. The cycle commits it, with the offsets of the records, in one
transaction, and writes the local store afterwards. An exception in the block ends the process: nothing was
produced, so a restart finds everything as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import faust

if TYPE_CHECKING:
    from confluent_kafka import Message

    from stream.engine.cycle import Partition

Headers = list[tuple[str, bytes | None]]
Send = tuple[str, bytes | None, bytes | None, int, Headers | None]


class ChunkTopic(faust.Schema):
    """Declares a topic a chunk topic.

    Args:
        changelog: the topic that backs the agent's state, with the same partition count; None for an agent
            without state.
        group: the consumer group that reads this topic, and no other; None: the app's id, a dot and the topic.
    """

    def __init__(self, changelog: str | None = None, group: str | None = None) -> None:
        super().__init__()
        self.changelog = changelog
        self.group = group

    def compile(self, app: Any, **_: Any) -> Callable[..., Any]:
        """Faust asks here how a message becomes an event: a chunk is its own value."""
        create_event = app.create_event

        async def decode(message: Any, *, propagate: bool = False) -> Any:  # noqa: ARG001 - Faust's signature
            return create_event(None, message.value, None, message)

        return decode


class Chunk:
    """A run of records of one partition, in offset order, and what the agent made of it."""

    __slots__ = ("_earlier", "_finished", "last", "open", "partition", "puts", "records", "sends")

    def __init__(
        self,
        partition: Partition,
        records: Sequence[Message],
        finished: Callable[[Chunk], None],
        earlier: Sequence[Chunk] | None = (),
    ) -> None:
        """`earlier`: the other chunks of its fetch when this is the last one, else None."""
        self.partition = partition
        self.records = records
        self.puts: list[tuple[bytes, bytes | None]] = []
        self.sends: list[Send] = []
        self.open = True
        self.last = earlier is not None
        """The last chunk of its fetch."""
        self._finished = finished
        # Only the last refers to the others: no cycle of references keeps records in memory.
        self._earlier = tuple(earlier or ())

    @property
    def fetched(self) -> list[Chunk]:
        """On the last chunk of a fetch: all of its chunks, one a partition, this one at the end."""
        return [*self._earlier, self]

    @property
    def memo(self) -> dict[str, Any]:
        """What the agent keeps of this partition in memory. Emptied when it may no longer agree with the store:
        at an assignment and after an aborted transaction."""
        return self.partition.memo

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Committed values of `keys`, in their order; None where there is none."""
        return self.partition.store.get_many(keys)

    def get(self, key: bytes) -> bytes | None:
        """Committed value of `key`, or None."""
        return self.partition.store.get_many([key])[0]

    def scan(self, after: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """The first `limit` committed keys after `after`, with their values, in key order."""
        return self.partition.store.scan(after, limit)

    def put(self, key: bytes, value: bytes | None) -> None:
        """Set `key` in the local store and the changelog; None removes it (a tombstone)."""
        self.puts.append((key, value))

    def send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        partition: int = -1,
        headers: Headers | None = None,
    ) -> None:
        """Send a record in this chunk's transaction. Partition -1: murmur2 of the key."""
        self.sends.append((topic, value, key, partition, headers))

    def __enter__(self) -> Chunk:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.open = False
        if kind is None:
            self._finished(self)
        # An exception goes on to Faust, and from there to Consumer.on_task_error.
