"""The Faust transport `rdkafka://host:port`, registered by the entry point group `faust.transports`."""

from __future__ import annotations

from typing import ClassVar

import confluent_kafka
from faust.transport import base

from stream.engine.consumer import Consumer, Fetcher
from stream.engine.options import EngineOptions
from stream.engine.producer import Producer


class Conductor(base.Conductor):
    """Faust's conductor. A topic that comes late (the reply topic of a first `ask`) is subscribed after 4 s, not 45.

    Not sooner: Faust's ReplyConsumer waits 3 s between naming the topic and listening to it (agents/replies.py),
    and a listener that comes after the subscription is not heard before the next rebalance.
    """

    _resubscribe_sleep_lock_seconds = 4.0


class Transport(base.Transport):
    """Faust on librdkafka. Its options are the app's `engine_options` (see options.EngineOptions)."""

    Consumer: ClassVar[type[Consumer]] = Consumer
    Producer: ClassVar[type[Producer]] = Producer
    Conductor: ClassVar[type[Conductor]] = Conductor
    Fetcher: ClassVar[type[Fetcher]] = Fetcher
    default_port = 9092
    driver_version = f"confluent_kafka={confluent_kafka.__version__}"

    @property
    def bootstrap_servers(self) -> str:
        """Addresses as librdkafka wants them: host:port, comma-separated."""
        options: EngineOptions = getattr(self.app, "engine_options", EngineOptions())
        if options.bootstrap_servers is not None:
            return options.bootstrap_servers
        return ",".join(f"{url.host}:{url.port or self.default_port}" for url in self.url)
