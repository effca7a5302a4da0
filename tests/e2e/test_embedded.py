"""The four ways to use Driftline, on the embedded broker: produce a file, run a worker, read lists, ask for one."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from stream.brokers import EmbeddedBroker
from tests.chaos.world import Worker, World, wait_for


def _driftline(world: World, *words: str) -> Any:
    flags = [f"--set={name}={value}" for name, value in world.values.items()]
    command = [sys.executable, "-m", "stream.cli", *words, *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def _running(world: World) -> Worker:
    worker = world.worker("a").start()
    wait_for("the worker is ready", lambda: len(worker.partitions()) == 2, 60, [worker])
    return worker


def test_from_a_file_to_a_list_with_reasons(embedded: EmbeddedBroker, tmp_path: Path) -> None:
    world = World(embedded.bootstrap_servers, tmp_path, partitions=2)
    lines = [
        {
            "event_id": f"e{n}",
            "event_type": "view",
            "user_id": f"u{n % 5}",
            "item_id": f"i{n}",
            "occurred_at": 1.78e12 + n,
        }
        for n in range(40)
    ]
    file = tmp_path / "events.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    worker = _running(world)
    try:
        assert _driftline(world, "produce", str(file)).returncode == 0
        wait_for(
            "the user has a list", lambda: _driftline(world, "get", "u3", "-o", "json").returncode == 0, 30, [worker]
        )

        def last() -> Any:
            return json.loads(_driftline(world, "get", "u3", "-o", "json").stdout)

        wait_for("all its events are in it", lambda: last()["events_applied"] == 8, 30, [worker])
        made = last()
        assert made["user_id"] == "u3"
        assert len(made["items"]) == 20
        assert all(item["reasons"] for item in made["items"])
        tail = _driftline(world, "tail", "--from", "earliest", "--limit", "1", "-o", "json")
        assert "recommendation_id" in tail.stdout
        assert worker.stop() == 0
    finally:
        worker.end()


def test_a_second_worker_is_refused_with_the_reason(embedded: EmbeddedBroker, tmp_path: Path) -> None:
    world = World(embedded.bootstrap_servers, tmp_path, partitions=2)
    worker = _running(world)
    try:
        second = _driftline(world, "worker", "--web-port", "0", "--data-dir", str(tmp_path / "b"))
        assert second.returncode == 2
        assert "another worker is on the embedded broker" in second.stderr
        assert worker.stop() == 0
    finally:
        worker.end()
