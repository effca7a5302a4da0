"""From an event's produce call to its committed list at a reader.

    python -m tests.bench.latency send SERVERS TOPIC RATE SECONDS USERS ITEMS RESULT.json
    python -m tests.bench.latency receive SERVERS TOPIC FIRST_NUMBER READY RESULT.json

Both are processes of their own. An event's id is its number and the time just before it was produced; a list names the
event it was made at, so each list tells its own delay. An event that shares its user's list with a later one of the
same chunk has no list of its own; `lists_per_event` says how many had.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from tests.bench.place import Place, Program, module, until
from tests.bench.shop import passes, shop_event, user_key

WARM_UP_S = 5
_ASK_S = 20.0
_LINGER_MS = 1  # of the shop's producer
_SILENCE_S = 5.0
_LONGEST_S = 300.0


class _Trigger(msgspec.Struct, gc=False):
    trigger_event_id: str


def measure(
    place: Place, program: Program, events: str, lists: str, rate: int, seconds: int, users: int, items: int
) -> dict[str, float]:
    """Send at `rate` events a second for `seconds` after a warm-up; delays in ms, rates in events a second."""
    ready, sent, received = (place.folder / f"{rate}.{what}" for what in ("ready", "sent", "received"))
    first = rate * WARM_UP_S
    with module(
        place.folder, "latency", "receive", place.servers, lists, str(first), str(ready), str(received)
    ) as reader:
        until("the reader is ready", ready.exists, 60, [reader, program])
        duration = str(seconds + WARM_UP_S)
        arguments = (place.servers, events, str(rate), duration, str(users), str(items), str(sent))
        with module(place.folder, "latency", "send", *arguments) as sender:
            until("all is sent", sent.exists, seconds * 4 + 60, [sender, reader, program])
        until("all is received", received.exists, 120, [reader, program])
    told: dict[str, float] = json.loads(sent.read_text())
    heard: dict[str, float] = json.loads(received.read_text())
    count = told["events"] - first
    return {
        **{name: round(heard[name], 2) for name in ("p50", "p90", "p99", "max")},
        "rate": round(told["rate"], 1),
        "sender_late_p99": round(told["late_p99"], 2),
        "events": count,
        "lists_per_event": round(heard["lists"] / count, 4),
    }


def send(servers: str, topic: str, rate: int, seconds: int, users: int, items: int, result: str) -> None:
    """The shop: events at a steady rate."""
    producer = Producer(
        {"bootstrap.servers": servers, "linger.ms": _LINGER_MS, "partitioner": "murmur2_random", "acks": "all"}
    )
    producer.list_topics(topic, _ASK_S)
    draw = random.Random(3)
    count = rate * seconds
    late_ms = []
    began_s = time.monotonic()
    for number, user in enumerate(passes(users, count, seed=rate)):
        due_s = began_s + number / rate
        while (wait_s := due_s - time.monotonic()) > 0:
            producer.poll(0)
            time.sleep(min(wait_s, 0.002))
        key = user_key(user)
        event = shop_event(draw, key.decode(), items, int(time.time() * 1000), "")
        event["event_id"] = f"{number}-{time.time_ns()}"
        late_ms.append((time.monotonic() - due_s) * 1000)
        producer.produce(topic, json.dumps(event).encode(), key)
    took_s = time.monotonic() - began_s
    left = producer.flush(60)
    if left:
        raise TimeoutError(f"{left} events were not taken")
    _write(result, {"events": count, "rate": count / took_s, "late_p99": float(np.percentile(late_ms, 99))})


def receive(servers: str, topic: str, first: int, ready: str, result: str) -> None:
    """A reader of committed lists: delays of those of event number `first` and later, until none come any more."""
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": f"{topic}.reader",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 5,
        }
    )
    assigned = []
    for number in consumer.list_topics(topic, _ASK_S).topics[topic].partitions:
        end = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=_ASK_S)[1]
        assigned.append(TopicPartition(topic, number, end))
    consumer.assign(assigned)
    consumer.consume(1, 0.5)
    Path(ready).touch()
    decode = msgspec.json.Decoder(_Trigger).decode
    delays_ms: list[float] = []
    began_s = heard_s = time.monotonic()
    heard = False
    while time.monotonic() - began_s < _LONGEST_S and not (heard and time.monotonic() - heard_s > _SILENCE_S):
        messages = consumer.consume(1, 0.1)
        if not messages:
            continue
        messages += consumer.consume(1_000, 0)
        now_ns = time.time_ns()
        heard, heard_s = True, time.monotonic()
        for message in messages:
            if message.error() is not None:
                raise KafkaException(message.error())
            number, _, sent_ns = decode(message.value()).trigger_event_id.partition("-")
            if int(number) >= first:
                delays_ms.append((now_ns - int(sent_ns)) / 1e6)
    consumer.close()
    p50, p90, p99, longest = np.percentile(delays_ms, [50, 90, 99, 100]).tolist()
    _write(result, {"p50": p50, "p90": p90, "p99": p99, "max": longest, "lists": len(delays_ms)})


def _write(path: str, figures: dict[str, Any]) -> None:
    """Whole or not at all: somebody waits for the file."""
    part = Path(path + ".part")
    part.write_text(json.dumps(figures))
    part.rename(path)


def main() -> None:
    """See the module."""
    what, servers, topic, *more = sys.argv[1:]
    if what == "send":
        rate, seconds, users, items, result = more
        send(servers, topic, int(rate), int(seconds), int(users), int(items), result)
    else:
        first, ready, result = more
        receive(servers, topic, int(first), ready, result)


if __name__ == "__main__":
    main()
