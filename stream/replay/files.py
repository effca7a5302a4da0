"""Files of a log, wherever they lie: one, a folder of them, a pattern, or a bucket of an S3-compatible store.

log.jsonl   folder/   logs/2026-*.csv.gz   s3://bucket/prefix   -
"""

from __future__ import annotations

import csv
import glob
import io
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

import msgspec

from stream.errors import RefusedError
from stream.event_file import FORMATS, PACKED, Place, ending_of, format_of, unbuffered, unpacked
from stream.replay.presets import Head

STDIN = "-"
ENDINGS = (*FORMATS, ".inter", ".dat", ".data", ".txt", ".tsv")
"""Endings of the files of a folder that are read, before those of PACKED."""
_HEAD_LINES = 1000
_HEAD_BYTES = 1 << 20
_EDGE_BYTES = 1 << 16
# Of a store: each fetch is a request, which takes some ten ms whatever its size.
_FETCH_BYTES = 4 << 20


@dataclass(frozen=True)
class LogFile:
    """A file. name: what messages and event ids call it; in a folder its path from there."""

    name: str
    path: Path
    place: Place | None = None
    parts: Mapping[str, str] | None = None
    """What its path tells: `event_type=view/`."""

    @property
    def size(self) -> int:
        """In bytes; 0 for standard input. Raises OSError."""
        if str(self.path) == STDIN:
            return 0
        return self.place.size if self.place else self.path.stat().st_size

    def open(self) -> IO[bytes]:
        """Its bytes. Raises OSError."""
        return self.place.open() if self.place else self.path.open("rb")


@dataclass(frozen=True)
class Remote:
    """A file in a store that pyarrow knows: a `Place`."""

    system: Any
    path: str
    size: int

    def open(self) -> IO[bytes]:
        """Its bytes. Raises OSError."""
        return io.BufferedReader(self.system.open_input_file(self.path), _FETCH_BYTES)


def find_files(source: str) -> list[LogFile]:
    """The files that a source names, by path. Raises RefusedError when there are none."""
    if source == STDIN:
        return [LogFile("standard input", Path(STDIN))]
    if "://" in source:
        return _remote(source)
    path = Path(source)
    if path.is_dir():
        found = [_in_folder(path, file) for file in sorted(path.rglob("*")) if file.is_file()]
        return _readable(found, source)
    if path.exists():
        return [LogFile(path.name, path)]
    if glob.has_magic(source):
        found = []
        for match in map(Path, sorted(glob.glob(source, recursive=True))):
            if match.is_dir():
                found += [_in_folder(match, file) for file in sorted(match.rglob("*")) if file.is_file()]
            else:
                found.append(LogFile(match.name, match))
        return _readable(found, source)
    raise RefusedError(f"cannot read {source}: there is no such file. Give a file, a folder, a pattern or topic:NAME.")


def _in_folder(folder: Path, file: Path, place: Place | None = None) -> LogFile:
    inside = file.relative_to(folder)
    steps = [step.partition("=") for step in inside.parts[:-1] if "=" in step]
    return LogFile(inside.as_posix(), file, place, {name: unquote(value) for name, _, value in steps})


def _readable(files: list[LogFile], source: str) -> list[LogFile]:
    found = [
        file
        for file in files
        if ending_of(file.path.name) in ENDINGS
        and not any(step.startswith((".", "_")) for step in Path(file.name).parts)
    ]
    if not found:
        raise RefusedError(
            f"{source} holds no file that can be read: their names end in {', '.join(ENDINGS)}, "
            f"and perhaps {', '.join(PACKED)}."
        )
    return found


def _remote(uri: str) -> list[LogFile]:
    from pyarrow import fs

    try:
        system, path = fs.FileSystem.from_uri(uri)
        info = system.get_file_info(path)
        if info.type == fs.FileType.File:
            return [LogFile(Path(path).name, Path(path), Remote(system, path, info.size))]
        inside = system.get_file_info(fs.FileSelector(path, recursive=True))
    except (OSError, ValueError) as error:
        raise RefusedError(f"cannot read {uri}: {error}. See to the address and to the rights there.") from None
    found = [
        _in_folder(Path(path), Path(file.path), Remote(system, file.path, file.size))
        for file in sorted(inside, key=lambda file: file.path)
        if file.type == fs.FileType.File
    ]
    return _readable(found, uri)


def head_of(file: LogFile) -> Head:
    """The beginning of a file. Raises OSError, EOFError, ValueError when it cannot be read."""
    kind = format_of(file.path.name)
    if str(file.path) == STDIN:
        return Head([], (), "jsonl")
    with ExitStack() as open_files:
        stream = unpacked(open_files.enter_context(file.open()), open_files)
        if kind == "parquet":
            from pyarrow.parquet import read_schema

            return Head([], tuple(read_schema(unbuffered(stream)).names), kind)
        lines, size = [], 0
        for line in islice(stream, _HEAD_LINES):
            lines.append(line.decode("utf-8-sig", "replace").strip())
            size += len(line)
            if size > _HEAD_BYTES:
                break
    lines = [line for line in lines if line]
    first = lines[0] if lines else ""
    if kind == "jsonl" or first.startswith("{"):
        try:
            members = msgspec.json.decode(first, type=dict[str, Any])
        except msgspec.DecodeError:
            members = {}
        return Head(lines, tuple(members), "jsonl")
    cells = next(csv.reader([first])) if '"' in first else first.split(",")
    return Head(lines, tuple(cells) if lines else (), kind)


def digest_of(file: LogFile) -> bytes:
    """Of a file's size, beginning and end: two of the same are taken for one. Raises OSError."""
    size = file.size
    with file.open() as stream:
        begin = stream.read(_EDGE_BYTES)
        stream.seek(max(0, size - _EDGE_BYTES))
        return blake2b(b"%d " % size + begin + stream.read(_EDGE_BYTES), digest_size=16).digest()
