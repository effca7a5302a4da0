"""CloudEvents 1.0 in its Kafka protocol binding: which attributes a record carries, and where its data is.

binary       headers ce_specversion, ce_id, ce_source, ce_type, ce_time; the value is the data
structured   content-type application/cloudevents+json, or a member `specversion` in the JSON; the value
             is one object with the attributes and the data (`data`, or `data_base64`)

Only specversion is asked for; the other attributes fill in what the data lacks.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from stream.errors import EventError

_MEDIA_TYPE = "application/cloudevents"


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """What the headers say: the attributes of binary mode (None without), and the mode of the value."""

    attributes: dict[str, str] | None = None
    structured: bool = False


_BARE = Envelope()


def read_headers(headers: Sequence[tuple[str, bytes | None]]) -> Envelope:
    """Read the headers that matter, no others.

    Raises EventError: bad_header when one of them is not UTF-8, bad_cloudevent for a version other than 1.x
    or a batch.
    """
    attributes: dict[str, str] = {}
    content_type = ""
    for name, raw in headers:
        if raw is None:
            continue
        lower = name.lower()
        if lower.startswith("ce_"):
            attributes[lower[3:]] = _text(lower, raw)
        elif lower == "content-type":
            content_type = _text(lower, raw).strip().lower()
    if content_type.startswith(_MEDIA_TYPE):
        if content_type.startswith(f"{_MEDIA_TYPE}-batch"):
            raise EventError("bad_cloudevent", "a batch of CloudEvents in one record: send one event a record")
        return Envelope(structured=True)
    if "specversion" in attributes:
        _check_version(attributes["specversion"])
        return Envelope(attributes=attributes)
    return _BARE


def open_structured(envelope: Mapping[str, Any]) -> tuple[Any, dict[str, str]]:
    """Data (parsed) and attributes of a structured CloudEvent.

    Raises EventError: bad_cloudevent when its version, an attribute or its data is not as the standard says.
    """
    _check_version(envelope.get("specversion"))
    attributes: dict[str, str] = {}
    for name in ("id", "source", "type", "time"):
        value = envelope.get(name)
        if value is None:
            continue
        if not isinstance(value, str):
            raise EventError("bad_cloudevent", f"the attribute {name} of the CloudEvent must be text")
        attributes[name] = value
    data = envelope.get("data")
    if data is None and isinstance(envelope.get("data_base64"), str):
        try:
            data = msgspec.json.decode(base64.b64decode(envelope["data_base64"], validate=True))
        except (binascii.Error, ValueError, msgspec.DecodeError, RecursionError):
            raise EventError("bad_cloudevent", "data_base64 of the CloudEvent is no JSON in base64") from None
    if not isinstance(data, dict):
        raise EventError("bad_cloudevent", "the data of the CloudEvent must be a JSON object")
    return data, attributes


def _check_version(version: object) -> None:
    if not (isinstance(version, str) and version.startswith("1.")):
        raise EventError("bad_cloudevent", "specversion of the CloudEvent must be 1.0")


def _text(name: str, raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise EventError("bad_header", f"the header {name} is not UTF-8") from None
