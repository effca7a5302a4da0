"""Categories of items that nobody but the events told of: not the catalogue, not the model.

One table a partition, in its changelog, so that what is learnt depends on the partition's log alone, and a restart
knows it. An item has one place in it, by its key; there are so many places and no more. A place stays with its item for
HOLD offsets: a stream of items that come once would else write a record with each event.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from state.errors import StateCorruptError

HOLD = 65_536
"""So many offsets later another item may have the place: with 4,096 places one record for 16 events at most."""

_KEY = b"\0learnt"
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[int, int, str]).decode
_NOBODY = (0, 0, "")


def learnt_key(place: int) -> bytes:
    """Changelog key of a place. A user's key never begins with a zero byte."""
    return b"%s/%d" % (_KEY, place)


class LearntItems:
    """Items of one partition that only its events know.

    Args:
        places: items at most; 0: none.
        get: the value of a changelog key, committed; a place is read when it is first asked for.
    """

    def __init__(self, places: int, get: Callable[[bytes], bytes | None]) -> None:
        self._places = places
        self._get = get
        self._known: dict[int, tuple[int, int, str]] = {}
        """By place: key of the item, offset that it was learnt at, category."""
        self._undrained: set[int] = set()

    def category(self, key: int) -> str:
        """What an event said of the item; '' when none did. Raises StateCorruptError."""
        if not self._places:
            return ""
        item, _, category = self._at(key % self._places)
        return category if item == key else ""

    def learn(self, offset: int, key: int, category: str) -> None:
        """The event at `offset` names the category of an item. Raises StateCorruptError."""
        if not self._places:
            return
        place = key % self._places
        item, since, known = self._at(place)
        if (item == key and category != known) or (item != key and (not item or offset - since >= HOLD)):
            # Half a surrogate pair is no text; msgspec refuses it, but not everything is read by msgspec.
            self._known[place] = key, offset, category.encode("utf-8", "replace").decode()
            self._undrained.add(place)

    def drain(self) -> list[tuple[bytes, bytes]]:
        """Records for the changelog since the last drain."""
        records = [(learnt_key(place), _encode(self._known[place])) for place in sorted(self._undrained)]
        self._undrained.clear()
        return records

    def _at(self, place: int) -> tuple[int, int, str]:
        found = self._known.get(place)
        if found is None:
            record = self._get(learnt_key(place))
            try:
                found = _NOBODY if record is None else _decode(record)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise StateCorruptError(
                    f"a record of learnt items cannot be read ({error}): the store or the changelog was damaged or "
                    "written by a newer Driftline. Stop the worker, delete its data folder (it is rebuilt from the "
                    "changelog) and start it again."
                ) from error
            self._known[place] = found
        return found
