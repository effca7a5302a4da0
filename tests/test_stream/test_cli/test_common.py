"""What all commands share: options before and after, exit codes, one line of error, quick help."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from stream.settings import Settings


def test_options_may_stand_before_or_after_the_command(driftline, tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("[topics]\npartitions = 9\n")
    before = driftline("-c", config, "--group", "g", "-o", "json", "config", "show")
    after = driftline("config", "show", "-c", config, "--group", "g", "-o", "json")
    assert before == after
    shown = json.loads(after.out)
    assert (shown["topics"]["partitions"], shown["worker"]["group"]) == (9, "g")


def test_the_one_after_the_command_wins(driftline) -> None:
    assert 'group = "b"' in driftline("--group", "a", "config", "show", "--group", "b").out


def test_any_setting_by_set(driftline) -> None:
    done = driftline("--set", "topics.partitions=7", "config", "show", "--set", "kafka.properties.client.id=me")
    assert "partitions = 7  # command line\n" in done.out
    assert 'properties = {"client.id" = "me"}' in done.out


@pytest.mark.parametrize("wrong", ["topics", "partitions=3", "topics.partitions"])
def test_a_set_that_is_none(driftline, wrong: str) -> None:
    done = driftline("config", "check", "--set", wrong)
    assert done.code == 2
    assert f"--set {wrong} is no SECTION.KEY=VALUE" in done.err


def test_a_wrong_setting_is_refused_in_one_line(driftline) -> None:
    done = driftline("topics", "check", "--set", "topics.partitions=none")
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("driftline: setting topics.partitions = 'none' (given by the command line)")
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("topics", "check"),
        ("topics", "create"),
        ("tail",),
        ("get", "u"),
        ("erase", "u"),
        ("state", "stats"),
        ("audit",),
        ("produce", "EVENTS"),
        ("worker", "--model", "."),
    ],
)
def test_no_broker_is_a_quick_refusal(driftline, arguments: tuple[str, ...], tmp_path: Path) -> None:
    events = tmp_path / "e.jsonl"
    events.touch()
    began = time.monotonic()
    done = driftline(
        *(str(events) if part == "EVENTS" else part for part in arguments), "--bootstrap-servers", "127.0.0.1:1"
    )
    assert done.code == 2
    assert "no broker answers at 127.0.0.1:1" in done.err
    assert "--bootstrap-servers" in done.err
    assert "Traceback" not in done.err
    assert time.monotonic() - began < 10  # torch and faust are imported for the first time here


def test_vv_shows_where_an_error_came_from(driftline) -> None:
    done = driftline("topics", "check", "--bootstrap-servers", "127.0.0.1:1", "-vv")
    assert "Traceback" in done.err
    assert done.code == 2


@pytest.mark.parametrize("arguments", [("fly",), ("get",), ("produce", "x.jsonl", "--rate", "fast"), ("tail", "cats")])
def test_a_wrong_command_line_is_refused(driftline, arguments: tuple[str, ...]) -> None:
    assert driftline(*arguments).code == 2


def test_version(driftline) -> None:
    assert driftline("--version").out.startswith("driftline 0.")


@pytest.mark.parametrize("form", ["json", "yaml", "table"])
def test_forms_of_output(driftline, there: tuple[str, str], settings: Settings, form: str) -> None:
    out = driftline("topics", "check", *there, "-o", form).out
    if form == "table":
        assert out.splitlines()[0].split() == ["role", "name", "partitions", "compacted"]
        assert settings.topics.events in out
        return
    rows = json.loads(out) if form == "json" else yaml.safe_load(out)
    assert {row["name"] for row in rows} == set(settings.topics.names().values())


def test_librdkafkas_own_lines_do_not_reach_the_terminal() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from stream.cli import main; main()",
            "topics",
            "check",
            "--bootstrap-servers",
            "127.0.0.1:1",
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_help_imports_nothing_slow() -> None:
    code = """
import sys
from stream.cli import main
try:
    main(["--help"])
except SystemExit:
    print([name for name in ("torch", "faust", "pyarrow", "pandas", "aiokafka", "rocksdict") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
