"""What all sources of a broker have in common."""

from types import TracebackType
from typing import Self


class Broker:
    """A running broker. `with` it, or call `stop` when done.

    bootstrap_servers: its address, HOST:PORT.
    """

    bootstrap_servers: str

    def stop(self) -> None:
        """Ends the broker, where it was started here."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


class GivenBroker(Broker):
    """A broker that runs elsewhere; stopping it is not our business."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.bootstrap_servers = bootstrap_servers
