"""`driftline worker`: one worker process."""

import logging

import typer

from stream.cli.common import Run, app, command


@command(
    app,
    settings={
        "model.path": typer.Option("--model", metavar="DIR", help="Folder of the model."),
        "worker.web_port": typer.Option("--web-port", help="Port of health pages and metrics; 0 for none."),
    },
)
def worker(run: Run) -> None:
    """Turn events into lists, until SIGTERM or Ctrl-C.

    Start as many as there is work, each with a --data-dir of its own: they share the partitions.
    """
    from stream.app import run_worker  # late: faust and torch take seconds to import

    levels = {-1: logging.WARNING, 0: logging.INFO, 1: logging.INFO}
    level = levels.get(run.verbosity, logging.DEBUG)
    logging.getLogger().setLevel(level)  # what comes before Faust's own log: the catalogue is read
    run_worker(run.settings, log_level=level)
