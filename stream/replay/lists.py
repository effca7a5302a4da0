"""The last list of every user, from a replay's folder or from a recommendations topic, small enough for a million.

    OUT/lists/*.jsonl ─┐                     ┌─ users, items, words: once each, shared by all sides
    topic ─────────────┴─ record by record ──┴─ Side: a row of numbers a user, the last list wins

Letters in shapes: U users, K places, I interests shown with a list.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from state.keys import user_key
from stream.errors import ReplayError
from stream.replay.outputs import LISTS

I32 = npt.NDArray[np.int32]

PLACES = 20
"""Places of a list that are looked at (K)."""
INTERESTS = 5
"""Interests of a list that are looked at (I): as many as lists show."""
NONE = -1
"""In place of a number: nothing there."""


class Words:
    """Texts by number: each is held once."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        """The number of a text, a new one where it is new."""
        number = self._numbers.get(text)
        if number is None:
            number = self._numbers[text] = len(self.texts)
            self.texts.append(text)
        return number

    def __len__(self) -> int:
        return len(self.texts)


class Vocabulary:
    """What the lists of several sides are written with."""

    def __init__(self) -> None:
        self.users = Words()
        """Users' keys, as text: with pseudonyms or hashes these."""
        self.items = Words()
        self.reasons = Words()
        self.strategies = Words()
        self.interests = Words()


class _Reason(msgspec.Struct, gc=False):
    type: str


class _Item(msgspec.Struct, gc=False):
    item_id: str
    reasons: list[_Reason] = []


class _Interest(msgspec.Struct, gc=False):
    name: str
    kind: str = ""


class _List(msgspec.Struct, gc=False):
    """What is read of a `Recommendation`, or of a tombstone's line."""

    user_id: str = ""
    tenant: str = ""
    strategy: str = ""
    items: list[_Item] = []
    interests: list[_Interest] = []
    removed: str | None = None


_decode = msgspec.json.Decoder(_List).decode


class Side:
    """The last lists of one replay or of live, K places each."""

    def __init__(self, name: str, words: Vocabulary, places: int = PLACES) -> None:
        self.name = name
        self.words = words
        self.places = places
        self._width = 1 + 2 * places + INTERESTS
        self._rows = array("i")
        self._nobody = array("i", [NONE]) * self._width

    def put(self, value: bytes) -> None:
        """Take a list in place of the user's one before. Raises msgspec.DecodeError, UnicodeDecodeError: it is none."""
        made = _decode(value)
        if made.removed is not None:
            self.remove(made.removed)
            return
        if not made.user_id:
            raise msgspec.ValidationError("a list has no user_id")
        words, places = self.words, self.places
        of_item, of_reason, of_interest = words.items.number, words.reasons.number, words.interests.number
        items = [of_item(item.item_id) for item in made.items[:places]]
        reasons = [of_reason(item.reasons[0].type) if item.reasons else NONE for item in made.items[:places]]
        shown = made.interests[:INTERESTS]
        interests = [of_interest(one.name if not one.kind else f"{one.kind}: {one.name}") for one in shown]
        short, few = [NONE] * (places - len(items)), [NONE] * (INTERESTS - len(interests))
        row = array("i", [words.strategies.number(made.strategy), *items, *short, *reasons, *short, *interests, *few])
        self._set(user_key(made.user_id, made.tenant).decode(errors="replace"), row)

    def remove(self, user: str) -> None:
        """The user, by key, has no list any more."""
        self._set(user, self._nobody)

    def _set(self, user: str, row: array[int]) -> None:
        begin = self.words.users.number(user) * self._width
        missing = begin + self._width - len(self._rows)
        if missing > 0:
            self._rows.extend(self._nobody * (missing // self._width))
        self._rows[begin : begin + self._width] = row

    def table(self) -> Table:
        """The lists as arrays; a copy of nothing, so take no more lists while it is used."""
        rows = np.frombuffer(self._rows, np.int32).reshape(-1, self._width)
        users, places = len(self.words.users), self.places
        if len(rows) < users:  # users that only another side has
            rows = np.concatenate([rows, np.full((users - len(rows), self._width), NONE, np.int32)])
        return Table(rows[:, 0], rows[:, 1 : 1 + places], rows[:, 1 + places : 1 + 2 * places], rows[:, -INTERESTS:])


class Table(msgspec.Struct, frozen=True):
    """Lists in rows by number of the user; NONE where there is nothing."""

    strategy: I32
    """i32[U]: NONE: the user has no list."""
    items: I32
    """i32[U, K], best first."""
    reasons: I32
    """i32[U, K]: of each item the first reason's type."""
    interests: I32
    """i32[U, I], strongest first."""


def read_folder(folder: Path, words: Vocabulary, places: int = PLACES, name: str = "") -> Side:
    """The lists in a replay's folder.

    Raises:
        ReplayError: there are none, or a line is none.
    """
    files = sorted((folder / LISTS).glob("*.jsonl"))
    if not files:
        raise ReplayError(f"{folder}: no {LISTS}/*.jsonl in it; give the output folder of a replay that makes lists.")
    side = Side(name or str(folder), words, places)
    for path in files:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    side.put(line)
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    raise ReplayError(
                        f"{path}, line {number}: no list ({error}); let the replay run to its end, or begin it anew."
                    ) from None
    return side


def read_records(
    records: Iterable[tuple[bytes | None, bytes | None]], words: Vocabulary, places: int = PLACES, name: str = "live"
) -> Side:
    """The lists in keys and values of a recommendations topic; of a user the last counts, no value: none.

    Raises:
        ReplayError: a value is no list.
    """
    side = Side(name, words, places)
    for key, value in records:
        if value is None:
            side.remove((key or b"").decode(errors="replace"))
            continue
        try:
            side.put(value)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ReplayError(f"{name}: a record is no list ({error}); is it the recommendations topic?") from None
    return side
