"""`driftline config`: the settings in force, and whether they can be."""

from stream.cli.common import Output, Run, app, command, new_app
from stream.settings import environment_name, fields, settings_as_toml

group = new_app("config", "Show and check the settings.")
app.add_typer(group)


@command(group)
def show(run: Run) -> None:
    """Show the settings in force, from flags, environment, file, profile and defaults; secrets are hidden.

    As a table it is a settings file that -c takes; a comment says where a value comes from that is not the default.
    """
    if run.output is Output.table:
        print(settings_as_toml(run.settings.shown(), sources=run.sources), end="")
    else:
        run.document({**run.settings.shown(), "sources": dict(run.sources)})


@command(group)
def check(run: Run) -> None:
    """Check the settings: ends with 2 and says what is wrong, or with 0."""
    changed = run.settings.changed()
    rows = [
        {
            "setting": name,
            "value": value,
            "from": run.sources.get(name, ""),
            "environment": environment_name(*name.split(".")),
        }
        for name, value in changed
    ]
    run.say(
        f"The settings are good. {len(rows)} of {len(list(fields()))} differ from the default{':' if rows else '.'}"
    )
    run.show(rows)
