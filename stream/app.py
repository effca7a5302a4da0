"""The whole pipeline on one screen: topic -> agent -> topic.

driftline.items.v1  ──> catalogue, held whole by every worker
                           │
                           v
driftline.events.v1 ──> interest ──> driftline.recommendations.v1   (and the state's changelog)
                           │ user_erased
                           ├──> driftline.erasures.v1
                           │ too late
                           ├──> driftline.events.v1.late
                           │ key is not its user
                           v
driftline.events.v1.rekey ──> rekey ──> driftline.events.v1
                           │ cannot be used
                           v
driftline.events.v1.dlq
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable
from functools import partial
from pathlib import Path
from typing import NoReturn

import faust

from model.artifact import load_artifact
from model.recommender import Recommender
from stream.agents.interest import InterestAgent
from stream.agents.rekey import RekeyAgent
from stream.brokers import Cluster
from stream.catalog import ItemsReader
from stream.engine import Chunk, ChunkTopic
from stream.engine.history import records_before
from stream.engine.options import EngineOptions
from stream.erasure import ErasureLog
from stream.health import add_pages
from stream.metrics import REGISTRY, Metrics
from stream.settings import Settings
from stream.worker import prepare_worker, run_until_stopped


class DriftlineApp(faust.App):
    """A Faust app on our transport; `engine_options` is what the transport reads."""

    engine_options: EngineOptions


def create_app(settings: Settings, cluster: Cluster) -> DriftlineApp:
    """The app of one worker process.

    Args:
        settings: all settings.
        cluster: where it runs: partitions of the events topic, and whether transactions isolate anything.

    Raises:
        ArtifactError: the model cannot be used, or lists are limited to domains that nobody knows.
        RefusedError: the catalogue cannot be read.
    """
    worker, topics = settings.worker, settings.topics
    app = DriftlineApp(
        worker.group,
        broker="rdkafka://engine-options",  # the address, with security, is in the engine's options
        datadir=str(worker.data_dir / worker.group / "faust"),
        topic_partitions=cluster.partitions[topics.events],
        topic_allow_declare=False,  # topics are made by `driftline topics create`, not by whoever starts first
        topic_disable_leader=True,
        stream_wait_empty=False,
        web_enabled=bool(worker.web_port),
        web_host=worker.web_host,
        web_bind=worker.web_host,
        web_port=worker.web_port or 6066,
        producer_linger=0.002,
    )
    app.engine_options = EngineOptions(
        bootstrap_servers=settings.kafka.bootstrap_servers,
        properties=settings.client_properties(),
        data_dir=Path(worker.data_dir),
        session_timeout_ms=worker.session_timeout_ms,
        heartbeat_interval_ms=worker.heartbeat_interval_ms,
        max_cycle_records=worker.max_cycle_records,
        linger_max_ms=worker.linger_max_ms,
        transaction_timeout_ms=worker.transaction_timeout_ms,
        purge_after_s=worker.purge_after_s,
        transactional=not cluster.embedded,
    )
    metrics = Metrics(REGISTRY)
    recommender = Recommender(
        load_artifact(Path(settings.model.path)), settings.state_settings(), settings.ranking_settings()
    )
    erasures = ErasureLog(settings)
    erasures.catch_up()  # here, and not while the first events wait
    history = partial(records_before, settings.client_properties()) if worker.corrupt_state == "rebuild" else None
    items = ItemsReader(settings, metrics, recommender.pipeline.catalog_changed)
    items.catch_up()
    if recommender.pipeline.domains is not None:
        recommender.pipeline.domains.check()
    lists = InterestAgent(settings, recommender, metrics, erasures=erasures, history=history, catalog=items.catalog)
    keys = RekeyAgent(settings, metrics)
    partitions = cluster.partitions[topics.events]

    events = ChunkTopic(changelog=topics.changelog, group=worker.group)

    @app.agent(app.topic(topics.events, schema=events, acks=False))
    async def interest(stream: AsyncIterable[Chunk]) -> None:
        async for chunk in stream:
            with chunk:
                if chunk.last:  # a fetch brings a chunk of each partition; all of them together cost less
                    with items.lock:
                        lists.process(chunk.fetched, partitions)

    @app.agent(app.topic(topics.rekey, schema=ChunkTopic(), acks=False))
    async def rekey(stream: AsyncIterable[Chunk]) -> None:
        async for chunk in stream:
            with chunk:
                keys.process(chunk)

    @app.task
    async def catalogue() -> None:
        # Not an agent: those of a group share the partitions, and every worker needs all of this topic.
        items.start()
        try:
            while items.failure is None:
                await asyncio.sleep(0.5)
            raise items.failure  # the worker ends: lists by an old catalogue look as good as others
        finally:
            items.stop()

    add_pages(app, metrics.registry, also_ready=lambda: items.ready)
    return app


def run_worker(settings: Settings, *, log_level: int = logging.INFO) -> NoReturn:
    """Run a worker until it is told to stop; ends the process.

    Exit code 0 after SIGTERM or SIGINT, 1 when it had to give up.

    Raises:
        RefusedError: it cannot start: broker, topics, model, data folder.
        ArtifactError: the model cannot be used.
    """
    with prepare_worker(settings) as cluster:
        run_until_stopped(create_app(settings, cluster), log_level)
