"""`driftline topics`: create and check the topics."""

from typing import Annotated

import typer

from stream.cli.common import Run, app, command, new_app
from stream.topics import check_topics, create_topics, topic_specs

group = new_app("topics", "Create and check the topics.")
app.add_typer(group)

_COLUMNS = ("role", "name", "partitions", "done")


@command(group)
def create(
    run: Run,
    mend: Annotated[
        bool, typer.Option("--mend", help="Also give topics that exist the settings of their kind (compaction).")
    ] = False,
) -> None:
    """Create the topics that are missing; those that exist stay as they are."""
    run.show([{name: getattr(topic, name) for name in _COLUMNS} for topic in create_topics(run.settings, mend=mend)])


@command(group)
def check(run: Run) -> None:
    """Check that all topics exist and have their shape; ends with 2 and says what to do if not."""
    cluster = check_topics(run.settings)
    run.show(
        [
            {
                "role": spec.role,
                "name": spec.name,
                "partitions": cluster.partitions[spec.name],
                "compacted": spec.compacted,
            }
            for spec in topic_specs(run.settings)
        ]
    )
