"""What a replay's agents send, as files: one folder for each kind, in it one file of JSON lines for each partition.

    OUT/lists/00007.jsonl        lists as the recommendations topic would hold them; {"removed": user} for a tombstone
    OUT/late/…  dead-letters/…   key, value and headers of the record, with the file and row that it came from
    OUT/erasures/…  rekey/…      and what else was sent

A file is only ever written to its end. How long it was at each commit stands in the store (`process.Progress`), so
that what a killed process wrote after its last commit is cut off when the replay goes on.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from stream.contract.control import ERROR_OFFSET
from stream.engine import Chunk
from stream.errors import RefusedError, ReplayError
from stream.replay.record import LogRecord
from stream.settings import TopicsSection

LISTS = "lists"
_OWNER = ".replay"
"""In OUT: the id of the replay that it belongs to."""

_encode = msgspec.json.Encoder().encode


def claim(out: Path, replay_id: str) -> None:
    """Make `out` the folder of one replay: files of two would be taken for those of one, and cut.

    Raises:
        RefusedError: it holds something else.
    """
    is_filled = out.exists() and any(not path.name.startswith(_OWNER) for path in out.iterdir())
    owner = out / _OWNER
    if owner.exists():
        if owner.read_text() != replay_id:
            raise RefusedError(f"{out} holds what another replay sent. Give a new or an empty folder with --out.")
        return
    if is_filled:
        raise RefusedError(f"{out} is there and is no replay's. Give a new or an empty folder with --out.")
    out.mkdir(parents=True, exist_ok=True)
    written = out / f"{_OWNER}.{os.getpid()}"
    written.write_text(replay_id)
    written.rename(owner)  # whole or not at all


class PartitionFiles:
    """The files of one partition.

    Args:
        folder: OUT.
        number: of the partition.
        topics: names of the topics that agents send to.
        lengths: bytes of each file at the last commit, by kind; what a file has beyond is cut off.

    Raises:
        ReplayError: a file is shorter than it was.
    """

    def __init__(self, folder: Path, number: int, topics: TopicsSection, lengths: Mapping[str, int]) -> None:
        self._folder, self._name = folder, f"{number:05d}.jsonl"
        self._kinds = {
            topics.recommendations: LISTS,
            topics.late: "late",
            topics.dead_letters: "dead-letters",
            topics.rekey: "rekey",
            topics.erasures: "erasures",
        }
        self._open: dict[str, BinaryIO] = {}
        self.lengths: dict[str, int] = {}
        try:
            for path in folder.glob(f"*/{self._name}"):
                kind = path.parent.name
                self._cut(kind, lengths.get(kind, 0))
            missing = [kind for kind in lengths if kind not in self.lengths]
            if missing:
                raise ReplayError(f"{folder}: {', '.join(missing)}/{self._name} is gone; begin anew with --fresh.")
        except ReplayError:
            self.close()
            raise

    def _cut(self, kind: str, length: int) -> None:
        file = self._file(kind)
        if file.seek(0, os.SEEK_END) < length:
            raise ReplayError(
                f"{self._folder / kind / self._name} has lost its end, of which the states know; begin anew with "
                "--fresh."
            )
        file.truncate(length)
        file.seek(length)
        self.lengths[kind] = length

    def _file(self, kind: str) -> BinaryIO:
        file = self._open.get(kind)
        if file is None:
            path = self._folder / kind / self._name
            path.parent.mkdir(parents=True, exist_ok=True)
            file = self._open[kind] = path.open("r+b" if path.exists() else "w+b")
            self.lengths.setdefault(kind, 0)
        return file

    def write(self, chunk: Chunk) -> None:
        """Append what the agent sent of a chunk."""
        lines: dict[str, list[bytes]] = {}
        places: dict[bytes | None, LogRecord] = {}
        for topic, value, key, _, headers in chunk.sends:
            kind = self._kinds.get(topic, topic)
            if kind == LISTS:
                line = value if value is not None else _encode({"removed": _text(key)})
            else:
                places = places or {b"%d" % record.place[1]: record for record in chunk.records}
                line = _encode(_told(key, value, dict(headers or ()), places))
            lines.setdefault(kind, []).append(line)
        for kind, made in lines.items():
            block = b"\n".join(made) + b"\n"
            self._file(kind).write(block)
            self.lengths[kind] += len(block)
        for file in self._open.values():
            file.flush()

    def sync(self) -> None:
        """Put what was written on disk."""
        for file in self._open.values():
            os.fsync(file.fileno())

    def close(self) -> None:
        """Close the files."""
        for file in self._open.values():
            file.close()


def _told(
    key: bytes | None,
    value: bytes | None,
    headers: dict[str, bytes | None],
    places: Mapping[bytes | None, LogRecord],
) -> dict[str, Any]:
    told: dict[str, Any] = {"key": _text(key)}
    record = places.get(headers.get(ERROR_OFFSET))
    if record is not None:
        told |= {"log": record.log, "row": record.number}
    try:
        text = value or b"null"
        msgspec.json.decode(text)
        # A line is a record: JSON of several lines, which a topic may hold, is written as one.
        told["value"] = msgspec.Raw(text if len(text.splitlines()) == 1 else msgspec.json.format(text, indent=-1))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # bytes that are no JSON are kept as they are
        told["value_base64"] = base64.b64encode(value or b"").decode()
    if headers:
        told["headers"] = {name: _text(held) for name, held in headers.items()}
    return told


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode("utf-8", "replace")
