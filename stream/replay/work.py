"""The work folder of a replay: what it is, when it was begun, and how to pause it.

WORK/replay.json     what is replayed, how: a run that goes on must be of the same replay
WORK/stores/         states by partition (process.FolderTarget)
WORK/paused          there while the replay is to wait
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from state.errors import DriftlineError
from stream.errors import RefusedError

_FILE = "replay.json"
_PAUSED = "paused"


class _Begun(msgspec.Struct):
    identity: dict[str, Any]
    begun_ms: int


def identity_digest(identity: Mapping[str, Any]) -> str:
    """12 hex digits that tell this replay from others: the name of its work folder by default."""
    return blake2b(_encode(identity), digest_size=6).hexdigest()


class Work:
    """A work folder. `path` need not be there yet."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, identity: Mapping[str, Any], now_ms: Callable[[], int] = lambda: int(time.time() * 1000)) -> int:
        """Begin a replay here, or go on with it; returns when it was first begun, ms since 1970.

        identity: all that its results depend on, as JSON.

        Raises:
            RefusedError: another replay was begun here, or nothing can be written.
        """
        wanted: dict[str, Any] = msgspec.json.decode(_encode(identity))
        file = self.path / _FILE
        with contextlib.suppress(FileNotFoundError):
            begun = self._read(file)
            names = sorted({*begun.identity, *wanted})
            other = [name for name in names if begun.identity.get(name) != wanted.get(name)]
            if other:
                raise RefusedError(
                    f"{self.path} holds another replay: {', '.join(other)} differ. Give another folder with --work, "
                    "or begin anew with --fresh."
                )
            return begun.begun_ms
        # What begins with the file's name is of a process that begins it now, or was killed while it did.
        if self.path.exists() and any(not path.name.startswith(_FILE) for path in self.path.iterdir()):
            raise RefusedError(f"{self.path} is there and holds no replay. Give a new or an empty folder with --work.")
        begun_ms = now_ms()
        written = self.path / f"{_FILE}.{os.getpid()}"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            written.write_bytes(msgspec.json.format(_encode(_Begun(wanted, begun_ms)), indent=2))
            os.link(written, file)  # the first of several processes says when it began
        except FileExistsError:
            return self.begin(identity, now_ms)
        except OSError as error:
            raise RefusedError(f"cannot write {self.path}: {error}. Give another folder with --work.") from None
        finally:
            with contextlib.suppress(OSError):
                written.unlink()
        return begun_ms

    @contextlib.contextmanager
    def beginning(self, identity: Mapping[str, Any]) -> Iterator[int]:
        """`begin`, around what may yet refuse the replay: then, if nothing was written, it was not begun.

        Raises as begin.
        """
        is_new = not self.is_replay
        begun_ms = self.begin(identity)
        try:
            yield begun_ms
        except DriftlineError:
            if is_new and [path.name for path in self.path.iterdir()] == [_FILE]:
                self.remove()
            raise

    def _read(self, file: Path) -> _Begun:
        try:
            return msgspec.json.decode(file.read_bytes(), type=_Begun)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise RefusedError(f"cannot read {file}: {error.strerror}. Give another folder with --work.") from None
        except msgspec.DecodeError as error:
            raise RefusedError(f"{file} cannot be read ({error}); begin anew with --fresh.") from None

    @property
    def digest(self) -> str:
        """`identity_digest` of the replay that was begun here; "" without one. Raises RefusedError."""
        return identity_digest(self._read(self.path / _FILE).identity) if self.is_replay else ""

    @property
    def is_replay(self) -> bool:
        """Whether a replay was begun here."""
        return (self.path / _FILE).exists()

    def remove(self) -> None:
        """Forget what was done here. Raises RefusedError when the folder holds no replay."""
        if not self.path.exists():
            return
        if any(self.path.iterdir()) and not self.is_replay:
            raise RefusedError(f"{self.path} holds no replay, so it is not removed. Give another folder with --work.")
        shutil.rmtree(self.path)

    @property
    def paused(self) -> bool:
        """Whether the replay is to wait."""
        return (self.path / _PAUSED).exists()

    def pause(self, wanted: bool) -> None:
        """Let a running replay wait, or go on. Raises RefusedError when there is none."""
        if not self.is_replay:
            raise RefusedError(f"{self.path} holds no replay. Give the work folder that the replay told when it began.")
        if wanted:
            (self.path / _PAUSED).touch()
        else:
            (self.path / _PAUSED).unlink(missing_ok=True)


_encode = msgspec.json.Encoder(order="sorted").encode
