"""`driftline get`: the last list of a user."""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import typer
from confluent_kafka import Message

from stream.cli.common import Output, Run, app, cell, command
from stream.contract.times import iso_utc
from stream.errors import ReadError
from stream.reading import Start, partition_count, read


@command(app)
def get(
    run: Run,
    user: Annotated[str, typer.Argument(help="The user_id (or anonymous_id) of the events.")],
    tenant: Annotated[str, typer.Option("--tenant", help="Whose user, where several share the topics.")] = "",
    size: Annotated[int | None, typer.Option("-n", min=1, help="So many items of the list; all, if not given.")] = None,
    interests: Annotated[
        bool, typer.Option("--interests", help="The interest points behind the list, in place of its items.")
    ] = False,
) -> None:
    """Show the last list of a user, with the reason of each item, or the user's interests.

    Where ranking.parts is set, also how much of each score came from the network, the rules, the user's own counts and
    popularity.

    Reads the user's partition of the recommendations topic to its end. Ends with 1 when there is no list.
    """
    from stream.contract.recommendation import decode_recommendation
    from stream.engine.partitioner import partition_of
    from stream.pseudonym import names_of

    topic = run.settings.topics.recommendations
    last: Message | None = None
    for names in names_of(run.settings, user, tenant):  # one, but where pseudonyms have an old key too
        partition = partition_of(names.event_key, partition_count(run.settings, topic))
        for message in read(run.settings, topic, Start(), follow=False, partition=partition):
            if message.key() == names.list_key:
                last = message
        if last is not None and last.value() is not None:
            break
    value = last.value() if last is not None else None
    if value is None:
        erased = " (it was erased)" if last is not None else ""
        whose = f"{user!r} of tenant {tenant!r}" if tenant else f"{user!r}"
        raise ReadError(
            f"no list for user {whose} in {topic}, partition {partition}{erased}. Lists come once a worker has seen "
            "an event of the user: driftline tail events --from earliest"
        )
    found = decode_recommendation(value)
    found.items = found.items[:size]
    data: dict[str, Any] = msgspec.to_builtins(found)
    if run.output is not Output.table:
        run.document(data["interests"] if interests else data)
        return
    run.say(
        f"{found.user_id}: {found.strategy} list of {found.generated_at}, from {found.events_applied} events, "
        f"model {found.model.name} {found.model.version}"
    )
    if interests:
        rows = [_interest(one) for one in data["interests"]]
        kinds = any(row["kind"] for row in rows)
        run.show(rows, [name for name in _INTEREST_COLUMNS if name != "kind" or kinds])
    else:
        run.show([_row(item, found.parts) for item in data["items"]])


_INTEREST_COLUMNS = ("interest", "kind", "weight", "share", "trend", "first seen", "last seen")


def _row(item: dict[str, Any], parts: Sequence[str]) -> dict[str, Any]:
    row = {"rank": item["rank"], "item": item["item_id"], "score": item["score"]}
    if parts:  # ranking.parts is set
        given = zip(parts, item.get("parts", ()), strict=False)
        row["parts"] = ", ".join(f"{name} {cell(amount)}" for name, amount in given if amount)
    row["reasons"] = "; ".join(_reason(reason) for reason in item.get("reasons", ()))
    return row


def _interest(interest: dict[str, Any]) -> dict[str, Any]:
    return {
        "interest": interest["name"],
        "kind": interest.get("kind", ""),  # categories have none
        "weight": round(interest["weight"], 2),
        "share": f"{interest['share']:.0%}",
        "trend": interest["trend"],
        "first seen": iso_utc(interest["first_seen_s"] * 1000),
        "last seen": iso_utc(interest["last_seen_s"] * 1000),
    }


def _reason(reason: dict[str, Any]) -> str:
    about = reason.get("item_name") or reason.get("item_id") or reason.get("category") or ""
    return f"{reason['type'].replace('_', ' ')} {about}".strip()
