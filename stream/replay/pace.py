"""How fast a replay goes: event time drives the clock.

At speed 1 an event that happened a minute after the first is due a minute after it, at 60 a second after it. A replay
that fell behind by more than a second, because it was paused, stopped (SIGSTOP) or slow, does not catch up with a
burst: its clock is set back by what it lost.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable

from stream.errors import RefusedError

_SPEED = re.compile(r"(\d+(?:\.\d+)?)x?")
_BEHIND_S = 1.0
"""What is behind by less is made up for: a little jitter must not add up over a day."""
_LOOK_EVERY_S = 0.2


def speed_of(text: str) -> float | None:
    """Speed of `max`, `1x`, `0.5x`, `60x`; None: as fast as it goes.

    Raises:
        RefusedError: it is none of them.
    """
    if text == "max":
        return None
    match = _SPEED.fullmatch(text)
    speed = float(match[1]) if match else 0.0
    if not (0.0 < speed < math.inf):
        raise RefusedError(f"--speed {text} is none of max, 1x, 60x (event time goes by 60 times as fast), 0.5x.")
    return speed


class Pace:
    """Waits until events are due. To be asked for events in the order of the log.

    Args:
        speed: how many times as fast as they happened; None: no waiting but for pauses.
        paused: asked now and then; while it says so nothing is due.
        stopping: asked now and then; once it says so nothing waits any more.
        clock: seconds, from anywhere; never back.
        sleep: for so many seconds.
    """

    def __init__(
        self,
        speed: float | None = None,
        *,
        paused: Callable[[], bool] = lambda: False,
        stopping: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.speed, self._paused, self._stopping = speed, paused, stopping
        self._clock, self._sleep = clock, sleep
        self._first_ms = self._newest_ms = -1
        self._began_s = 0.0
        self._pausing, self._looked_s = False, -math.inf

    def due_s(self, time_ms: int) -> float:
        """Seconds until an event of `time_ms` is due, 0 or less if it is; infinite during a pause.

        One older than another before it is due at once, and so is one without a time (-1).
        """
        if self._is_paused():
            return math.inf
        if self.speed is None or time_ms <= self._newest_ms:
            return 0.0
        now_s = self._clock()
        if self._newest_ms < 0:
            self._first_ms, self._began_s = time_ms, now_s
        return self._began_s + (time_ms - self._first_ms) / 1000 / self.speed - now_s

    def wait(self, time_ms: int) -> None:
        """Until an event of `time_ms` is due; shorter, if the replay is to stop."""
        while (due_s := self.due_s(time_ms)) > 0 and not self._stopping():
            self._sleep(min(due_s, _LOOK_EVERY_S))
        if due_s < -_BEHIND_S:
            self._began_s -= due_s
        self._newest_ms = max(self._newest_ms, time_ms)

    def _is_paused(self) -> bool:
        """As `paused` said within the last moment: it may have to look at a disk."""
        now_s = self._clock()
        if now_s - self._looked_s >= _LOOK_EVERY_S:
            self._pausing, self._looked_s = self._paused(), now_s
        return self._pausing
