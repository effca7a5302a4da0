"""What is known of one user: small, bounded, changed by each event in O(1).

The lists inside are packed bytes, not Python objects: a state is read and written for every event, and decoding
some hundred Python numbers would cost more than all the rest. `apply` appends to them, or overwrites a few
bytes in place; the ranker reads the lists of many users at once as numpy arrays.

Which part follows which time: counts (forward decay) and windows follow event time, so that an event out of order
lands where it belongs; the recent list, the session's items and the network's vector follow the order of arrival,
which is the partition's order.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from functools import lru_cache
from typing import Annotated

import msgspec
import numpy as np

from state.decay import REBASE_AFTER_HALF_LIVES, bounded_weight, growth
from state.interaction import Interaction
from state.keys import NO_ITEM
from state.settings import StateSettings
from state.weights import SESSION_START, STRENGTH
from state.window import units_of

RECENT = struct.Struct("<QB")
"""One recent interaction: item key, type."""
RECENT_DTYPE = np.dtype([("key", "<u8"), ("type", "u1")])

COUNT = struct.Struct("<fIB")
"""One counted item beside its key: amount (forward decay), last event time in seconds, strongest type."""
COUNT_DTYPE = np.dtype([("amount", "<f4"), ("time_s", "<u4"), ("type", "u1")])

KEY_BYTES = 8
ID_BYTES = 6
"""Bytes kept of an event's key: among the 32 ids of a ring the chance of a false find is 1e-13."""
PAYLOAD_BYTES = 2
"""Bytes kept of an event's content, behind its id: an entry of the ring has KEY_BYTES."""
VECTOR_DTYPE = np.dtype("<f2")
"""Numbers of the network's state. Half precision costs nothing that shows (HR@20 0.3504 against 0.3507 on Complete
Journey) and halves the largest part of a state."""
SESSION_MARK = NO_ITEM
"""Key in the recent list that marks a session_start."""

# Ranges that decoding checks (in C, at no cost): beyond 2**53 a float would not hold a time exactly.
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Key = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Signed = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]

_MAX_TIME_S = 0xFFFF_FFFF
_KEY_MASK = 0xFFFF_FFFF_FFFF_FFFF
_ID_BITS = 8 * ID_BYTES
_ID_MASK = (1 << _ID_BITS) - 1
_NO_PAYLOAD = bytes(PAYLOAD_BYTES)
_MARK = RECENT.pack(SESSION_MARK, SESSION_START)
_pack_recent, _pack_count = RECENT.pack, COUNT.pack
_MOST_AMOUNT = float(np.finfo(np.float32).max)


class Applied(IntEnum):
    """What `advance` did with an event."""

    DUPLICATE = 0
    """Its id is in the ring, with the same content or none known: the state is untouched."""
    APPLIED = 1
    BEGAN = 2
    """Applied, and it was a session_start that began a session: a mark was put into `recent`. A session that
    begins because of a pause has no mark, and no step of the network."""
    CONFLICT = 3
    """Its id is in the ring with another content: two events of one id, or one sent again after a change. The
    state is untouched: the first counts."""


_DUPLICATE, _APPLIED, _BEGAN, _CONFLICT = Applied  # an enum's member costs more to look up than a global


class RecentItem(msgspec.Struct, frozen=True, gc=False):
    """A recent interaction, unpacked."""

    key: int
    type: int


class CountedItem(msgspec.Struct, frozen=True, gc=False):
    """A counted item, unpacked; `count` is its decayed weight at the time asked for."""

    key: int
    count: float
    time_s: int
    type: int


class InterestState(msgspec.Struct, array_like=True, gc=False):
    """One user's state. The order of the fields is the order on disk: append only.

    `state.codec` turns it into bytes and back; `StateSettings.max_state_bytes` bounds their number.
    """

    events_applied: _Count = 0
    """Events applied (not items): duplicates are not among them."""
    last_offset: _Signed = -1
    """Source offset of the last event applied."""
    last_time_ms: _Signed = 0
    """Largest event time applied."""
    session_start_ms: _Signed = 0
    """Event time at which the running session began."""
    session_length: _Count = 0
    """How many of the newest `recent` entries belong to the running session, a mark not counted."""
    ids: bytes = b""
    """[at most event_id_ring] of the last events, the newest last: ID_BYTES of the key, PAYLOAD_BYTES of the rest."""
    recent: bytes = b""
    """RECENT[at most recent_items]: the newest last; key SESSION_MARK for a session_start."""
    count_ref_s: _Count = 0
    """Reference time of the counts' amounts."""
    count_keys: bytes = b""
    """u64[c], c at most max_counted_items."""
    count_values: bytes = b""
    """COUNT[c], parallel to count_keys."""
    windows: bytes = b""
    """What the interests weighed in the last half hour, day and month: see `state.window`."""
    session: _Key = 0
    """Key of the running session's id, where the events name one; 0: sessions are cut by pauses."""
    vector: bytes = b""
    """f16[S]: the network's state; empty until an item that the model knows was stepped."""
    vector_model: _Count = 0
    """Checksum of the artifact that the vector belongs to; 0: none."""

    def apply(self, i: Interaction, s: StateSettings) -> bool:
        """Apply one event. False when its id is known: the state is untouched then."""
        done = self.advance(i, s)
        return done is _APPLIED or done is _BEGAN

    def advance(self, i: Interaction, s: StateSettings) -> Applied:
        """Apply one event; the vector is not touched, that is the model's. O(1) per item of the event."""
        entry = (i.event & _ID_MASK | i.payload << _ID_BITS).to_bytes(KEY_BYTES, "little")
        event_id = entry[:ID_BYTES]
        ids = self.ids
        at = ids.find(event_id)
        while at & 7 and at > 0:  # found across two neighbours: look further
            at = ids.find(event_id, at + 1)
        if at >= 0:
            known, payload = ids[at + ID_BYTES : at + KEY_BYTES], entry[ID_BYTES:]
            return _DUPLICATE if known == payload or _NO_PAYLOAD in (known, payload) else _CONFLICT
        self.ids = (ids + entry)[-KEY_BYTES * s.event_id_ring :]

        applied = self.events_applied
        first = applied == 0
        self.events_applied = applied + 1
        self.last_offset = i.offset
        time_ms = i.time_ms
        time_s = time_ms // 1000
        if not 0 <= time_s <= _MAX_TIME_S:
            time_s = 0 if time_s < 0 else _MAX_TIME_S
        last_ms, start_ms, session = self.last_time_ms, self.session_start_ms, self.session
        kind = i.type
        # A session_start that comes late, older than the running session, must not end that session.
        began = kind == SESSION_START and (first or time_ms >= start_ms)
        named = i.session
        if named and session:
            # The producer's word against ours: its sessions may outlast a pause, and end without one.
            ended = named != session and time_ms >= start_ms
        else:
            ended = time_ms - last_ms > s.session_gap_s * 1000
        if began or first or ended:
            self.session_start_ms = time_ms
            self.session_length = 0
            self.session = named
        elif named and not session:
            self.session = named
        if time_ms > last_ms:
            self.last_time_ms = time_ms

        entries = _MARK if began else b""
        items = i.items
        if items and i.weight != 0.0:
            weight = bounded_weight(i.weight)
            for key in items:
                entries += _pack_recent(key & _KEY_MASK, kind)
            length = self.session_length + len(items)
            self.session_length = length if length < s.recent_items else s.recent_items
            if s.half_lives_s:
                self._count_by_type(items, kind, weight, time_s, s)
            else:
                self._count(items, kind, weight, time_s, s)
            units = units_of(weight)
            windows, add, reach = self.windows, s.windowing.add, s.reaches[kind]
            for interest in i.interests:
                windows = add(windows, time_s, interest, units, reach)
            self.windows = windows
        if entries:
            self.recent = (self.recent + entries)[-RECENT.size * s.recent_items :]
        return _BEGAN if began else _APPLIED

    def _count(self, items: tuple[int, ...], kind: int, weight: float, time_s: int, s: StateSettings) -> None:
        keys, values = self.count_keys, self.count_values
        if not keys:
            self.count_ref_s = time_s
        exponent = (time_s - self.count_ref_s) / s.count_half_life_s
        if exponent > REBASE_AFTER_HALF_LIVES:
            # Whole half-lives: the factor is a power of two, and loses nothing.
            steps = int(exponent)
            table = np.frombuffer(values, COUNT_DTYPE).copy()
            table["amount"] *= np.float32(2.0**-steps)
            values = table.tobytes()
            self.count_ref_s += steps * s.count_half_life_s
            exponent -= steps
        amount = weight * 2.0**exponent
        most_bytes = KEY_BYTES * s.max_counted_items
        for item in items:
            key = (item & _KEY_MASK).to_bytes(8, "little")
            at = keys.find(key)
            while at & 7 and at > 0:
                at = keys.find(key, at + 1)
            if at >= 0:
                place = (at >> 3) * 9
                old, seen_s, strongest = COUNT.unpack_from(values, place)
                new = COUNT.pack(
                    old + amount,
                    time_s if time_s > seen_s else seen_s,
                    kind if STRENGTH[kind] > STRENGTH[strongest] else strongest,
                )
                values = values[:place] + new + values[place + 9 :]
                continue
            # The smallest goes, whatever its sign: a strong dislike is worth remembering too.
            # More than one when the setting was lowered since.
            while len(keys) >= most_bytes:
                least = _smallest(values)
                keys = keys[: least * 8] + keys[least * 8 + 8 :]
                values = values[: least * 9] + values[least * 9 + 9 :]
            keys += key
            values += _pack_count(amount, time_s, kind)
        self.count_keys, self.count_values = keys, values

    def _count_by_type(self, items: tuple[int, ...], kind: int, weight: float, time_s: int, s: StateSettings) -> None:
        """`_count` where types have half-lives of their own, by the rule of `state.weights`."""
        keys, values = self.count_keys, self.count_values
        half_lives = s.half_lives_s
        if not keys:
            self.count_ref_s = time_s
        shortest = s.shortest_half_life_s
        steps = (time_s - self.count_ref_s) // shortest
        if steps > REBASE_AFTER_HALF_LIVES:
            table = np.frombuffer(values, COUNT_DTYPE).copy()
            table["amount"] *= np.exp2(-steps * shortest / s.half_life_of(table["type"]))
            values = table.tobytes()
            self.count_ref_s += steps * shortest
        ref_s = self.count_ref_s
        for item in items:
            key = (item & _KEY_MASK).to_bytes(8, "little")
            at = keys.find(key)
            while at & 7 and at > 0:
                at = keys.find(key, at + 1)
            if at >= 0:
                place = (at >> 3) * 9
                amount, seen_s, strongest = COUNT.unpack_from(values, place)
                seen_s = max(seen_s, time_s)
                if STRENGTH[kind] > STRENGTH[strongest]:
                    change = 1.0 / half_lives[kind] - 1.0 / half_lives[strongest]
                    amount *= 2.0 ** min((seen_s - ref_s) * change, 1000.0)
                    strongest = kind
                amount += weight * growth(time_s, ref_s, half_lives[strongest])
                packed = COUNT.pack(min(max(amount, -_MOST_AMOUNT), _MOST_AMOUNT), seen_s, strongest)
                values = values[:place] + packed + values[place + 9 :]
                continue
            while len(keys) >= KEY_BYTES * s.max_counted_items:
                table = np.frombuffer(values, COUNT_DTYPE)
                # The smallest of now: amounts of two half-lives cannot be compared as they are.
                age_s = max(self.last_time_ms // 1000 - ref_s, 0)
                least = int((np.abs(table["amount"]) * np.exp2(-age_s / s.half_life_of(table["type"]))).argmin())
                keys = keys[: least * 8] + keys[least * 8 + 8 :]
                values = values[: least * 9] + values[least * 9 + 9 :]
            keys += key
            values += COUNT.pack(weight * growth(time_s, ref_s, half_lives[kind]), time_s, kind)
        self.count_keys, self.count_values = keys, values

    # --- reading: for people, tools and explanations; the ranker reads the packed lists of many users at once

    def recent_items(self) -> list[RecentItem]:
        """The recent interactions, oldest first, without the marks of session starts."""
        return [RecentItem(key, kind) for key, kind in RECENT.iter_unpack(self.recent) if key != SESSION_MARK]

    def session_items(self) -> list[int]:
        """Keys of the running session's items in order of arrival, as far back as `recent` reaches."""
        if not self.session_length:
            return []
        entries = self.recent[-RECENT.size * self.session_length :]
        return [key for key, _ in RECENT.iter_unpack(entries) if key != SESSION_MARK]

    def counted_items(self, s: StateSettings, at_ms: int | None = None) -> list[CountedItem]:
        """The counted items, in order of first arrival, decayed to `at_ms` (default: the newest event)."""
        at_s = (self.last_time_ms if at_ms is None else at_ms) / 1000
        half_lives = s.half_lives_s or (s.count_half_life_s,) * 256
        keys = struct.unpack(f"<{len(self.count_keys) // 8}Q", self.count_keys)
        return [
            CountedItem(key, amount * growth(self.count_ref_s, at_s, half_lives[kind]), time_s, kind)
            for key, (amount, time_s, kind) in zip(keys, COUNT.iter_unpack(self.count_values), strict=True)
        ]


@lru_cache(maxsize=64)
def _amounts(count: int) -> struct.Struct:
    """What reads the amounts of so many COUNT."""
    return struct.Struct("<" + "f5x" * count)


_FEW_BYTES = 24 * COUNT.size
"""Up to so many amounts Python is faster than numpy: 1.2 us against 1.3 for 24 of them, 9.4 against 1.5 for 256."""


def _smallest(values: bytes) -> int:
    """Index of the smallest amount by size, the first of equals."""
    if len(values) > _FEW_BYTES:
        return int(np.abs(np.frombuffer(values, COUNT_DTYPE)["amount"]).argmin())
    amounts = _amounts(len(values) // COUNT.size).unpack(values)
    least = min(amounts)
    if least >= 0.0:
        return amounts.index(least)
    sizes = [abs(amount) for amount in amounts]
    return sizes.index(min(sizes))
