"""Where a benchmark runs: topics of its own on a Kafka, a folder, and processes that end with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec
from prometheus_client.parser import text_string_to_metric_families

from stream.brokers.local import free_port
from stream.settings import Settings, load_settings
from stream.topics import create_topics

ROOT = Path(__file__).resolve().parents[2]
_STOP_S = 30.0
_ASK_S = 30.0
_LOG_TAIL_BYTES = 3_000


class Place:
    """Topics named `name`.* and a temporary folder; both go when it is left."""

    def __init__(self, servers: str, partitions: int) -> None:
        self.servers = servers
        self.partitions = partitions
        self.name = f"bench-{uuid.uuid4().hex[:8]}"
        self._folder = tempfile.TemporaryDirectory(prefix="driftline-bench-")
        self.folder = Path(self._folder.name)
        self._admin = AdminClient({"bootstrap.servers": servers})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._folder.cleanup()
        mine = [topic for topic in self._admin.list_topics(timeout=_ASK_S).topics if self.name in topic]
        for future in self._admin.delete_topics(mine).values() if mine else ():
            future.result(_ASK_S)

    def settings(self, model: Path) -> tuple[Settings, list[str]]:
        """Settings of a worker with topics of its own, and the flags that give them to `driftline worker`."""
        name = f"{self.name}.{uuid.uuid4().hex[:6]}"
        values: dict[str, Any] = {
            "kafka.bootstrap_servers": self.servers,
            "worker.group": name,
            "worker.data_dir": str(self.folder / name),
            "model.path": str(model),
            "topics.partitions": self.partitions,
            **{f"topics.{role}": f"{name}.{role}" for role in Settings().topics.names()},
        }
        settings = load_settings(overrides=values, environ={})
        create_topics(settings)
        return settings, [f"--set={key}={value}" for key, value in values.items()]

    def topic(self, kind: str) -> str:
        """A new topic without settings of its own."""
        name = f"{self.name}.{uuid.uuid4().hex[:6]}.{kind}"
        self._admin.create_topics([NewTopic(name, self.partitions, 1)])[name].result(_ASK_S)
        end_s = time.monotonic() + _ASK_S
        while name not in self._admin.list_topics(timeout=_ASK_S).topics:  # the broker tells of it a little later
            if time.monotonic() > end_s:
                raise TimeoutError(f"the broker did not make topic {name}")
            time.sleep(0.1)
        return name

    def size(self, topic: str) -> int:
        """Offsets in a topic: its records, and the markers of transactions if there were any."""
        numbers = range(self.partitions)
        asked = {TopicPartition(topic, number): OffsetSpec.latest() for number in numbers}
        return sum(future.result(_ASK_S).offset for future in self._admin.list_offsets(asked).values())

    def forget(self, topics: list[str]) -> None:
        """Delete topics that are no longer needed, so that the broker's disk is not filled by what was."""
        for future in self._admin.delete_topics(topics).values():
            try:
                future.result(_ASK_S)
            except KafkaException as exc:
                if exc.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise


class Program:
    """A Python process of a benchmark, with its log; ended when the `with` is left."""

    def __init__(self, folder: Path, arguments: list[str]) -> None:
        self.log = folder / f"{uuid.uuid4().hex[:8]}.log"
        self.port = free_port()
        with self.log.open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, *(argument.replace("{port}", str(self.port)) for argument in arguments)],
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def check(self) -> None:
        """Raises RuntimeError with the end of its log when the process has failed."""
        if self._process.poll() not in (None, 0):
            raise RuntimeError(f"a process of the benchmark ended with {self._process.returncode}:\n{self.tail()}")

    def wait(self, seconds: float) -> None:
        """Until it ends by itself. Raises TimeoutError, or RuntimeError when it failed."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"a process of the benchmark did not end in {seconds:.0f} s:\n{self.tail()}") from None
        self.check()

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace")

    def figures(self) -> dict[str, float]:
        """Its Prometheus metrics: 'name{label=value,...}' -> value; none while its web server is not up."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
                text = answer.read().decode()
        except (urllib.error.URLError, ConnectionError):
            return {}
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
                found[f"{sample.name}{{{labels}}}"] = sample.value
        return found


def worker(folder: Path, flags: list[str]) -> Program:
    """A `driftline worker` process."""
    run = "from stream.cli import main; main()"
    return Program(folder, ["-c", run, "worker", "--set=worker.web_port={port}", *flags])


def module(folder: Path, name: str, *arguments: str) -> Program:
    """A module beside this one, as a process."""
    return Program(folder, ["-m", f"tests.bench.{name}", *arguments])


def until(what: str, done: Callable[[], bool], seconds: float, programs: list[Program], every_s: float = 0.1) -> None:
    """Wait until `done`. Raises RuntimeError when one of `programs` fails, TimeoutError when it takes too long."""
    end_s = time.monotonic() + seconds
    while not done():
        for program in programs:
            program.check()
        if time.monotonic() > end_s:
            tails = "\n".join(program.tail() for program in programs)
            raise TimeoutError(f"{what}: not within {seconds:.0f} s\n{tails}")
        time.sleep(every_s)


@contextmanager
def said(what: str) -> Iterator[None]:
    """Say on stderr what is being done and how long it took."""
    print(f"  {what} ...", end="", file=sys.stderr, flush=True)
    started_s = time.monotonic()
    yield
    print(f" {time.monotonic() - started_s:.1f} s", file=sys.stderr, flush=True)
