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

    Every record of the events topic ends in exactly one outcome of `events`: applied, duplicate, rekeyed or
    dead_letter; their sum is the number of records taken.
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
        self.misplaced = Counter(
            "driftline_misplaced_events",
            "Events on another partition than murmur2 of their key: their producer uses another partitioner.",
            registry=registry,
        )
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
