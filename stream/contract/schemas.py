"""JSON Schemas of the messages, and the AsyncAPI document of the topics, generated from the structs.

    python -m stream.contract.schemas            write stream/contract/schemas/*.json, deploy/asyncapi.yaml
    python -m stream.contract.schemas --check    change nothing; end with 1 when one is not current

A schema describes what we write and what we ask of others; the worker also accepts what it need not ask for
(aliases, CloudEvents: see event.py).
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from stream.contract.control import ERROR_HEADERS, LATE_HEADERS, ErasureConfirmed, ModelPointer
from stream.contract.event import WITHOUT_ITEM, Event
from stream.contract.item import Item
from stream.contract.recommendation import Recommendation

SCHEMAS_DIR = Path(__file__).parent / "schemas"
ASYNCAPI_FILE = Path(__file__).parents[2] / "deploy" / "asyncapi.yaml"

#: File name (without .json) -> struct.
MESSAGES: dict[str, type[msgspec.Struct]] = {
    "event": Event,
    "recommendation": Recommendation,
    "item": Item,
    "model_pointer": ModelPointer,
    "erasure_confirmed": ErasureConfirmed,
}


def json_schema(name: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of one of MESSAGES."""
    kind = MESSAGES[name]
    definitions = msgspec.json.schema(kind)["$defs"]
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **definitions.pop(kind.__name__),
    }
    if kind is Event:
        # What a struct cannot say: one of two members must be there.
        schema["allOf"] = [
            {"anyOf": [_given("user_id"), _given("anonymous_id")]},
            {
                "anyOf": [
                    _given("item_id"),
                    {"required": ["items"], "properties": {"items": {"minItems": 1}}},
                    {"properties": {"event_type": {"enum": sorted(WITHOUT_ITEM)}}},
                ]
            },
        ]
    if definitions:
        schema["$defs"] = definitions
    return schema


def _given(member: str) -> dict[str, Any]:
    return {"required": [member], "properties": {member: {"type": "string", "minLength": 1}}}


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3 document: each topic with its key, value and headers. Names are the default ones."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Driftline",
            "version": "1.0.0",
            "description": "Events in, recommendation lists out. Topic names are the defaults of the section "
            "[topics] of the settings. All records of a user have the user as key and are on the partition "
            "that murmur2 of the key gives, as Java producers choose it.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {
            "events": _channel(
                "driftline.events.v1",
                "event",
                "What users do. Bare JSON, or a CloudEvent 1.0 in binary or structured mode.",
            ),
            "recommendations": _channel(
                "driftline.recommendations.v1",
                "recommendation",
                "The list of each user; the last one counts.",
                compacted=True,
            ),
            "items": _channel(
                "driftline.items.v1", "item", "The catalogue; no value takes the item out.", compacted=True
            ),
            "models": _channel("driftline.models.v1", "model_pointer", "The active model by name.", compacted=True),
            "erasures": _channel(
                "driftline.erasures.v1",
                "erasure_confirmed",
                "Erasures that were done; kept, so that no replay brings back what was erased.",
                compacted=True,
            ),
            "late": _channel(
                "driftline.events.v1.late",
                "late_event",
                "Events that came too late: key, value and headers unchanged, how late in added headers.",
            ),
            "deadLetters": _channel(
                "driftline.events.v1.dlq",
                "dead_letter",
                "Records that cannot be used: key, value and headers unchanged, the reason in added headers.",
            ),
        },
        "operations": {
            "receiveEvents": _operation("receive", "events"),
            "receiveItems": _operation("receive", "items"),
            "receiveModels": _operation("receive", "models"),
            "sendRecommendations": _operation("send", "recommendations"),
            "sendErasures": _operation("send", "erasures"),
            "sendLate": _operation("send", "late"),
            "sendDeadLetters": _operation("send", "deadLetters"),
        },
        "components": {
            "messages": {
                "event": _message("event", "The user: user_id, or anonymous_id without one."),
                "recommendation": _message("recommendation", "The user, as in the events."),
                "item": _message("item", "The item_id."),
                "model_pointer": _message("model_pointer", "Name of the model."),
                "erasure_confirmed": _message(
                    "erasure_confirmed", "The user_hash, a slash, and the partition of the events topic."
                ),
                "late_event": {
                    **_message("event", "The user, as in the events."),
                    "name": "late_event",
                    "headers": _headers(ERROR_HEADERS + LATE_HEADERS),
                },
                "dead_letter": {
                    "name": "dead_letter",
                    "contentType": "application/octet-stream",
                    "headers": _headers(ERROR_HEADERS),
                    "payload": {"description": "The bytes of the record, whatever they are."},
                },
            }
        },
    }


def _channel(topic: str, message: str, description: str, *, compacted: bool = False) -> dict[str, Any]:
    policy = ["compact"] if compacted else ["delete"]
    return {
        "address": topic,
        "description": description,
        "messages": {message: {"$ref": f"#/components/messages/{message}"}},
        "bindings": {"kafka": {"topic": topic, "topicConfiguration": {"cleanup.policy": policy}}},
    }


def _headers(names: Sequence[str]) -> dict[str, Any]:
    return {"type": "object", "properties": {name: {"type": "string"} for name in names}, "required": list(names)}


def _operation(action: str, channel: str) -> dict[str, Any]:
    return {"action": action, "channel": {"$ref": f"#/channels/{channel}"}}


def _message(name: str, key: str) -> dict[str, Any]:
    return {
        "name": name,
        "payload": {"$ref": f"../stream/contract/schemas/{name}.json"},
        "bindings": {"kafka": {"key": {"type": "string", "description": key}}},
    }


def generated() -> dict[Path, str]:
    """Every generated file with what it should hold."""
    files = {
        SCHEMAS_DIR / f"{name}.json": json.dumps(json_schema(name), indent=2, ensure_ascii=False) + "\n"
        for name in MESSAGES
    }
    text = yaml.safe_dump(asyncapi(), sort_keys=False, allow_unicode=True, width=110)
    files[ASYNCAPI_FILE] = "# Written by python -m stream.contract.schemas; do not edit.\n" + text
    return files


def stale(files: dict[Path, str]) -> list[Path]:
    """Those of the files that are missing or hold something else, and schemas that nothing generates."""
    wrong = [path for path, text in files.items() if not path.is_file() or path.read_text("utf-8") != text]
    return wrong + [path for path in sorted(SCHEMAS_DIR.glob("*.json")) if path not in files]


def main(arguments: list[str] | None = None) -> int:
    """Write or check the files; the exit code of the command."""
    parser = argparse.ArgumentParser(prog="python -m stream.contract.schemas", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail when a file is not current")
    check = parser.parse_args(arguments).check
    files = generated()
    if check:
        wrong = stale(files)
        for path in wrong:
            print(f"{path.name} is not current: run python -m stream.contract.schemas", file=sys.stderr)
        return 1 if wrong else 0
    for path in stale(files):
        if path in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[path], "utf-8")
        else:
            path.unlink()
        print(path.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
