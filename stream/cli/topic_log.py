"""A range of the events topic as a log to train on: decoded as the worker decodes it."""

import time
from collections import Counter
from collections.abc import Iterator

from model.errors import DatasetError
from model.training.dataset import EventLine, EventRow, LogReader
from stream.cli.reading import End, Start, read
from stream.contract.aliases import USER_ERASED
from stream.contract.event import Event, EventDecoder
from stream.errors import EventError
from stream.settings import Settings

_STEP = 65_536
"""Events between two steps."""


def read_topic(
    settings: Settings, topic: str, start: Start, end: End, reader: LogReader, broken: Counter[str]
) -> Iterator[None]:
    """Read a range of a topic, some tens of thousands of events at each step.

    Events that cannot be used are counted in `broken` by reason, as they would be dead letters of a worker, and what
    came before a user asked to be forgotten is left out. Raises BrokerError, TopicError, ReadError.
    """
    decode = EventDecoder(settings.events.max_bytes, max_future_ms=settings.events.max_future_s * 1000).decode
    for count, message in enumerate(read(settings, topic, start, follow=False, end=end), 1):
        try:
            now_ms = int(time.time() * 1000)
            event = decode(message.value(), message.key(), message.headers(), now_ms=now_ms)
            if event.event_type == USER_ERASED:
                reader.forget(event.subject, event.tenant or "")
            else:
                reader.add(f"{topic}, partition {message.partition()}, offset {message.offset()}", _row(event))
        except EventError as error:
            broken[error.reason] += 1
        except DatasetError:  # such as a rating without a number: good enough for a state, not to learn from
            broken["not_learnt"] += 1
        if count % _STEP == 0:
            yield
    yield


def _row(event: Event) -> EventRow:
    return EventRow(
        event_type=event.event_type,
        occurred_at=event.occurred_at_ms,
        user_id=event.subject,
        event_id=event.event_id,
        items=[EventLine(line.item_id, line.category) for line in event.lines()],
        tenant=event.tenant,
        domain=event.domain,
        value=event.value,
    )
