"""`driftline config`."""

import json
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


class TestProfile:
    def test_show_tells_where_each_value_comes_from(self, driftline, tmp_path: Path) -> None:
        done = driftline("config", "show", "--profile", "shop", "--set", "weights.view=0.7")
        assert 'profile = "shop"  # command line\n' in done.out
        assert 'exclude = "session"  # profile shop\n' in done.out
        assert "view = 0.7  # command line\n" in done.out
        assert "list_size = 20\n" in done.out
        config = tmp_path / "c.toml"
        config.write_text(done.out)
        assert load_settings(config, {}, {}) == load_settings(None, {"profile": "shop", "weights.view": 0.7}, {})

    def test_show_tells_it_to_programs_too(self, driftline) -> None:
        shown = json.loads(driftline("config", "show", "-o", "json", "--profile", "news").out)
        assert shown["profile"] == "news"
        assert shown["sources"]["ranking.popularity_weight"] == "the profile news"

    def test_stands_before_or_after_the_command(self, driftline) -> None:
        assert (
            driftline("--profile", "news", "config", "show").out == driftline("config", "show", "--profile", "news").out
        )

    def test_check_names_the_source(self, driftline) -> None:
        done = driftline("config", "check", "--profile", "entertainment")
        assert "weights.rating" in done.out
        assert "the profile entertainment" in done.out

    def test_an_unknown_one_is_refused(self, driftline) -> None:
        done = driftline("config", "show", "--profile", "fair")
        assert done.code == 2
        assert "There are: shop, social, news, entertainment." in done.err
