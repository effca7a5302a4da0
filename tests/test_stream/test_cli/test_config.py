"""`driftline config`."""

import tomllib
from pathlib import Path

import pytest

from stream.settings import load_settings


def test_what_show_prints_is_a_settings_file(driftline, tmp_path: Path) -> None:
    done = driftline("config", "show", "--set", "topics.partitions=5", "--set", "kafka.properties.client.id=x")
    config = tmp_path / "c.toml"
    config.write_text(done.out)
    settings = load_settings(config, {}, {})
    assert dict(settings.changed()) == {"topics.partitions": 5, "kafka.properties": {"client.id": "x"}}


@pytest.mark.parametrize("form", ["table", "json", "yaml"])
def test_show_and_check_hide_secrets(driftline, form: str) -> None:
    for verb in ("show", "check"):
        done = driftline("config", verb, "-o", form, "--set", "kafka.properties.sasl.password=hunter2")
        assert "hunter2" not in done.out + done.err
        assert "sasl.password" in done.out


def test_check_tells_what_differs_from_the_defaults(driftline) -> None:
    done = driftline("config", "check", "--set", "topics.partitions=5")
    assert done.code == 0
    assert "topics.partitions  5" in done.out
    assert "DRIFTLINE_TOPICS_PARTITIONS" in done.out


def test_show_writes_the_defaults(driftline) -> None:
    assert tomllib.loads(driftline("config", "show").out) == tomllib.loads(
        (Path(__file__).parents[3] / "deploy" / "config.toml").read_text()
    )
