"""`driftline tail`: records of a topic as they arrive."""

import json
import time
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import typer
import yaml
from confluent_kafka import Message

from stream.cli.common import Output, Run, app, command, printable
from stream.errors import RefusedError
from stream.reading import Start, read
from stream.settings import Settings


class Topic(StrEnum):
    """What can be followed: roles of the topics in the settings."""

    recommendations = "recommendations"
    events = "events"
    late = "late"
    dlq = "dlq"


@command(app)
def tail(
    run: Run,
    topic: Annotated[Topic, typer.Argument(help="Which topic.")] = Topic.recommendations,
    start: Annotated[
        str, typer.Option("--from", metavar="PLACE", help="earliest, latest, ts=2026-01-31T12:00:00Z or last=1h.")
    ] = "latest",
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Wait for new records, or end at what is there.")
    ] = True,
    limit: Annotated[int | None, typer.Option("-n", "--limit", min=1, help="End after so many records.")] = None,
    user: Annotated[
        str | None, typer.Option("--user", metavar="USER", help="Only records of this user_id (or anonymous_id).")
    ] = None,
    tenant: Annotated[str, typer.Option("--tenant", help="Whose user, where several share the topics.")] = "",
) -> None:
    """Show lists, events, late events or dead letters, as committed; until Ctrl-C, unless told otherwise.

    -o json gives one JSON object a line, -o yaml one document a record, -o table a line of text.
    """
    topics = run.settings.topics
    name = topics.dead_letters if topic is Topic.dlq else topics.names()[topic.value]
    if tenant and user is None:
        raise RefusedError("--tenant goes with --user: it says whose user is meant.")
    keys = None if user is None else _keys(run.settings, topic, user, tenant)
    shown = 0
    try:
        for message in read(run.settings, name, Start.parse(start, int(time.time() * 1000)), follow=follow):
            if keys is not None and message.key() not in keys:
                continue
            _print(message, topic, run.output)
            shown += 1
            if shown == limit:
                break
    except KeyboardInterrupt:
        run.say("")


def _keys(settings: Settings, topic: Topic, user: str, tenant: str) -> set[bytes]:
    """The keys that records of a user have on a topic; several where pseudonyms have an old key too."""
    from stream.pseudonym import names_of

    names = names_of(settings, user, tenant)
    return {name.list_key if topic is Topic.recommendations else name.event_key for name in names}


def _print(message: Message, topic: Topic, output: Output) -> None:
    record = as_data(message)
    if output is Output.json:
        print(json.dumps(record, ensure_ascii=False), flush=True)
    elif output is Output.yaml:
        print("---\n" + yaml.safe_dump(record, sort_keys=False, allow_unicode=True), end="", flush=True)
    else:
        print(printable(_line(record, topic)), flush=True)


def as_data(message: Message) -> dict[str, Any]:
    """A record as plain data; the value as JSON where it is, else as text with what is no UTF-8 escaped."""
    value = message.value()
    try:
        content = None if value is None else json.loads(value)
    except ValueError:
        content = _text(value)
    return {
        "topic": message.topic(),
        "partition": message.partition(),
        "offset": message.offset(),
        "timestamp_ms": message.timestamp()[1],
        "key": _text(message.key()),
        "headers": {name: _text(content) for name, content in message.headers() or []},
        "value": content,
    }


def _text(value: bytes | str | None) -> str | None:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value


def _line(record: dict[str, Any], topic: Topic) -> str:
    """One line for a person."""
    at = datetime.fromtimestamp(record["timestamp_ms"] / 1000).strftime("%H:%M:%S")
    head = f"{at}  {record['partition']}/{record['offset']}  {record['key'] or '-'}"
    value = record["value"]
    if value is None:
        return f"{head}  (erased)"
    if topic in (Topic.dlq, Topic.late):
        headers = record["headers"]
        why = headers.get("__streams.errors.message") or json.dumps(headers, ensure_ascii=False)
        return f"{head}  {why}"
    if not isinstance(value, dict):
        return f"{head}  {value}"
    if topic is Topic.recommendations:
        items = ", ".join(str(item.get("item_id")) for item in value.get("items", ()))
        return f"{head}  {value.get('strategy', '?')}, {value.get('events_applied', '?')} events: {items}"
    what = value.get("item_id") or json.dumps(value.get("items", ""), ensure_ascii=False)
    return f"{head}  {value.get('event_type', '?')}  {what}"
