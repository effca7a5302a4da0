"""Help, README and the sample settings agree with the commands and settings that there are."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from stream.cli import load, main
from stream.settings import config_toml, fields

ROOT = Path(__file__).parents[2]


def commands(command: Any, path: tuple[str, ...] = ("driftline",)) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path, command) of every command that does something, by walking the command line's own tree."""
    below = getattr(command, "commands", None)
    if below is None:
        yield path, command
        return
    for name, child in below.items():
        yield from commands(child, (*path, name))


ALL = list(commands(typer.main.get_command(load())))
NAMES = [" ".join(path) for path, _ in ALL]


def test_the_commands_of_the_design_are_there() -> None:
    assert {"driftline worker", "driftline produce", "driftline tail", "driftline get", "driftline train"} <= set(NAMES)
    assert {"driftline topics create", "driftline broker embedded", "driftline config check"} <= set(NAMES)
    assert {"driftline demo", "driftline audit", "driftline doctor"} <= set(NAMES)


@pytest.mark.parametrize(("path", "command"), ALL, ids=NAMES)
def test_help_works_and_says_something_of_every_option(
    path: tuple[str, ...], command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*path[1:], "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"Usage: {' '.join(path)}" in text
    assert command.help
    for parameter in command.params:
        assert parameter.help, f"{parameter.name} of {' '.join(path)} has no help"


@pytest.mark.parametrize(("path", "command"), ALL, ids=NAMES)
def test_common_options_stand_after_every_command(path: tuple[str, ...], command: Any) -> None:
    flags = {flag for parameter in command.params for flag in parameter.opts}
    assert {"-c", "--bootstrap-servers", "--group", "--data-dir", "--set", "-o", "-v", "-q"} <= flags


@pytest.mark.parametrize("name", NAMES)
def test_readme_names_every_command(name: str) -> None:
    assert re.search(rf"\b{re.escape(name)}\b", (ROOT / "README.md").read_text()), f"README.md does not name {name}"


def test_every_driftline_command_in_the_texts_is_one() -> None:
    """What README, deploy/ and our own errors tell people to type must exist."""
    texts = [ROOT / "README.md", ROOT / "docker-compose.yml", *(ROOT / "deploy").rglob("*.md")]
    texts += (ROOT / "stream").rglob("*.py")
    words = {name.split()[1] for name in NAMES}
    for path in texts:
        for word in re.findall(r"`driftline ([a-z]+)", path.read_text()):
            assert word in words, f"{path}: there is no `driftline {word}`"


def test_sample_settings_are_current() -> None:
    assert (ROOT / "deploy" / "config.toml").read_text() == config_toml(), "run: python -m stream.settings"


def test_sample_settings_have_every_setting_with_a_comment() -> None:
    lines = config_toml().splitlines()
    for _, key, _ in fields():
        places = [number for number, line in enumerate(lines) if line.startswith(f"{key} = ")]
        assert places
        assert all(lines[place - 1].startswith("# ") for place in places)
