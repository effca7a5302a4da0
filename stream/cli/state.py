"""`driftline state`: what is kept of all users together."""

import sys

from rich.console import Console
from rich.progress import Progress

from stream.cli.common import Output, Run, app, command, new_app

state_app = new_app("state", "What is kept of all users together.")
app.add_typer(state_app)


@command(state_app)
def stats(run: Run) -> None:
    """Show how many users are known, the bytes of their states, the oldest and newest last event; by partition.

    Reads the changelog to its end, so it counts the users of all workers, and none need run. `oldest` is the last
    event of the user idle for the longest: state.expire_after_s bounds it.
    """
    from stream.state_stats import read_stats, total

    quiet = run.verbosity < 0 or not sys.stderr.isatty()
    with Progress(console=Console(stderr=True), transient=True, disable=quiet) as progress:
        task = progress.add_task("reading", total=None)
        found = read_stats(run.settings, lambda done, records: progress.update(task, completed=done, total=records))
    whole = total(found).as_dict()
    partitions = [{"partition": one.partition, **one.as_dict()} for one in found]
    if run.output is not Output.table:
        run.document({"total": whole, "partitions": partitions})
    else:
        run.show([*partitions, {"partition": "all", **whole}])
