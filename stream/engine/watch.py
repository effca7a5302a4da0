"""Somebody who looks at the engine from outside: is it behind, and does it still move?

A thread and a client of its own, so that neither a stuck event loop nor a stuck consumer can keep it from telling.
A worker that does not move is first unready, then ended: an orchestrator can start it again, but cannot see inside.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from stream.engine.cycle import Cycle

logger = logging.getLogger(__name__)

STALLED_S = 30.0
"""No fetch, commit or recovered record for so long: not ready. A cycle takes a tenth of a second, and a broker that
is away is retried for 60 s."""
DEAD_S = 150.0
"""For so long: end the process. Longer than all that a cycle may wait for by itself."""
_EVERY_S = 5.0
_ASK_S = 5.0


class Watch:
    """Measures lag every five seconds, and ends the process when a cycle stands still."""

    def __init__(
        self,
        cycles: Mapping[str, Cycle],
        client: Mapping[str, Any],
        end: Callable[[int], Any] = os._exit,
    ) -> None:
        self._cycles = cycles
        self._client = dict(client)
        self._end = end
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="driftline-watch", daemon=True)
        self.lag_records: dict[tuple[str, int], int] = {}
        """By topic and partition; replaced whole. Partitions whose end is not known are not in it."""

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no more."""
        self._stop.set()

    def age_s(self) -> float:
        """Seconds since the slowest cycle last moved; 0 without one."""
        now_s = time.monotonic()
        return max((now_s - cycle.alive_s for cycle in dict(self._cycles).values()), default=0.0)

    def _run(self) -> None:
        admin = AdminClient(self._client)
        while not self._stop.wait(_EVERY_S):
            self._measure(admin)
            age_s = self.age_s()
            if age_s > DEAD_S:
                logger.critical(
                    "nothing moved for %.0f s: an agent, the broker or the disk is stuck. The process ends, so that it "
                    "is started again; nothing of the cycle in hand counts.",
                    age_s,
                )
                self._end(1)
            elif age_s > STALLED_S:
                logger.error("nothing moved for %.0f s: not ready", age_s)

    def _measure(self, admin: AdminClient) -> None:
        expected = {
            (topic, number): offset
            for topic, cycle in dict(self._cycles).items()
            for number, offset in cycle.expected_offsets().items()
        }
        if not expected:
            self.lag_records = {}
            return
        asked = {TopicPartition(topic, number): OffsetSpec.latest() for topic, number in expected}
        lag: dict[tuple[str, int], int] = {}
        for at, future in admin.list_offsets(asked, request_timeout=_ASK_S).items():
            try:
                end = future.result(_ASK_S).offset
            except (KafkaException, TimeoutError) as exc:
                logger.warning("the end of %s[%d] is not known: %s", at.topic, at.partition, exc)
                continue
            lag[at.topic, at.partition] = max(end - expected[at.topic, at.partition], 0)
        self.lag_records = lag
