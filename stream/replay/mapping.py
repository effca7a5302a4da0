"""What the columns of others mean: flags such as `--map user=visitorid`, and mapping files.

# mapping.toml
time_unit = "s"
[columns]
user = "visitorid"
time = "timestamp"
[types]
addtocart = "add_to_cart"
[constants]
tenant = "shop-a"
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from stream.contract.event import Event
from stream.errors import RefusedError
from stream.event_table import TIME_UNITS

SHORT = {
    "user": "user_id",
    "item": "item_id",
    "type": "event_type",
    "time": "occurred_at",
    "session": "session_id",
    "id": "event_id",
    "anonymous": "anonymous_id",
    "sent": "sent_at",
}
"""Short names of our fields."""


class Columns(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a mapping file says, with our fields under their full names."""

    columns: dict[str, str] = {}
    """Our field -> its column."""
    types: dict[str, str] = {}
    """Their event type -> ours."""
    constants: dict[str, Any] = {}
    """Our field -> its value where a row has none."""
    event_type: str | None = None
    """Of rows that have none."""
    time_unit: str | None = None
    """Of numbers that are times; None: told by their size."""
    preset: str | None = None
    """The layout; None: told by content."""


def read_columns(path: Path) -> Columns:
    """A mapping file. Raises RefusedError when it cannot be read or names what is no field of an event."""
    try:
        found = msgspec.toml.decode(path.read_bytes(), type=Columns)
    except OSError as error:
        raise RefusedError(f"cannot read {path}: {error.strerror}. Give a mapping file.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RefusedError(
            f"{path} is no mapping file: {error}. It may hold {', '.join(Columns.__struct_fields__)}."
        ) from None
    if found.time_unit is not None and found.time_unit not in TIME_UNITS:
        raise RefusedError(f"{path}: time_unit is none of {', '.join(TIME_UNITS)}.")
    return msgspec.structs.replace(
        found,
        columns=own_names(found.columns, f"{path}: columns"),
        constants=own_names(found.constants, f"{path}: constants"),
    )


def columns_of(flags: Iterable[str], flag: str = "--map") -> dict[str, str]:
    """Of flags FIELD=COLUMN. Raises RefusedError."""
    pairs = {}
    for text in flags:
        own, equals, column = text.partition("=")
        if not equals or not own or not column:
            raise RefusedError(f"{flag} {text} is no FIELD=COLUMN, such as {flag} user=visitorid.")
        pairs[own] = column
    return own_names(pairs, flag)


def own_names(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The same under the full names of our fields. Raises RefusedError for what is no field of an event."""
    named = {SHORT.get(own, own): value for own, value in given.items()}
    wrong = [own for own in named if own not in Event.__struct_fields__]
    if wrong:
        raise RefusedError(
            f"{where}: {', '.join(wrong)} is no field of an event. These are: {', '.join(Event.__struct_fields__)}; "
            f"short: {', '.join(SHORT)}."
        )
    return named
