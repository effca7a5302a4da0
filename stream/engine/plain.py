"""Ordinary topics: one Faust event a record, Faust's own acks, at-least-once.

They have a consumer and a group of their own, so that they never tilt the balance of a chunk topic's partitions
between workers. As in `cycle`, one thread owns the consumer and calls everything here.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, TopicPartition
from faust.types import TP

from stream.engine.options import EngineOptions
from stream.errors import EngineError

logger = logging.getLogger(__name__)

_ASK_S = 30.0
_FETCH_RECORDS = 500


class PlainReader:
    """Consumer of all topics of an app that are no chunk topics."""

    def __init__(self, group: str, bootstrap_servers: str, options: EngineOptions) -> None:
        self.assignment: frozenset[TP] = frozenset()
        self.rebalanced = False
        self._consumer = Consumer(
            {
                "session.timeout.ms": options.session_timeout_ms,
                "heartbeat.interval.ms": options.heartbeat_interval_ms,
                "partition.assignment.strategy": "cooperative-sticky",
                "fetch.wait.max.ms": 10,
                "allow.auto.create.topics": True,
                **options.client(bootstrap_servers, **{"client.id": f"{group}-{os.getpid()}"}),
                "group.id": group,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": options.auto_offset_reset,
                "isolation.level": "read_committed",
            }
        )

    def subscribe(self, topics: Iterable[str]) -> None:
        """Replace the subscription; takes effect with the next rebalance."""
        self._consumer.subscribe(
            sorted(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
        )

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()

    def _on_assign(self, _: Consumer, assigned: list[TopicPartition]) -> None:
        self._note(self.assignment | {TP(p.topic, p.partition) for p in assigned})

    def _on_revoke(self, _: Consumer, revoked: list[TopicPartition]) -> None:
        self._note(self.assignment - {TP(p.topic, p.partition) for p in revoked})

    def _note(self, assignment: frozenset[TP]) -> None:
        self.assignment = assignment
        self.rebalanced = True

    def fetch(self, wait_s: float) -> list[tuple[TP, Message]]:
        """Records in order of arrival; rebalances are served here.

        Raises:
            EngineError: the client reports a fatal error.
        """
        records = []
        messages = self._consumer.consume(1, wait_s)
        if messages:
            messages += self._consumer.consume(_FETCH_RECORDS - 1, 0)
        for message in messages:
            error = message.error()
            if error is None:
                records.append((TP(message.topic(), message.partition()), message))
            elif error.fatal():
                raise EngineError(f"the consumer of ordinary topics cannot go on: {error}. Restart the worker.")
            else:
                logger.warning("consumer of ordinary topics: %s", error)
        return records

    def commit(self, offsets: Mapping[TP, int]) -> bool:
        """Commit the next offset to read of each partition; False if the broker refused (a rebalance)."""
        positions = [TopicPartition(tp.topic, tp.partition, offset) for tp, offset in offsets.items()]
        try:
            self._consumer.commit(offsets=positions, asynchronous=False)
        except KafkaException as exc:
            logger.warning("commit of ordinary topics refused, the records will come again: %s", exc)
            return False
        return True

    def seek(self, tp: TP, offset: int) -> None:
        """Read `tp` from `offset` next."""
        self._consumer.seek(TopicPartition(tp.topic, tp.partition, offset))

    def seek_to_committed(self, tps: Iterable[TP]) -> dict[TP, int | None]:
        """Read each of `tps` from the group's committed offset (from the beginning where there is none)."""
        asked = [TopicPartition(tp.topic, tp.partition) for tp in tps if tp in self.assignment]
        found: dict[TP, int | None] = {}
        for position in self._consumer.committed(asked, _ASK_S) if asked else []:
            offset = position.offset if position.offset >= 0 else None
            found[TP(position.topic, position.partition)] = offset
            self.seek(TP(position.topic, position.partition), OFFSET_BEGINNING if offset is None else offset)
        return found

    def watermarks(self, tp: TP, *, cached: bool) -> tuple[int, int]:
        """Low and high offset of a partition; cached: as last seen, no request."""
        at = TopicPartition(tp.topic, tp.partition)
        low, high = self._consumer.get_watermark_offsets(at, timeout=_ASK_S, cached=cached)
        return max(low, 0), max(high, 0)

    def position(self, tp: TP) -> int:
        """Offset of the next record that a fetch would bring."""
        return int(self._consumer.position([TopicPartition(tp.topic, tp.partition)])[0].offset)
