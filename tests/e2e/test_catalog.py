"""The catalogue in a worker, on a real Kafka: what `driftline produce --items` says shows in the next lists."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from stream.brokers import EmbeddedBroker
from stream.contract.recommendation import Recommendation
from tests.chaos.world import Worker, World, wait_for


class Shop:
    """A worker that runs, its catalogue, and a user who looks at things."""

    def __init__(self, world: World, folder: Path) -> None:
        self._world, self._folder = world, folder
        self.worker = world.worker("a")
        self._events = 0
        self._producer = Producer({"bootstrap.servers": world.settings.kafka.bootstrap_servers, "linger.ms": 0})

    def says(self, *rows: dict[str, Any]) -> None:
        """`driftline produce --items`."""
        file = self._folder / "items.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        flags = [f"--set={name}={value}" for name, value in self._world.values.items()]
        command = [sys.executable, "-m", "stream.cli", "produce", "--items", str(file), *flags]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert f"{len(rows)} items sent" in done.stderr

    def heard(self, records: int) -> None:
        """Wait until the worker has read so many records of items, all in all."""
        wait_for(
            "the worker has the items",
            lambda: self.worker.metric("driftline_catalog_records_total") == records,
            30,
            [self.worker],
        )

    def views(self, item_id: str, **more: Any) -> Recommendation:
        """The list after ann's next view."""
        number = self._events = self._events + 1
        event = {"event_id": f"e{number}", "event_type": "view", "user_id": "ann", "item_id": item_id, **more}
        event.setdefault("occurred_at", int(time.time() * 1000))
        self._producer.produce(self._world.settings.topics.events, json.dumps(event).encode(), b"ann")
        assert self._producer.flush(20) == 0

        def last() -> Recommendation | None:
            return self._world.last_lists().get(b"ann")

        wait_for(
            "the list",
            lambda: (made := last()) is not None and made.events_applied == number,
            30,
            [self.worker],
        )
        made = last()
        assert made is not None
        return made


@pytest.mark.kafka
def test_an_item_gets_a_category_becomes_unavailable_expires_and_goes(kafka: str, tmp_path: Path) -> None:
    world = World(kafka, tmp_path, partitions=2)
    shop = Shop(world, tmp_path)
    shop.says({"item_id": "new", "name": "Mug", "category": ["Kitchen", "Cups"]}, {"item_id": "i1", "price": 3.5})
    shop.worker.start()
    try:
        wait_for("the worker is ready", lambda: len(shop.worker.partitions()) == 2, 60, [shop.worker])
        assert shop.worker.metric("driftline_catalog_items") == 2  # before the first event

        made = shop.views("new")  # the model does not know it
        assert [interest.name for interest in made.interests] == ["Cups"]

        listed = [item.item_id for item in shop.views("i1").items]
        off, gone, ends = listed[:3]
        now_ms = int(time.time() * 1000)
        shop.says(
            {"item_id": off, "available": False},
            {"item_id": gone, "deleted": True},
            {"item_id": ends, "expires_at": now_ms - 60_000},
        )
        shop.heard(5)
        after = [item.item_id for item in shop.views("i1").items]
        assert len(after) == len(listed)
        assert not {off, gone} & set(after)
        assert ends not in after
        # An event of before, which comes only now, is judged as of its own time.
        assert ends in {item.item_id for item in shop.views("i1", occurred_at=now_ms - 120_000).items}

        shop.says({"item_id": off}, {"item_id": gone}, {"item_id": ends}, {"item_id": "new", "deleted": True})
        shop.heard(9)
        assert {off, gone, ends} <= {item.item_id for item in shop.views("i1").items}
        assert shop.worker.metric("driftline_catalog_items") == 4
        assert shop.worker.stop() == 0
    finally:
        shop.worker.end()


@pytest.mark.kafka
def test_lists_are_limited_to_the_domain_that_the_catalogue_gives_an_item(kafka: str, tmp_path: Path) -> None:
    world = World(kafka, tmp_path, partitions=2)  # its model knows no domains
    world.values["ranking.domains"] = "event"
    flags = [f"--set={name}={value}" for name, value in world.values.items()]
    command = [sys.executable, "-m", "stream.cli", "worker", *flags, "--data-dir", str(tmp_path / "refused")]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 2, refused.stderr
    assert "neither the model nor the catalogue knows the domain" in refused.stderr

    shop = Shop(world, tmp_path)
    shop.says(*[{"item_id": f"i{n}", "domain": ("films", "books")[n % 2]} for n in range(80)])
    shop.worker.start()
    try:
        wait_for("the worker is ready", lambda: len(shop.worker.partitions()) == 2, 60, [shop.worker])
        made = shop.views("i1", domain="books")
        listed = {item.item_id for item in made.items}
        assert (made.domain, len(listed)) == ("books", 20)
        assert listed <= {f"i{n}" for n in range(1, 80, 2)}
        moved = made.items[0].item_id
        shop.says({"item_id": moved, "domain": "films"})
        shop.heard(81)
        assert moved not in {item.item_id for item in shop.views("i1", domain="books").items}
        films = {item.item_id for item in shop.views("i2", domain="films").items}
        assert films <= {f"i{n}" for n in range(0, 80, 2)} | {moved}
        assert not {item.item_id for item in shop.views("i1").items} <= {f"i{n}" for n in range(80)}
        assert shop.worker.stop() == 0
    finally:
        shop.worker.end()


BROKEN = """
import stream.catalog, sys
take, taken = stream.catalog.ItemsReader._take, []
def broken(self, messages):
    if self._thread is not None:
        raise RuntimeError("the reader is broken")
    take(self, messages)
stream.catalog.ItemsReader._take = broken
from stream.cli import main
main(sys.argv[1:])
"""


def test_a_worker_whose_reader_fails_ends(embedded: EmbeddedBroker, tmp_path: Path) -> None:
    world = World(embedded.bootstrap_servers, tmp_path, partitions=2)
    flags = [f"--set={name}={value}" for name, value in world.values.items()]
    flags += ["--web-port", "0", "--data-dir", str(tmp_path / "a")]
    command = [sys.executable, "-c", BROKEN, "worker", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    assert "the reader is broken" in done.stderr


def test_a_worker_waits_for_the_catalogue_and_says_so(embedded: EmbeddedBroker, tmp_path: Path) -> None:
    world = World(embedded.bootstrap_servers, tmp_path, partitions=2)
    shop = Shop(world, tmp_path)
    shop.says(*[{"item_id": f"i{n}", "price": n} for n in range(400)])
    worker: Worker = shop.worker.start()
    try:
        wait_for("the worker is ready", lambda: len(worker.partitions()) == 2, 60, [worker])
        assert "the catalogue holds 400 items" in worker.log.read_text()
        assert worker.stop() == 0
    finally:
        worker.end()
