"""The job of `job` as a Faust app on Driftline's engine: python -m tests.bench.engine_job SERVERS IN OUT CHANGELOG
GROUP FOLDER PORT. Runs until SIGTERM."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterable
from pathlib import Path
from typing import NoReturn

import faust
from prometheus_client import CollectorRegistry

from stream.engine import Chunk, ChunkTopic
from stream.engine.options import EngineOptions
from stream.health import add_pages
from stream.worker import run_until_stopped
from tests.bench.job import apply, decode_event, decode_state, encode_state, list_of, new_state


def process(chunk: Chunk, out: str) -> None:
    """The job, for a chunk of events."""
    events = [(record.offset() or 0, record.key() or b"", decode_event(record.value())) for record in chunk.records]
    keys = list({key for _, key, _ in events})
    states = {
        key: new_state() if value is None else decode_state(value)
        for key, value in zip(keys, chunk.get_many(keys), strict=True)
    }
    for offset, key, event in events:
        apply(states[key], event, offset)
    number = chunk.partition.number
    for key, state in states.items():
        chunk.put(key, encode_state(state))
        chunk.send(out, list_of(key.decode(), state), key, number)


def main() -> NoReturn:
    """See the module."""
    servers, source, out, changelog, group, folder, port = sys.argv[1:]
    Path(folder).mkdir(parents=True)
    app = faust.App(
        group,
        broker=f"rdkafka://{servers}",
        datadir=str(Path(folder) / "faust"),
        topic_allow_declare=False,
        topic_disable_leader=True,
        stream_wait_empty=False,
        web_host="127.0.0.1",
        web_bind="127.0.0.1",
        web_port=int(port),
    )
    app.engine_options = EngineOptions(bootstrap_servers=servers, data_dir=Path(folder))

    events = app.topic(source, schema=ChunkTopic(changelog=changelog, group=group), acks=False)

    @app.agent(events)  # type: ignore[untyped-decorator]  # Faust has no types
    async def job(stream: AsyncIterable[Chunk]) -> None:
        async for chunk in stream:
            with chunk:
                process(chunk, out)

    add_pages(app, CollectorRegistry())
    run_until_stopped(app, logging.WARNING)


if __name__ == "__main__":
    main()
