"""`driftline erase`: forget a user."""

from contextlib import closing
from typing import Annotated

import typer

from state.keys import SEPARATOR
from stream.cli.common import Output, Run, app, command
from stream.errors import RefusedError


@command(app)
def erase(
    run: Run,
    user: Annotated[str, typer.Argument(help="The user_id (or anonymous_id) of the events; the real one, always.")],
    tenant: Annotated[str, typer.Option(help="Whose user it is, where several share the topics.")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Wait until a worker has confirmed it.")] = False,
    timeout: Annotated[float, typer.Option(min=0.1, help="Wait so many seconds at most.")] = 60.0,
    everywhere: Annotated[
        bool,
        typer.Option(
            "--everywhere", help="On every partition: for users whose producers did not use Kafka's own partitioner."
        ),
    ] = False,
) -> None:
    """Forget a user: state, changelog value and list.

    Sends user_erased to the events topic, where it has its place among the user's events: what came before is
    forgotten, what comes after begins anew. Doing it twice is harmless. Ends with 1 when --wait saw no confirmation in
    time; the erasure is then still asked for, and done once a worker gets to it.
    """
    from stream.contract.control import user_hash
    from stream.erasure import Erasing
    from stream.pseudonym import names_of

    if not user or user.startswith("\0"):
        raise RefusedError("no user is named: give the user_id (or anonymous_id) of the events.")
    if SEPARATOR in user + tenant or tenant.startswith("\0"):
        raise RefusedError("a character in it is refused in events too: no such user can be known.")
    hashes: dict[str, list[str]] = {}  # one event may erase several states: those under the pseudonyms of all keys
    for names in names_of(run.settings, user, tenant):
        hashes.setdefault(names.event_user, []).append(user_hash(names.list_key))
    with closing(Erasing(run.settings)) as erasing:
        requested = [
            one
            for event_user, hashed in hashes.items()
            for one in erasing.request(event_user, tenant, hashed, everywhere=everywhere)
        ]
        if wait:
            requested = erasing.wait(requested, timeout)
    rows = [
        {
            "user_hash": one.user_hash,
            "partition": one.partition,
            "offset": one.offset,
            "confirmed_at": one.confirmed_at,
        }
        for one in requested
    ]
    run.show(rows, None if wait or run.output is not Output.table else ["user_hash", "partition", "offset"])
    missing = sum(one.confirmed_at is None for one in requested)
    if wait and missing:
        run.say(
            f"{missing} of {len(requested)} erasures were not confirmed within {timeout:g} s: is a worker running, and "
            "has it caught up (driftline doctor, /metrics)? They are done once it gets to them."
        )
        raise typer.Exit(1)
    if not wait:
        run.say("Asked for; --wait waits for the confirmation.")
