"""The items topic, as every worker reads it: all partitions, in no group, from the beginning.

    at start     catch_up() reads to the end that the topic had then, and the worker waits for it
    afterwards   a thread of its own follows; what it reads is in the next lists

Compaction leaves the last record of each item, so that a worker need not remember how far it had read.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from state.catalog import Catalog, CatalogItem
from stream.contract.item import Item, decode_item
from stream.contract.properties import text_of
from stream.engine.asking import patiently, watermarks
from stream.errors import ContractError, EngineError, RefusedError
from stream.metrics import Metrics
from stream.settings import Settings

logger = logging.getLogger(__name__)

Changed = Callable[[Catalog, npt.NDArray[np.uint64]], None]

SILENT_S = 30.0
"""The reader's thread has not come round for so long: not ready. It does ten times a second."""
_ASK_S = 20.0
_PATIENCE_S = 30.0
_TELL_S = 5.0
_WARN_EVERY_S = 60.0
# The topic may be made, or be given more partitions, while the worker runs.
_LOOK_AGAIN_S = 30.0
# The lock is held while as many items are put in: 3 ms, a fraction of what the lists of a fetch take.
_BATCH_RECORDS = 500


class ItemsReader:
    """Reads the items topic into a catalogue.

    The catalogue belongs to two threads: this reader's, which writes, and that of the agents, which read. Each holds
    `lock` meanwhile.

    Args:
        settings: the cluster, the topic, and how to hold the items.
        metrics: counters.
        changed: what is told, under the lock, of changed and removed items: the catalogue, and their keys u64[any];
            None where nobody makes lists.
    """

    def __init__(self, settings: Settings, metrics: Metrics, changed: Changed | None = None) -> None:
        self._settings = settings
        self._metrics = metrics
        self._changed = changed
        self.catalog = Catalog(settings.catalog.category_level, settings.catalog.text_bytes)
        self._properties = settings.state_settings().interest_properties
        self.lock = threading.Lock()
        self._topic = settings.topics.items
        self._consumer: Consumer | None = None
        self._partitions: set[int] = set()
        self._looked_s = 0.0
        self._alive_s = time.monotonic()
        self._warned_s = 0.0
        self._bad = 0
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    @property
    def failure(self) -> BaseException | None:
        """What ended the reader; None while all is well."""
        return self._failure

    @property
    def ready(self) -> bool:
        """Whether it follows the topic."""
        return self._failure is None and time.monotonic() - self._alive_s < SILENT_S

    # --- at start

    def catch_up(self) -> None:
        """Read the topic to the end that it has now. A topic that is not there, or empty, gives an empty catalogue.

        Raises:
            RefusedError: it cannot be read, or not within catalog.start_timeout_s.
        """
        started_s = time.monotonic()
        try:
            self._read_to_end(started_s + self._settings.catalog.start_timeout_s)
        except KafkaException as error:
            raise RefusedError(
                f"cannot read {self._topic}: {error.args[0].str()}. See to the broker, or to the right to read it."
            ) from None
        took_s = time.monotonic() - started_s
        if not self._partitions:
            logger.info("there is no topic %s: the catalogue is empty until there is one", self._topic)
        else:
            items, size_mb = len(self.catalog), self.catalog.size_bytes / 1e6
            logger.info("the catalogue holds %d items (%.0f MB), read in %.1f s", items, size_mb, took_s)

    def _read_to_end(self, end_s: float) -> None:
        consumer = self._consumer = Consumer(
            self._settings.client_properties(
                {
                    "group.id": "driftline-items",  # never joined, nothing is committed
                    "enable.auto.commit": False,
                    "isolation.level": "read_committed",
                    "enable.partition.eof": True,
                    "auto.offset.reset": "earliest",  # where retention, or an admin, has taken what comes next
                    "fetch.wait.max.ms": 100,
                }
            )
        )
        self._take_new_partitions(consumer)
        ends = {number: watermarks(consumer, self._topic, number, _PATIENCE_S) for number in self._partitions}
        waiting = {number for number, (low, high) in ends.items() if high > low}
        total = sum(high - low for low, high in ends.values())
        read, told_s = 0, time.monotonic()
        while waiting:
            messages = consumer.consume(_BATCH_RECORDS, 0.2)
            read += sum(message.error() is None for message in messages)
            self._take(messages)
            for message in messages:
                number, offset = message.partition() or 0, message.offset() or 0
                # The end may be the marker of a transaction, which is no record: then the client says so.
                if _is_end(message) or (message.error() is None and offset + 1 >= ends[number][1]):
                    waiting.discard(number)
            now_s = time.monotonic()
            if now_s > end_s:
                raise RefusedError(
                    f"the catalogue is not read: {read} of some {total} records of {self._topic} within "
                    f"{self._settings.catalog.start_timeout_s} s. See to the broker, or give it more time: "
                    "catalog.start_timeout_s."
                )
            if now_s - told_s > _TELL_S:
                told_s = now_s
                logger.info("reading the catalogue: %d of some %d records of %s", read, total, self._topic)

    # --- afterwards

    def start(self) -> None:
        """Follow the topic from where `catch_up` has come, until `stop`."""
        self._thread = threading.Thread(target=self._follow, name="driftline-items", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End; waits for what is in hand."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(_ASK_S)
        if self._consumer is not None and (self._thread is None or not self._thread.is_alive()):
            self._consumer.close()
            self._consumer = None

    def _follow(self) -> None:
        try:
            consumer = self._consumer
            if consumer is None:
                raise EngineError("the items topic is followed before it was read. Report this.")
            while not self._stopping.is_set():
                self._take(consumer.consume(_BATCH_RECORDS, 0.1))
                self._alive_s = time.monotonic()
                if self._alive_s - self._looked_s > _LOOK_AGAIN_S:
                    try:
                        self._take_new_partitions(consumer)
                    except KafkaException as error:
                        logger.warning("cannot look at %s, will look again: %s", self._topic, error.args[0].str())
        except Exception as error:  # the app asks for it, and ends
            self._failure = error
            logger.exception("the reader of %s ends", self._topic)

    def _take_new_partitions(self, consumer: Consumer) -> None:
        """Read those partitions, from the beginning, that are not read yet. Raises KafkaException."""
        self._looked_s = time.monotonic()
        found = patiently(lambda: consumer.list_topics(timeout=_ASK_S), _PATIENCE_S).topics.get(self._topic)
        new = set(found.partitions) - self._partitions if found is not None and found.error is None else set()
        if new:
            consumer.incremental_assign([TopicPartition(self._topic, n, OFFSET_BEGINNING) for n in sorted(new)])
            self._partitions |= new

    # --- records

    def _take(self, messages: Sequence[Message]) -> None:
        """Put what came into the catalogue. Raises EngineError when the client cannot go on."""
        changes = []
        for message in messages:
            error = message.error()
            if error is None:
                changes.append(message)
            elif error.fatal():
                raise EngineError(f"the reader of {self._topic} cannot go on: {error.str()}. Restart the worker.")
            elif not _is_end(message):
                logger.warning("the reader of %s: %s", self._topic, error.str())
        if not changes:
            return
        items = [self._decoded(message) for message in changes]  # the slow part, without the lock
        counts = self._metrics.catalog_records
        with self.lock:
            keys = []
            for item in items:
                if isinstance(item, CatalogItem):
                    keys.append(self.catalog.upsert(item))
                elif item is not None:
                    keys.append(self.catalog.remove(item))
            if self._changed is not None:
                self._changed(self.catalog, np.array(keys, np.uint64))
        counts.labels("upsert").inc(sum(isinstance(item, CatalogItem) for item in items))
        counts.labels("tombstone").inc(sum(isinstance(item, str) for item in items))
        counts.labels("invalid").inc(sum(item is None for item in items))
        self._metrics.catalog_items.set(len(self.catalog))

    def _decoded(self, message: Message) -> CatalogItem | str | None:
        """The item; its id when it is gone; None for a record that is neither."""
        try:
            key = (message.key() or b"").decode("utf-8", "surrogatepass")
            if not key:
                raise ContractError("the record has no key: it is the item_id")
            value = message.value()
            if value is None:
                return key
            item = decode_item(value)
            if item.item_id != key:
                raise ContractError("the record's key is not its item_id: compaction would keep the wrong one")
            return catalog_item(item, self._properties)
        except (ContractError, UnicodeDecodeError) as error:
            self._warn(message, error)
            return None

    def _warn(self, message: Message, error: Exception) -> None:
        self._bad += 1
        now_s = time.monotonic()
        if now_s - self._warned_s > _WARN_EVERY_S:
            self._warned_s = now_s
            told = "the key is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
            logger.warning(
                "%d records on %s are no items and are left out, the last at partition %s, offset %s: %s",
                self._bad,
                self._topic,
                message.partition(),
                message.offset(),
                told,
            )


def catalog_item(item: Item, properties: Sequence[str] = ()) -> CatalogItem:
    """What the catalogue keeps of an item of the contract; of its properties those named."""
    return CatalogItem(
        item_id=item.item_id,
        name=item.name,
        category=item.category_path,
        brand=item.brand or "",
        domain=item.domain or "",
        price=item.price,
        currency=item.currency or "",
        text=item.text or "",
        properties=tuple([text_of(item.properties, name) for name in properties]),
        available=item.available,
        expires_at_ms=item.expires_at_ms,
    )


def _is_end(message: Message) -> bool:
    error = message.error()
    return error is not None and error.code() == KafkaError._PARTITION_EOF
