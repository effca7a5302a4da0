"""Whether a replay of a topic gave what the live workers gave: every user's state and last list, byte for byte.

    changelog of the group ──┐                     recommendations topic ──┐
                             ├─ by user: equal?                            ├─ by user: equal but for generated_at?
    stores of the replay ────┘                     lists of the replay ────┘

Both sides are read in order of keys from stores on disk, so memory is bounded. States are compared as bytes. What a
partition keeps for itself (names, popularity since the last border, and the like) is cut as the chunks were, and is
not compared here: what it says is in the states and lists.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import KafkaException

from state.keys import user_key
from state.store import RocksStore
from stream.engine.cycle import Partition
from stream.engine.recovery import recover
from stream.errors import ReadError, ReplayError
from stream.replay.outputs import LISTS
from stream.replay.process import store_path
from stream.settings import Settings

_NAMED = 5
"""Users named of those that differ."""
_BATCH = 1000


class Compared(msgspec.Struct):
    """What two sides say of users. differing: keys of the first few that are not equal on both."""

    equal: int = 0
    different: int = 0
    only_live: int = 0
    only_replay: int = 0
    differing: list[str] = []

    @property
    def same(self) -> bool:
        """Whether there is something, and no user differs."""
        return self.equal > 0 and not (self.different or self.only_live or self.only_replay)


class Verified(msgspec.Struct):
    """States and last lists of a replay against those of the live workers."""

    states: Compared
    lists: Compared


def verify(settings: Settings, work: Path, out: Path, partitions: int) -> Verified:
    """Compare the replay in `work` and `out` with what the workers of `settings` made: their changelog, their lists.

    partitions: of the events topic. The workers must have come to the end of the range that was replayed.

    Raises:
        ReplayError: the folders hold no replay.
        EngineError, ReadError: the topics cannot be read.
    """
    topics = settings.topics
    states, lists = Compared(), Compared()
    with tempfile.TemporaryDirectory(prefix="driftline-verify-") as folder:
        for number in range(partitions):
            path = store_path(work, number)
            if not path.exists():
                raise ReplayError(f"{path} is missing: is {work} the work folder of a replay of all partitions?")
            replayed = RocksStore(path)
            live = _compacted(settings, topics.changelog, number, Path(folder) / f"states-{number}.db")
            _compare(states, _users(live), _users(replayed))
            live.close()
            replayed.close()
            live = _compacted(settings, topics.recommendations, number, Path(folder) / f"live-{number}.db")
            own = RocksStore(Path(folder) / f"own-{number}.db")
            _fill(own, out / LISTS / f"{number:05d}.jsonl")
            _compare(lists, _shown(live), _shown(own))
            live.close()
            own.close()
    return Verified(states, lists)


def _compacted(settings: Settings, topic: str, number: int, path: Path) -> RocksStore:
    """The last value of each key of one partition of a compacted topic."""
    store = RocksStore(path)
    try:
        recover([Partition(topic, number, topic, store, 0)], settings.client_properties())
    except KafkaException as error:
        raise ReadError(f"cannot read {topic}: {error.args[0].str()}. See to the broker.") from None
    return store


def _users(store: RocksStore) -> Iterator[tuple[bytes, bytes]]:
    return ((key, value) for key, value in store.items() if not key.startswith(b"\0"))


def _shown(store: RocksStore) -> Iterator[tuple[bytes, Any]]:
    """Lists without the time at which they were made."""
    for key, value in store.items():
        made = msgspec.json.decode(value)
        made.pop("generated_at", None)
        yield key, made


def _fill(store: RocksStore, file: Path) -> None:
    """The last list of each user from a file of a replay's lists."""
    puts: list[tuple[bytes, bytes | None]] = []
    if not file.exists():
        return
    with file.open("rb") as lines:
        for line in lines:
            made = msgspec.json.decode(line)
            if "removed" in made:
                puts.append((made["removed"].encode(), None))
            else:
                puts.append((user_key(made["user_id"], made.get("tenant", "")), line.rstrip()))
            if len(puts) == _BATCH:
                store.write(puts, None)
                puts = []
    store.write(puts, None)


def _compare(into: Compared, live: Iterable[tuple[bytes, Any]], replayed: Iterable[tuple[bytes, Any]]) -> None:
    """Both in order of keys."""
    left, right = iter(live), iter(replayed)
    a, b = next(left, None), next(right, None)
    while a is not None or b is not None:
        if b is None or (a is not None and a[0] < b[0]):
            assert a is not None
            into.only_live += 1
            _name(into, a[0])
            a = next(left, None)
        elif a is None or b[0] < a[0]:
            into.only_replay += 1
            _name(into, b[0])
            b = next(right, None)
        else:
            if a[1] == b[1]:
                into.equal += 1
            else:
                into.different += 1
                _name(into, a[0])
            a, b = next(left, None), next(right, None)


def _name(into: Compared, key: bytes) -> None:
    if len(into.differing) < _NAMED:
        into.differing.append(key.decode("utf-8", "replace"))
