"""Errors of the stream. The command ends with `exit_code` when one of them reaches it.

DriftlineError                 (state.errors)
└── StreamError                failed while running: exit code 1
    ├── EngineError            the engine cannot go on; the process must end and be started again
    ├── EventError             one event that cannot be used: it goes to the dead-letter topic
    ├── ContractError          bytes on one of our other topics that are not what belongs there
    ├── ProduceError           a file of events was not produced, or not whole
    ├── ReadError              a topic could not be read
    ├── ReplayError            a replay cannot go on; run again, it goes on where it stopped
    └── RefusedError           refused before starting: exit code 2
        ├── SettingsError      a wrong setting
        ├── BrokerError        no broker, or one that cannot do what was asked
        └── TopicError         a topic is missing or has the wrong shape
"""

from typing import ClassVar

from state.errors import DriftlineError


class StreamError(DriftlineError):
    """Something failed while running."""

    exit_code: ClassVar[int] = 1


class EngineError(StreamError):
    """The engine cannot go on: the process ends, and a restart reads again from the last commit."""


class EventError(StreamError):
    """One event that cannot be used. `reason` is a short stable code for headers and counters."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class ContractError(StreamError):
    """Bytes on one of Driftline's own topics are not the message that belongs there."""


class ProduceError(StreamError):
    """A file of events was not produced, or not whole."""


class ReadError(StreamError):
    """A topic could not be read, by a command that shows it."""


class ReplayError(StreamError):
    """A replay cannot go on. What it did so far stands; the same command goes on there."""


class RefusedError(StreamError):
    """Refused before the first event was taken."""

    exit_code: ClassVar[int] = 2


class SettingsError(RefusedError):
    """A setting is wrong."""


class BrokerError(RefusedError):
    """No broker answers, or the broker cannot do what was asked."""


class TopicError(RefusedError):
    """A topic is missing or has the wrong shape."""
