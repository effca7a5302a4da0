"""What the measurements of this package have in common as commands: a flag for each setting, a table, a JSON file."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from state.errors import DriftlineError

Say = Callable[[str], None]


class Settings(Protocol):
    """A dataclass whose fields have values by default."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


S = TypeVar("S", bound=Settings)


def run(
    name: str,
    description: str | None,
    settings: type[S],
    measure: Callable[[S, Say], dict[str, Any]],
    table: Callable[[dict[str, Any]], str],
    arguments: list[str] | None,
) -> int:
    """Measure as the arguments say, print the table, and write the figures to --json. Exit code 1 after an error."""
    parser = argparse.ArgumentParser(prog=f"python -m model.simulation.{name}", description=description)
    for field in fields(settings):
        flag = "--" + field.name.replace("_", "-")
        parser.add_argument(flag, type=type(field.default), default=field.default, help="%(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    chosen = vars(parser.parse_args(arguments))
    path: Path | None = chosen.pop("json")
    try:
        found = measure(settings(**chosen), lambda text: print(text, file=sys.stderr, flush=True))
    except DriftlineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(found))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n")
    return 0
