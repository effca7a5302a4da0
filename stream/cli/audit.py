"""`driftline audit`: was every event counted once?"""

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from stream.cli.common import Output, Run, app, command, console

# What each figure means, in the order of the table.
_ROWS = {
    "records": "records of the events topic",
    "events": "valid events, each once",
    "users": "users with events",
    "duplicates": "events sent twice by their producer",
    "rekeyed": "events under a wrong key, sent on",
    "late": "events that came too late: on the late topic, in no state",
    "erasures": "erasures asked for",
    "erased": "events from before an erasure that came after it",
    "expired_users": "users idle for long, without a list",
    "lists": "lists that a reader of committed data sees",
    "lost_events": "events that no state holds",
    "doubled_events": "events counted twice",
    "doubled_lists": "lists sent twice",
    "missing_users": "users with events and no list",
    "stale_users": "users whose last list is not of their last event",
    "wrong_lists": "lists that do not hold exactly the events up to their own",
    "misplaced_lists": "lists on another partition than their event",
    "extra_users": "users with a list and no event",
    "unerased_users": "users erased who still have a list",
    "unlettered": "unusable records without a dead letter",
    "doubled_letters": "unusable records with more than one",
    "wrongly_late": "records of the late topic that were not late, or are on it twice",
}


@command(app)
def audit(run: Run, examples: Annotated[int, typer.Option(help="Users to name that disagree.")] = 10) -> None:
    """Count the events topic against the lists: was every event counted once?

    Reads both topics to their present end; no worker is asked. Run it when the workers have caught up: an event
    that none has taken yet counts as lost. Exit code 0 when all is exact, 1 when not.
    """
    from stream.audit import as_dict
    from stream.audit import audit as count

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("reading", total=None)
        report = count(
            run.settings,
            examples=examples,
            tell=lambda done, total: progress.update(task, completed=done, total=total),
        )
    if run.output is not Output.table:
        run.document(as_dict(report))
    else:
        rows = [{"what": text, "count": getattr(report, name)} for name, text in _ROWS.items()]
        rows += [{"what": f"dead letters: {reason}", "count": n} for reason, n in sorted(report.dead_letters.items())]
        run.show(rows)
        run.show(
            [
                {
                    "user": found.user_id,
                    "events in the log": found.expected_events,
                    "in the list": found.applied_events,
                    "partition": found.partition,
                    "last offset": found.last_offset,
                }
                for found in report.examples
            ]
        )
        console().print(_verdict(report.exact, report.log_is_whole))
    if not report.exact:
        raise typer.Exit(1)


def _verdict(exact: bool, whole: bool) -> str:
    if exact:
        return "Exact: every event counted once, every last list the right one."
    if not whole:
        return "The log's beginning is gone by retention: users may have more events than it shows. No verdict."
    return "NOT exact. If workers are still behind, let them catch up and count again."
