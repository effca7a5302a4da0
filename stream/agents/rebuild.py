"""States anew from the log, where their bytes cannot be read and `worker.corrupt_state` is "rebuild".

Reads their partition once from the first record that retention has left up to the chunk in hand, as the agent reads
it: what is late, erased or unusable there is so here. That costs some microseconds for each record of the partition,
whosever it is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterable, Sequence

from confluent_kafka import Message

from model.recommender import Portion, Recommender
from state.interaction import Interaction
from state.interest import InterestState
from state.store import MemoryStore
from stream.agents.forget import Forgetter, Forgotten
from stream.engine import Chunk
from stream.engine.cycle import Partition

logger = logging.getLogger(__name__)

Read = Callable[[Chunk, Forgotten], Sequence[tuple[bytes, Interaction]]]
"""Usable events of a chunk, with their users' keys; notes in Forgotten what they erase."""
History = Callable[[str, int, int], Iterable[Sequence[Message]]]
"""Runs of records of (topic, partition) before an offset."""


def rebuilt(
    chunk: Chunk, users: Container[bytes], history: History, read: Read, forgetter: Forgetter, recommender: Recommender
) -> dict[bytes, InterestState]:
    """The states of `users` before `chunk`, without those of whom the log says nothing, or who were erased.

    Args:
        chunk: where the states are needed.
        users: their keys.
        history: gives the log.
        read: the agent's reading; counters and what it sends must not matter to it.
        forgetter: of its own, for the same reason.
        recommender: applies events and steps vectors.
    """
    at = chunk.partition
    until = chunk.records[0].offset() or 0
    # Reading keeps its watermark and its like in the partition's memory and store: these are thrown away.
    scratch = Partition(at.topic, at.number, at.changelog, MemoryStore(), 0)
    states: dict[bytes, InterestState] = {}
    trend = recommender.new_trend()
    first: int | None = None
    for run in history(at.topic, at.number, until):
        at.alive()
        first = run[0].offset() if first is None else first
        part = Chunk(scratch, run, lambda _: None)
        (forgotten,) = forgetter.begin([part])
        batch = read(part, forgotten)
        limits = forgotten.keep_since_ms
        own = [index for index, (key, _) in enumerate(batch) if key in users]
        portion = Portion(
            [batch[index] for index in own], states, trend, keep_since_ms=[limits[index] for index in own]
        )
        recommender.absorb(portion)
        for user in forgotten.pending:
            states.pop(user, None)
    logger.warning("States on partition %d were made anew from the log, offsets %s to %d.", at.number, first, until - 1)
    return states
