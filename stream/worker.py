"""What surrounds the app in a worker process: checks before it starts, and its end."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import logging
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import faust

from stream.brokers import Cluster, claim_embedded
from stream.errors import RefusedError
from stream.settings import Settings
from stream.topics import check_topics

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def prepare_worker(settings: Settings) -> Iterator[Cluster]:
    """Check all that can be wrong before the first event is taken, and hold what only one worker may hold.

    Yields:
        The cluster: its topics with their partition counts, and whether it is librdkafka's own broker.

    Raises:
        RefusedError: broker, topics, model setting, web port or data folder; the text says what to do.
    """
    if not settings.model.path:
        raise RefusedError(
            "no model is given. Train one (driftline train DATA --out DIR) and name its folder with --model, "
            "DRIFTLINE_MODEL_PATH or [model] path in the settings file."
        )
    if settings.worker.web_port:
        _check_port(settings.worker.web_host, settings.worker.web_port)
    cluster = check_topics(settings)
    with contextlib.ExitStack() as held:
        held.enter_context(claim_embedded(cluster))
        held.enter_context(only_owner(settings.worker.data_dir / settings.worker.group))
        yield cluster


def _check_port(host: str, port: int) -> None:
    """Refuse a port that cannot be had, before Faust's web server would end the worker for it."""
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as exc:
        raise RefusedError(
            f"the web port {host}:{port} cannot be had ({exc.strerror}): another worker may use it. Give this one its "
            "own with --web-port, or --web-port 0 for none."
        ) from exc


@contextlib.contextmanager
def only_owner(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process; the lock goes with the process, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as exc:
        raise RefusedError(
            f"the data folder {folder} cannot be used: {exc.strerror}. Give one that can be written with --data-dir."
        ) from exc
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        os.close(lock)
        raise RefusedError(
            f"another worker uses the data folder {folder}. Give each worker its own with --data-dir."
        ) from exc
    try:
        yield
    finally:
        os.close(lock)


def run_until_stopped(app: Any, log_level: int) -> NoReturn:
    """Run the Faust app as this process until SIGTERM or SIGINT, or until it fails; then end the process."""
    # Objects made until now live as long as the process: the collector need not visit them again (2 us an event).
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    worker = faust.Worker(app, loglevel=log_level, redirect_stdouts=False, stdout=sys.stderr)
    code = 1
    try:
        worker.execute_from_commandline()
    except SystemExit as end:
        code = int(end.code or 0)
    failure = app.consumer.failure
    if failure is not None:
        print(f"driftline: the worker gave up: {failure}", file=sys.stderr, flush=True)
        logging.shutdown()
        os._exit(code or 1)  # Python's own end may wait long for a client whose rebalance failed
    raise SystemExit(code)
