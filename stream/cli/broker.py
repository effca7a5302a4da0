"""`driftline broker`: a broker on this machine, for trying things out."""

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from stream.brokers import Broker, EmbeddedBroker, LocalKafka
from stream.cli.common import Run, app, command, new_app
from stream.errors import RefusedError
from stream.topics import topic_specs

group = new_app("broker", "Run a broker here, for trying things out; until Ctrl-C.")
app.add_typer(group)


@command(group)
def kafka(
    run: Run,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Its port; a free one if not given.")] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Where it keeps its data; a temporary folder, removed at the end, if not given.")
    ] = None,
) -> None:
    """Run Apache Kafka itself; needs a JDK (17 or later) and Maven, which fetches it once (44 MB)."""
    run.say("Starting Kafka ...")
    with LocalKafka(folder, port) as broker:
        run.say(f"Kafka runs; its log is {broker.log_file}. Create the topics:")
        run.say(f"  driftline topics create --bootstrap-servers {broker.bootstrap_servers}")
        _until_stopped(run, broker)


@command(group)
def embedded(
    run: Run,
    port: Annotated[int | None, typer.Option(hidden=True, help="Refused: librdkafka lets the system choose.")] = None,
) -> None:
    """Run the embedded broker, with all topics; needs nothing, keeps all in memory, takes one worker.

    Its port is chosen by the system, and printed.
    """
    if port is not None:
        raise RefusedError(
            "the embedded broker's port is chosen by the system. Leave --port out and take the address that it "
            "prints, or use `driftline broker kafka --port`."
        )
    topics = {spec.name: spec.partitions for spec in topic_specs(run.settings)}
    with EmbeddedBroker(topics) as broker:
        run.say("The embedded broker runs, for one worker; what it holds is gone when it ends.")
        _until_stopped(run, broker)


def _until_stopped(run: Run, broker: Broker) -> None:
    """Prints the address on stdout, for scripts, and waits for Ctrl-C or SIGTERM."""
    print(broker.bootstrap_servers, flush=True)
    run.say("Ctrl-C ends it.")
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    signal.signal(signal.SIGINT, lambda *_: stopped.set())
    while not stopped.wait(1.0):  # in steps: an endless wait would not see the signal
        pass
