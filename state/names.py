"""The names of interests: states keep 32-bit keys, and people read names.

One vocabulary a partition, of all categories that its events named, kept in the changelog: small records, one for
each chunk that brought a new name, so that a list made after a restart names what it named before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from state.errors import StateCorruptError
from state.window import interest_key

MAX_NAMES = 20_000
"""Names kept of a partition; those beyond it are not shown. Catalogues have hundreds or thousands of categories."""
MAX_NAME_CHARS = 80

# Of one record, 660 kB at most: brokers take a megabyte by default.
_MAX_RECORD_NAMES = 2_000

_KEY = b"\0names"
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[tuple[int, str]]).decode


def names_key(index: int) -> bytes:
    """Changelog key of the record number `index`. A user's key never begins with a zero byte."""
    return b"%s/%d" % (_KEY, index)


class Names:
    """Names of one partition by `state.window.interest_key`."""

    def __init__(self) -> None:
        self.by_key: dict[int, str] = {}
        """Of two names of one key the first: 1 pair among 3,000 names in a thousand shops."""
        self._undrained: list[tuple[int, str]] = []
        self._records = 0

    def learn(self, names: Iterable[str]) -> None:
        """Remember the names of interests met; '' is none."""
        for name in names:
            if name:
                key = interest_key(name)
                if key not in self.by_key and len(self.by_key) < MAX_NAMES:
                    # Half a surrogate pair is no text; msgspec refuses it, but not everything is read by msgspec.
                    shown = name[:MAX_NAME_CHARS].encode("utf-8", "replace").decode()
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
            names.by_key.update(found)
            names._records += 1
        return names
