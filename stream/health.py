"""What orchestrators and Prometheus ask a worker: is it alive, is it ready, what does it count."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector


class EngineCollector(Collector):
    """Reads the engine's own figures when someone scrapes."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client."""
        records = CounterMetricFamily("driftline_engine", "Counts of the engine.", labels=["topic", "what"])
        cpu = CounterMetricFamily("driftline_engine_cpu_seconds", "CPU of the cycle thread.", labels=["topic", "part"])
        lag = GaugeMetricFamily(
            "driftline_consumer_lag_records", "Records not yet committed.", labels=["topic", "partition"]
        )
        recovery = GaugeMetricFamily(
            "driftline_recovery_remaining_records", "Changelog records still to read.", labels=["topic"]
        )
        for topic, cycle in dict(self._app.consumer.cycles).items():
            for what, count in cycle.counts.items():
                records.add_metric([topic, what], count)
            for part, seconds in cycle.cpu_s.items():
                cpu.add_metric([topic, part], seconds)
            recovery.add_metric([topic], cycle.recovery_remaining_records)
        watch = self._app.consumer.watch
        age = GaugeMetricFamily(
            "driftline_cycle_age_seconds", "Since the slowest cycle last moved; it grows in a stall."
        )
        if watch is not None:
            for (topic, number), behind in watch.lag_records.items():
                lag.add_metric([topic, str(number)], behind)
            age.add_metric([], watch.age_s())
        yield from (records, cpu, lag, recovery, age)


def add_pages(app: Any, registry: CollectorRegistry, also_ready: Callable[[], bool] = lambda: True) -> None:
    """/health/live, /health/ready and /metrics on the app's web server. also_ready: what else must be ready."""
    registry.register(EngineCollector(app))
    ProcessCollector(registry=registry)

    @app.page("/health/live")
    async def live(web: Any, _: Any) -> Any:
        """The process answers and its consumer has not failed."""
        failed = app.consumer.failure is not None
        return web.json({"alive": not failed}, status=503 if failed else 200)

    @app.page("/health/ready")
    async def ready(web: Any, _: Any) -> Any:
        """Every group is joined, state is recovered, the cycles and what is read beside them move. A spare worker
        without partitions is ready."""
        is_ready = app.consumer.ready and also_ready()
        partitions = sorted(f"{tp.topic}-{tp.partition}" for tp in app.consumer.assignment())
        return web.json({"ready": is_ready, "partitions": partitions}, status=200 if is_ready else 503)

    @app.page("/metrics")
    async def metrics(web: Any, _: Any) -> Any:
        """Prometheus text."""
        return web.bytes(generate_latest(registry), content_type="text/plain; version=0.0.4")
