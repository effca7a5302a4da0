"""A Faust app that uses what Faust offers, on our transport. Run by test_faust_features in a process of its own.

Arguments: bootstrap servers, name, data folder, web port.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

import faust

from stream.engine import Chunk, ChunkTopic
from stream.engine.options import EngineOptions

SERVERS, NAME, DATA, PORT = sys.argv[1:5]


class FeatureApp(faust.App):
    engine_options = EngineOptions(data_dir=Path(DATA))


class Item(faust.Record, serializer="json"):
    id: int
    name: str


app = FeatureApp(
    NAME,
    broker=f"rdkafka://{SERVERS}",
    datadir=f"{DATA}/faust",
    topic_partitions=4,
    web_port=int(PORT),
    web_bind="127.0.0.1",
    value_serializer="json",
    stream_wait_empty=False,
)
catalogue = app.topic(f"{NAME}-items", value_type=Item, partitions=4, internal=True)
plain = app.topic(f"{NAME}-plain", value_type=bytes, value_serializer="raw", partitions=4, internal=True)
events = app.topic(f"{NAME}-events", schema=ChunkTopic(changelog=f"{NAME}-changelog"), acks=False)
seen: dict[str, Any] = {"items": 0, "plain": 0, "records": 0, "timer": 0, "task": 0, "cron": 0, "assigned": 0}


@app.agent(catalogue)
async def on_item(stream: Any) -> None:
    async for event in stream.events():
        assert isinstance(event.value, Item)
        seen["items"] += 1


@app.agent(plain)
async def on_plain(stream: Any) -> None:
    async for _ in stream:
        seen["plain"] += 1


@app.agent(events)
async def on_chunk(stream: Any) -> None:
    async for chunk in stream:
        chunk: Chunk
        with chunk:
            for record in chunk.records:
                if record.value() == b"boom":
                    raise ValueError("an agent that fails")
                chunk.put(record.key(), record.value())
            # Faust's own send: inside a chunk it joins the chunk's transaction.
            await plain.send(key=b"k", value=b"%d" % len(chunk.records))
            seen["records"] += len(chunk.records)


@app.agent()
async def adder(stream: Any) -> Any:
    async for value in stream:
        yield value + 1


@app.timer(0.5)
async def tick() -> None:
    seen["timer"] += 1
    sent = await (await catalogue.send(key=b"x", value=Item(id=seen["timer"], name="timer")))
    seen["sent_offset"] = sent.offset
    plain.send_soon(key=b"s", value=b"soon")
    seen["leader"] = app.is_leader()


@app.task
async def once() -> None:
    seen["task"] += 1
    await asyncio.sleep(4)
    seen["ask"] = await asyncio.wait_for(adder.ask(value=41), 30)


@app.on_partitions_assigned.connect
async def assigned(_: Any, tps: Any, **__: Any) -> None:
    seen["assigned"] += 1


@app.page("/seen")
async def view(web: Any, _: Any) -> Any:
    cycle = app.consumer.cycles.get(f"{NAME}-events")
    stored = [p.store.get_many([b"user-7"])[0] for p in cycle._partitions.values()] if cycle else []
    return web.json({**seen, "stored": any(value == b"last" for value in stored)})


if __name__ == "__main__":
    worker = faust.Worker(app, loglevel="INFO", redirect_stdouts=False)
    worker.execute_from_commandline()
