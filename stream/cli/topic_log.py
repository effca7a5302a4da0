"""A range of the events topic as a log to train on: decoded, and put in time, as the worker does it."""

from collections import Counter
from collections.abc import Iterator

from model.errors import DatasetError
from model.training.dataset import EventLine, EventRow, LogReader
from stream.contract.aliases import USER_ERASED
from stream.contract.event import Event, EventDecoder
from stream.dead_letter import headers_of
from stream.errors import EventError
from stream.late import EventClock, first_record_ms
from stream.reading import End, Start, read, record_ms
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
    decode = EventDecoder(settings.events.max_bytes, max_future_ms=None).decode
    clock = EventClock(settings.events)
    for count, message in enumerate(read(settings, topic, start, follow=False, end=end), 1):
        try:
            received_ms, headers = record_ms(message), headers_of(message)
            event = decode(message.value(), message.key(), headers, now_ms=received_ms)
            at_ms = clock.time_ms(event, first_record_ms(headers, received_ms))
            if event.event_type == USER_ERASED:
                reader.forget(event.subject, event.tenant or "")
            else:
                reader.add(f"{topic}, partition {message.partition()}, offset {message.offset()}", _row(event, at_ms))
        except EventError as error:
            broken[error.reason] += 1
        except DatasetError:  # such as a rating without a number: good enough for a state, not to learn from
            broken["not_learnt"] += 1
        if count % _STEP == 0:
            yield
    yield


def _row(event: Event, at_ms: int) -> EventRow:
    return EventRow(
        event_type=event.event_type,
        occurred_at=at_ms,
        user_id=event.subject,
        event_id=event.event_id,
        items=[EventLine(line.item_id, line.category, None, line.brand, line.price) for line in event.lines()],
        tenant=event.tenant,
        domain=event.domain,
        value=event.value,
    )
