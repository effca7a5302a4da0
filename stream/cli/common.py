"""What every command shares: the common options, settings from them, output, and the app itself.

A command is a function whose first parameter is a `Run`:

    @command(app)
    def get(run: Run, user: Annotated[str, typer.Argument(help="...")]) -> None:

`command` adds the common options to those the function names, and hands their outcome over as the `Run`.
"""

import functools
import inspect
import json
import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.models import OptionInfo

from stream.errors import RefusedError
from stream.profiles import PROFILES
from stream.settings import LIBRDKAFKA_LOG, Settings, load_settings_told


class Output(StrEnum):
    """Forms of what a command prints."""

    json = "json"
    yaml = "yaml"
    table = "table"


def new_app(name: str, help_text: str) -> typer.Typer:
    """A group of commands; without arguments it shows its help."""
    return typer.Typer(
        name=name, help=help_text, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None
    )


app = new_app("driftline", "Events in, recommendation lists that follow each user's drifting interest out.")


# ---- the common options ---------------------------------------------------------------------------------------

Config = Annotated[
    Path | None,
    typer.Option("-c", "--config", metavar="FILE", help="Settings file (TOML); deploy/config.toml has them all."),
]
ProfileName = Annotated[
    str | None, typer.Option("--profile", metavar="NAME", help=f"Settings for one use: {', '.join(PROFILES)}.")
]
Servers = Annotated[
    str | None, typer.Option("--bootstrap-servers", metavar="HOST:PORT", help="Kafka's address, or several by comma.")
]
Group = Annotated[str | None, typer.Option("--group", help="Consumer group of the workers.")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", metavar="DIR", help="Folder of the local state stores.")]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Any other setting; may be given several times."),
]
Form = Annotated[Output | None, typer.Option("-o", "--output", help="Form of what is printed. [default: table]")]
Verbose = Annotated[
    int, typer.Option("-v", "--verbose", count=True, help="Say more; -vv also shows where an error came from.")
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Say nothing but results and errors.")]

COMMON: dict[str, Any] = {
    "config": (Config, None),
    "profile": (ProfileName, None),
    "bootstrap_servers": (Servers, None),
    "group": (Group, None),
    "data_dir": (DataDir, None),
    "assignments": (Assignments, None),
    "output": (Form, None),
    "verbose": (Verbose, 0),
    "quiet": (Quiet, False),
}


@dataclass(frozen=True)
class Run:
    """One run of a command. verbosity: -1 for -q, 0, 1 for -v, 2 for -vv."""

    settings: Settings
    output: Output
    verbosity: int
    sources: Mapping[str, str] = field(default_factory=dict)
    """Where each setting comes from that is not by default: see `load_settings_told`."""

    def say(self, text: str) -> None:
        """A line on stderr for whoever watches; not with -q."""
        if self.verbosity >= 0:
            print(text, file=sys.stderr, flush=True)

    def show(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
        """Rows on stdout: one JSON list, one YAML list, or a table of `columns` (all, if None)."""
        if self.output is not Output.table:
            self.document([dict(row) for row in rows])
        elif rows:
            table = Table(box=None, pad_edge=False, header_style="bold")
            names = list(columns or rows[0])
            for name in names:
                table.add_column(name, overflow="fold")
            for row in rows:
                table.add_row(*(Text(cell(row.get(name))) for name in names))  # Text: "[b]" is no markup here
            console().print(table)

    def document(self, data: Any) -> None:
        """Plain data on stdout, as JSON or else as YAML."""
        if self.output is Output.json:
            print(json.dumps(data, indent=2, ensure_ascii=False))
        else:
            print(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), end="")


def console() -> Console:
    """Stdout, as wide as its text needs where it is no terminal: nothing is cut in a pipe."""
    return Console() if sys.stdout.isatty() else Console(width=1000, soft_wrap=True)


def cell(value: Any) -> str:
    """A value in a table."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str | int):
        return printable(str(value))
    return printable(json.dumps(value, ensure_ascii=False, default=str))


def printable(text: str) -> str:
    """The text with control characters escaped: what others put into a record must not steer our terminal."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def command(
    group: typer.Typer, *, settings: Mapping[str, OptionInfo] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers a function (run: Run, ...) as a command of `group`, with the common options beside its own.

    settings: "section.key" -> a typer.Option; further flags that go to the settings, not to the function.
    """
    flags = {name.replace(".", "_"): name for name in settings or {}}

    def register(function: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        added = {
            **{key: (Annotated[str | None, (settings or {})[name]], None) for key, name in flags.items()},
            **COMMON,
        }
        parameters = [
            inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
            *(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own),
            *(
                inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
                for key, (kind, default) in added.items()
            ),
        ]

        @functools.wraps(function)
        def wrapper(**given: Any) -> None:
            before: dict[str, Any] = given.pop("ctx").obj or {}
            common = {key: given.pop(key) for key in COMMON}
            overrides = {name: given.pop(key) for key, name in flags.items()}
            function(start(_merged(before, common), overrides), **given)

        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads it
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        group.command()(wrapper)
        return function

    return register


def _merged(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Common options given before the command's name and after it: the latter win, --set are joined."""
    merged = {key: after[key] or before.get(key) for key in COMMON}
    merged["assignments"] = [*(before.get("assignments") or ()), *(after["assignments"] or ())]
    return merged


def start(common: Mapping[str, Any], overrides: Mapping[str, Any]) -> Run:
    """Settings, logging and output from the options. Raises SettingsError."""
    verbosity = -1 if common["quiet"] else common["verbose"]
    set_up_logging(verbosity)
    flags = {
        "profile": common["profile"],
        "kafka.bootstrap_servers": common["bootstrap_servers"],
        "worker.group": common["group"],
        "worker.data_dir": common["data_dir"],
        **overrides,
    }
    given = {name: value for name, value in flags.items() if value is not None}  # a flag wins over --set
    settings, sources = load_settings_told(common["config"], {**_assigned(common["assignments"]), **given})
    return Run(settings, common["output"] or Output.table, verbosity, sources)


def _assigned(assignments: Iterable[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or "." not in name:
            raise RefusedError(
                f"--set {assignment} is no SECTION.KEY=VALUE, such as --set topics.partitions=8. "
                "`driftline config show` lists them all."
            )
        values[name.strip()] = value
    return values


_verbosity = 0


def verbosity() -> int:
    """That of the running command, for the handler of its errors."""
    return _verbosity


def set_up_logging(level: int) -> None:
    """Log lines on stderr: warnings, -v also what goes on, -vv everything, -q errors only.

    librdkafka's own lines repeat what an error says, at length: they are shown from -v on.
    """
    global _verbosity
    _verbosity = level
    wanted = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO}.get(level, logging.DEBUG)
    logging.basicConfig(level=wanted, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
    LIBRDKAFKA_LOG.setLevel(logging.CRITICAL if level < 1 else logging.NOTSET)
