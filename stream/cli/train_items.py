"""What a catalogue tells of the items that `driftline train` learns: from a file of items, or from the items topic."""

from collections.abc import Collection
from pathlib import Path

from model.errors import DatasetError
from model.training.details import TEXT_CHARACTERS, ItemDetails, price_of
from stream.contract.item import Item, decode_item
from stream.errors import ContractError, EventError, ProduceError
from stream.event_file import EventFile
from stream.event_table import Reading
from stream.produce import item_record
from stream.reading import End, Start, read
from stream.settings import Settings


def item_file(path: Path) -> EventFile:
    """A file of items, as `driftline produce --items` takes it. Raises RefusedError when it cannot be one."""
    return EventFile(path, Reading(of_items=True))


def items_of_file(file: EventFile, wanted: Collection[str], category_level: int) -> dict[str, ItemDetails]:
    """Items by id from a file, those wanted; the last row of an item counts.

    file: of `item_file`. wanted: ids of items. category_level: which name of a path is the item's category, as
    catalog.category_level. Raises DatasetError that names file, row and column.
    """
    found: dict[str, ItemDetails] = {}
    try:
        for number, row in file:
            try:
                if isinstance(row, EventError):
                    raise row
                key, value = item_record(row)
                _take(found, key.decode(), value, wanted, category_level)
            except (EventError, ContractError) as error:
                raise DatasetError(f"{file.path}, row {number}: {error}; mend or remove the row.") from error
    except ProduceError as error:
        raise DatasetError(str(error)) from error
    return found


def items_of_topic(settings: Settings, topic: str, wanted: Collection[str]) -> tuple[dict[str, ItemDetails], int]:
    """Items by id from an items topic, those wanted, and how many of its records are none: they are left out.

    Raises BrokerError, TopicError, ReadError.
    """
    found: dict[str, ItemDetails] = {}
    broken = 0
    for message in read(settings, topic, Start(), follow=False, end=End()):
        try:
            item_id = (message.key() or b"").decode()
            _take(found, item_id, message.value(), wanted, settings.catalog.category_level)
        except (ContractError, UnicodeDecodeError):
            broken += 1
    return found, broken


def _take(
    found: dict[str, ItemDetails], item_id: str, value: bytes | None, wanted: Collection[str], category_level: int
) -> None:
    """The record of an item, in place of those before it; without a value it is in the catalogue no more."""
    item = None if value is None else decode_item(value)
    if item is None:
        found.pop(item_id, None)
    elif item.item_id != item_id:
        raise ContractError("the record's key is not its item_id")
    elif item_id in wanted:
        found[item_id] = _details(item, category_level)


def _details(item: Item, category_level: int) -> ItemDetails:
    path = item.category_path
    return ItemDetails(
        name=item.name,
        category=path[min(category_level, len(path)) - 1] if path else "",
        path=" > ".join(path),
        brand=item.brand or "",
        price=price_of(item.price),
        text=(item.text or "")[:TEXT_CHARACTERS],
    )
