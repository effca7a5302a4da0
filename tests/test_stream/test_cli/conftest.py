"""The command line, run inside this process."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from stream.brokers import EmbeddedBroker
from stream.cli import main
from stream.settings import Settings, load_settings
from stream.topics import create_topics


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def driftline(capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """driftline("get", "u1") runs `driftline get u1`."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    librdkafka = logging.getLogger("stream.librdkafka")

    def run(*arguments: str) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        text = capsys.readouterr()
        return Outcome(int(ended.value.code or 0), text.out, text.err)

    yield run
    root.handlers[:] = handlers  # the command set up logging to a stream that ends with this test
    root.setLevel(level)
    librdkafka.setLevel(logging.CRITICAL)


@pytest.fixture
def settings(embedded: EmbeddedBroker) -> Settings:
    """Settings of an embedded broker that has all topics, events and lists with 6 partitions."""
    found = load_settings(None, {"kafka.bootstrap_servers": embedded.bootstrap_servers, "topics.partitions": 6}, {})
    create_topics(found)
    return found


@pytest.fixture
def there(settings: Settings) -> tuple[str, str]:
    """The flags that lead to that broker."""
    return ("--bootstrap-servers", settings.kafka.bootstrap_servers)
