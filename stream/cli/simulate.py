"""`driftline simulate`: a made-up shop whose users' interests drift, and the truth about them."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream.cli.common import Run, app, command
from stream.cli.produce import chosen_pseudonyms
from stream.contract.times import time_ms
from stream.errors import EventError, ProduceError, RefusedError
from stream.event_file import BadRow
from stream.produce import produce_file

if TYPE_CHECKING:
    from model.simulation.world import World


class SimulatedEvents:
    """A world's events as rows to produce (stream.produce.Rows)."""

    name = "simulation"
    what = "events"

    def __init__(self, world: World) -> None:
        self._world = world

    def __iter__(self) -> Generator[tuple[int, bytes | EventError]]:
        from model.simulation.files import event_lines

        yield from enumerate(event_lines(self._world), 1)


@command(app)
def simulate(
    run: Run,
    out: Annotated[Path | None, typer.Argument(metavar="FILE", help="Where the events go: .jsonl or .parquet.")] = None,
    to_topic: Annotated[bool, typer.Option("--to-topic", help="Send the events to the events topic.")] = False,
    rate: Annotated[float | None, typer.Option(min=0.001, help="To the topic: events a second at most.")] = None,
    limit: Annotated[int | None, typer.Option("-n", "--limit", min=1, help="To the topic: end after so many.")] = None,
    users: Annotated[int, typer.Option(min=1, help="Users.")] = 100_000,
    items: Annotated[int, typer.Option(min=1, help="Items.")] = 1_000,
    categories: Annotated[int, typer.Option(min=1, help="Categories of items, evenly filled.")] = 25,
    events: Annotated[int, typer.Option(min=1, help="Events.")] = 2_000_000,
    days: Annotated[float, typer.Option(min=0.01, help="Days in which about so many events come.")] = 30.0,
    drifting: Annotated[float, typer.Option(min=0, max=1, help="Share of users whose interests drift.")] = 0.8,
    begin: Annotated[str, typer.Option(metavar="TIME", help="Time of the first hour.")] = "2025-01-01T00:00:00Z",
    seed: Annotated[int, typer.Option(min=0, help="The same seed and numbers: the same world, to the byte.")] = 1,
    truth: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The truth as JSON lines: each user's drift and interests.")
    ] = None,
    users_out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The users as JSON lines: ten features each.")
    ] = None,
    items_out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The items as JSON lines, five features each: for produce --items."),
    ] = None,
) -> None:
    """Make up a shop whose users' interests are known and drift: views, clicks, carts, purchases in order of time.

    What it is made of stands with its formulas in model/simulation/world.py.
    """
    from model.simulation.files import write_events, write_items, write_truth, write_users
    from model.simulation.world import World, WorldSettings

    if not (out or to_topic or truth or users_out or items_out):
        raise RefusedError(
            "nothing to make: give a FILE for the events, --to-topic, --truth, --users-out, --items-out."
        )
    if (rate or limit) and not to_topic:
        raise RefusedError("--rate and --limit are for --to-topic: for a shorter file give --events.")
    if out and out.suffix not in (".jsonl", ".parquet"):
        raise RefusedError(f"cannot tell what {out} shall be by its name: end it in .jsonl or .parquet.")
    try:
        start_ms = time_ms(begin)
    except ValueError as error:
        raise RefusedError(f"--begin {begin}: {error}. Give a time such as 2025-01-01T00:00:00Z.") from None
    world = World(
        WorldSettings(
            users=users,
            items=items,
            categories=categories,
            events=events,
            days=days,
            drifting=drifting,
            start_ms=start_ms,
            seed=seed,
        )
    )
    writers = ((users_out, write_users), (items_out, write_items), (truth, write_truth), (out, write_events))
    for path, write in writers:
        if path:
            try:
                write(world, path)
            except OSError as error:
                raise RefusedError(
                    f"cannot write {path}: {error.strerror}. Give a file in a folder that is there."
                ) from None
            run.say(f"wrote {path}")
    if to_topic:
        _produce(run, world, rate, limit)


def _produce(run: Run, world: World, rate: float | None, limit: int | None) -> None:
    first_bad: BadRow | None = None

    def on_bad(row: BadRow) -> None:
        nonlocal first_bad
        first_bad = first_bad or row

    result = produce_file(
        run.settings,
        SimulatedEvents(world),
        rate_per_s=rate,
        limit=limit,
        pseudonyms=chosen_pseudonyms(run.settings, False),
        on_bad=on_bad,
    )
    per_s = result.sent / result.seconds if result.seconds else 0.0
    run.say(
        f"{result.sent} events sent to {run.settings.topics.events} in {result.seconds:.1f} s ({per_s:.0f} a second)."
    )
    if first_bad:
        raise ProduceError(
            f"{result.bad} events were not sent, the first: {first_bad}. Begin the world earlier: --begin."
        )
