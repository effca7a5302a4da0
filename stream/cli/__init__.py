"""The command `driftline`: one module per group of commands.

A further module registers itself by being imported in `load`: it takes `app` and `command` from
`stream.cli.common`. Modules import late what is slow to import (torch, faust, pyarrow), so that --help and
completion stay quick.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version as installed_version
from typing import Annotated, Any

import typer

from model.errors import ArtifactError, DatasetError, EvaluationError, SimulationError
from state.errors import DriftlineError
from stream.cli.common import (
    Assignments,
    Config,
    DataDir,
    Form,
    Group,
    ProfileName,
    Quiet,
    Servers,
    Verbose,
    app,
    verbosity,
)

# In the order that help lists them.
MODULES = (
    *("demo", "worker", "produce", "replay", "simulate", "tail", "get", "erase", "state"),
    *("train", "evaluate", "compare", "audit", "topics", "broker", "config", "doctor"),
)

REFUSED = 2
FAILED = 1
# Found before anything was done; the model's errors know nothing of exit codes.
_REFUSED_BY_MODEL = (ArtifactError, DatasetError, EvaluationError, SimulationError)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"driftline {installed_version('driftline')}")
        raise typer.Exit


@app.callback()
def _root(
    ctx: typer.Context,
    config: Config = None,
    profile: ProfileName = None,
    bootstrap_servers: Servers = None,
    group: Group = None,
    data_dir: DataDir = None,
    assignments: Assignments = None,
    output: Form = None,
    verbose: Verbose = 0,
    quiet: Quiet = False,
    version: Annotated[  # noqa: ARG001  # its callback does the work
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Events in, recommendation lists that follow each user's drifting interest out.

    The options below may stand before or after a command. Exit codes: 0 done, 1 failed while running, 2 refused
    before starting.
    """
    ctx.obj = {
        "config": config,
        "profile": profile,
        "bootstrap_servers": bootstrap_servers,
        "group": group,
        "data_dir": data_dir,
        "assignments": assignments,
        "output": output,
        "verbose": verbose,
        "quiet": quiet,
    }


def load() -> typer.Typer:
    """The app with every command registered."""
    for name in MODULES:
        import_module(f"stream.cli.{name}")
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line (sys.argv unless given) and ends with its exit code, as SystemExit."""
    try:
        load()(arguments, prog_name="driftline")
    except DriftlineError as error:
        _end(error, getattr(error, "exit_code", REFUSED if isinstance(error, _REFUSED_BY_MODEL) else FAILED))
    except BrokenPipeError:  # whoever read our output has had enough (| head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)  # 128 + SIGINT, as shells expect


def _end(error: Exception, code: Any) -> None:
    if verbosity() >= 2:
        traceback.print_exc()
    print(f"driftline: {error}", file=sys.stderr, flush=True)
    sys.exit(code)
