"""What the engine can be told. An app carries it: `faust.App` has no room for settings of a transport."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class EngineOptions:
    """Settings of the engine, each with the reason for its default."""

    bootstrap_servers: str | None = None
    """Kafka's addresses as librdkafka takes them; None: those of the app's `broker` URL."""
    properties: dict[str, Any] = field(default_factory=dict)
    """librdkafka properties for every client: security, timeouts, debugging."""
    data_dir: Path = Path("data")
    """Folder of the local stores."""
    auto_offset_reset: str = "earliest"
    """Where a group without a committed offset begins."""
    session_timeout_ms: int = 6_000
    """A killed worker's partitions move after this time; brokers refuse less than 6 s by default."""
    heartbeat_interval_ms: int = 1_000
    max_poll_interval_ms: int = 600_000
    """Recovery happens inside a rebalance, which must not take longer than this."""
    max_cycle_records: int = 2_048
    """Records in one transaction over all partitions: a commit costs 4-6 ms, a cycle of 2,048 takes 50-100."""
    linger_max_ms: int = 20
    """The longest a cycle waits for company; nothing when idle (see cycle.linger_ms)."""
    idle_poll_ms: int = 50
    """How long one fetch waits for a first record; rebalances are served at least this often."""
    transaction_timeout_ms: int = 10_000
    """The broker aborts a dead worker's transaction after this time; its partitions are unreadable until then."""
    purge_after_s: float = 3600.0
    """So long after a key was deleted its old value leaves the local store's files; see state.store.RocksStore."""
    transactional: bool = True
    """False only on the embedded broker, whose transactions isolate nothing: there each commit is a flush and
    an offset commit."""

    def client(self, bootstrap_servers: str, **more: Any) -> dict[str, Any]:
        """librdkafka configuration of one client."""
        return {"bootstrap.servers": bootstrap_servers, **more, **self.properties}
