"""The names of interests: states keep 32-bit keys, and people read names.

One vocabulary a partition, of all categories that its events named (and brands and the like, where
`StateSettings.interests` wants them), kept in the changelog: small records, one for each chunk that brought a new name,
so that a list made after a restart names what it named before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from state.errors import StateCorruptError
from state.keys import SEPARATOR
from state.window import ALL_WINDOWS

MAX_NAMES = 20_000
"""Names kept of a partition; those beyond it are not shown. Catalogues have hundreds or thousands of categories."""
MAX_NAME_CHARS = 80

_MAX_KIND_CHARS = 32
# Of one record, 920 kB at most (660 kB of categories): brokers take a megabyte by default.
_MAX_RECORD_NAMES = 2_000

_KEY = b"\0names"
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[tuple[int, str]]).decode


def names_key(index: int) -> bytes:
    """Changelog key of the record number `index`. A user's key never begins with a zero byte."""
    return b"%s/%d" % (_KEY, index)


def interest_name(name: str, kind: str = "") -> str:
    """The name of an interest, with its kind where it is no category; `interest_key` of it is that of both."""
    return f"{kind}{SEPARATOR}{name}" if kind else name


def name_and_kind(text: str) -> tuple[str, str]:
    """(name, kind) of what `interest_name` made; kind '' for a category."""
    kind, separator, name = text.partition(SEPARATOR)
    return (name, kind) if separator else (text, "")


class Names:
    """Names of one partition by `state.window.interest_key`."""

    def __init__(self) -> None:
        self.by_key: dict[int, str] = {}
        """Of two names of one key the first: 1 pair among 3,000 names in a thousand shops."""
        self._undrained: list[tuple[int, str]] = []
        self._records = 0

    def learn(self, keys: Sequence[int], names: Sequence[str]) -> None:
        """Remember the names of interests met, by their keys; `interest_name` of each, or none at all."""
        for key, name in zip(keys, names, strict=False):
            if key not in self.by_key and len(self.by_key) < MAX_NAMES:
                kind_chars = min(name.find(SEPARATOR), _MAX_KIND_CHARS) + 1
                # Half a surrogate pair is no text; msgspec refuses it, but not everything is read by msgspec.
                shown = name[: kind_chars + MAX_NAME_CHARS].encode("utf-8", "replace").decode()
                self.by_key[key] = shown
                self._undrained.append((key, shown))

    def drain(self) -> list[tuple[bytes, bytes]]:
        """Records for the changelog since the last drain."""
        records = []
        for at in range(0, len(self._undrained), _MAX_RECORD_NAMES):
            records.append((names_key(self._records), _encode(self._undrained[at : at + _MAX_RECORD_NAMES])))
            self._records += 1
        self._undrained = []
        return records

    @classmethod
    def load(cls, get: Callable[[bytes], bytes | None]) -> Names:
        """The names of all records that `get` returns by key.

        Raises StateCorruptError when a record cannot be read.
        """
        names = cls()
        while (record := get(names_key(names._records))) is not None:
            try:
                found = _decode(record)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise StateCorruptError(
                    f"a record of the names of interests cannot be read ({error}): the store or the changelog was "
                    "damaged or written by a newer Driftline. Stop the worker, delete its data folder (it is rebuilt "
                    "from the changelog) and start it again."
                ) from error
            for key, name in found:
                names.by_key.setdefault(key & ~ALL_WINDOWS, name)  # older keys have more bits
            names._records += 1
        return names
