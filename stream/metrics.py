"""Prometheus metrics of a worker: base units, no label that grows with users or items.

Counted here are events and what became of them. What the engine itself knows (lag, ledger, CPU by part) is read
when someone scrapes: see `health.EngineCollector`.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# One registry for the process; tests make their own.
REGISTRY = CollectorRegistry()


class Metrics:
    """The counters of one worker.

    Every record of the events topic ends in exactly one outcome of `events`: applied, duplicate, rekeyed, late, erased
    (an event of a user whose later erasure is confirmed already) or dead_letter; their sum is the number of records
    taken.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.registry = registry
        self.events = Counter(
            "driftline_events",
            "Records taken from the events topic, by event type and what became of them.",
            ["type", "outcome"],
            registry=registry,
        )
        self.dead_letters = Counter(
            "driftline_dead_letters",
            "Records sent to the dead-letter topic.",
            ["stage", "reason"],
            registry=registry,
        )
        self.duplicates = Counter(
            "driftline_duplicates", "Events whose id their user's state had already.", registry=registry
        )
        self.conflicts = Counter(
            "driftline_duplicate_conflicts",
            "Those of driftline_duplicates whose content was another than the first one's: ids used twice.",
            registry=registry,
        )
        self.late_events = Counter(
            "driftline_late_events",
            "Events older than the grace period: sent to the late topic, or admitted.",
            ["outcome"],
            registry=registry,
        )
        self.future_events = Counter(
            "driftline_future_events",
            "Events ahead of their record's timestamp: clamped to it, or refused (then a dead letter too).",
            ["outcome"],
            registry=registry,
        )
        self.skew_corrected = Counter(
            "driftline_skew_corrected_events", "Events whose sender's clock was corrected.", registry=registry
        )
        self.rebuilt = Counter(
            "driftline_rebuilt_states",
            "States that could not be read and were made anew from the log.",
            registry=registry,
        )
        self.misplaced = Counter(
            "driftline_misplaced_events",
            "Events on another partition than murmur2 of their key: their producer uses another partitioner.",
            registry=registry,
        )
        self.erasures = Counter("driftline_erasures", "Users erased at their request.", registry=registry)
        self.expired = Counter(
            "driftline_expired_users", "States and lists removed because their user was idle.", registry=registry
        )
        self.catalog_records = Counter(
            "driftline_catalog_records",
            "Records read from the items topic: upsert, tombstone, or invalid (no item, left out).",
            ["outcome"],
            registry=registry,
        )
        self.catalog_items = Gauge("driftline_catalog_items", "Items of the catalogue.", registry=registry)
        self.lists = Counter("driftline_lists", "Lists sent, by strategy.", ["strategy"], registry=registry)
        self.delay = Histogram(
            "driftline_event_to_recommendation_seconds",
            "From a record's timestamp to its list, before the commit: the oldest record of each chunk.",
            buckets=(0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60),
            registry=registry,
        )
        self.cpu = Counter(
            "driftline_cpu_seconds",
            "CPU of the worker's threads by part of the pipeline.",
            ["part"],
            registry=registry,
        )
        self.model = Gauge(
            "driftline_model_info", "The active model; always 1.", ["name", "version"], registry=registry
        )
