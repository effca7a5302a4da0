"""Settings: defaults that agree with the parts, precedence, and errors that say what to mend."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from model.ranking.settings import RankingSettings
from state.settings import StateSettings
from state.weights import DEFAULT_WEIGHTS, EVENT_TYPES
from stream.errors import RefusedError, SettingsError
from stream.settings import HIDDEN, Settings, allowed, environment_name, fields, load_settings


def load(toml: str = "", folder: Path | None = None, flags: dict[str, Any] | None = None, **environ: str) -> Settings:
    """Settings from a file's text, flags and an environment of nothing else."""
    path = None
    if folder is not None:
        path = folder / "driftline.toml"
        path.write_text(toml, encoding="utf-8")
    return load_settings(path, flags, environ)


class TestDefaults:
    def test_without_any_source(self) -> None:
        assert load() == Settings()

    def test_sections_have_every_setting_of_their_part_with_its_default(self) -> None:
        settings = Settings()
        assert settings.state_settings() == StateSettings()
        assert settings.ranking_settings() == RankingSettings()
        beside = {"expire_after_s", "window_grace_s"}
        assert settings.state.model_dump().keys() == set(StateSettings.__struct_fields__) | beside
        assert settings.ranking.model_dump().keys() == set(RankingSettings.__struct_fields__)
        assert settings.event_weights() == DEFAULT_WEIGHTS
        assert set(settings.event_weights()) == set(EVENT_TYPES)

    def test_a_changed_setting_reaches_its_part(self) -> None:
        settings = load(flags={"state.recent_items": 7, "ranking.list_size": 5, "weights.view": 9})
        assert settings.state_settings() == msgspec.structs.replace(StateSettings(), recent_items=7)
        assert settings.ranking_settings() == msgspec.structs.replace(RankingSettings(), list_size=5)
        assert settings.event_weights() == {**DEFAULT_WEIGHTS, "view": 9.0}

    @pytest.mark.parametrize("where", ["file", "environment", "flag"])
    def test_windows_replace_the_defaults(self, tmp_path: Path, where: str) -> None:
        text = '{"visit": {"size_s": "1h", "pane_s": 600, "cells": 5}}'
        settings = {
            "file": lambda: load('[state.windows.visit]\nsize_s = "1h"\npane_s = 600\ncells = 5\n', tmp_path),
            "environment": lambda: load(DRIFTLINE_STATE_WINDOWS=text),
            "flag": lambda: load(flags={"state.windows": text}),
        }[where]()
        (window,) = settings.state_settings().windows.windows
        assert (window.name, window.size_s, window.pane_s, window.cells, window.emphasis) == (
            "visit",
            3600,
            600,
            5,
            1.0,
        )

    def test_windows_that_do_not_go_together_are_refused(self) -> None:
        with pytest.raises(SettingsError, match="multiple of"):
            load(flags={"state.windows": '{"a": {"size_s": 100, "pane_s": 30, "cells": 5}}'})

    @pytest.mark.parametrize("name", ["recent_items", "max_counted_items", "event_id_ring"])
    def test_what_the_settings_allow_the_state_does_too(self, name: str) -> None:
        field = next(field for section, key, field in fields() if (section, key) == ("state", name))
        (most,) = [limit.le for limit in field.metadata if hasattr(limit, "le")]
        assert getattr(load(flags={f"state.{name}": most}).state_settings(), name) == most

    @pytest.mark.parametrize(("section", "key"), [(section, key) for section, key, _ in fields()])
    def test_every_setting_says_what_it_means_and_may_be(self, section: str, key: str) -> None:
        field = next(field for s, k, field in fields() if (s, k) == (section, key))
        assert field.description
        assert field.description.endswith(".")
        assert allowed(field)


class TestPrecedence:
    def test_flag_over_environment_over_file_over_default(self, tmp_path: Path) -> None:
        toml = '[worker]\ngroup = "file"\n'
        variable = {"DRIFTLINE_WORKER_GROUP": "environment"}
        assert load().worker.group == "driftline"
        assert load(toml, tmp_path).worker.group == "file"
        assert load(toml, tmp_path, **variable).worker.group == "environment"
        assert load(toml, tmp_path, {"worker.group": "flag"}, **variable).worker.group == "flag"

    def test_sources_are_joined_key_by_key(self, tmp_path: Path) -> None:
        settings = load(
            "[topics]\npartitions = 8\n", tmp_path, {"topics.late": "l"}, DRIFTLINE_TOPICS_EVENTS="e"
        ).topics
        assert (settings.partitions, settings.events, settings.late) == (8, "e", "l")

    def test_a_flag_not_given_is_no_value(self) -> None:
        assert load(flags={"worker.group": None}, DRIFTLINE_WORKER_GROUP="g").worker.group == "g"

    def test_flags_may_be_nested(self) -> None:
        assert load(flags={"worker": {"group": "g", "web_host": None}}).worker.group == "g"

    def test_file_named_by_the_environment(self, tmp_path: Path) -> None:
        path = tmp_path / "c.toml"
        path.write_text("[topics]\npartitions = 3\n")
        assert load(DRIFTLINE_CONFIG=str(path)).topics.partitions == 3

    def test_client_properties_of_several_sources_are_joined(self, tmp_path: Path) -> None:
        toml = (
            '[kafka.properties]\nsecurity.protocol = "SASL_SSL"\n"sasl.username" = "u"\nsocket.keepalive.enable = true'
        )
        settings = load(
            toml,
            tmp_path,
            {"kafka.properties.client.id": "c"},
            DRIFTLINE_KAFKA_PROPERTIES='{"sasl.password": "p", "sasl.username": "v"}',
        )
        assert settings.kafka.properties == {
            "security.protocol": "SASL_SSL",
            "sasl.username": "v",
            "socket.keepalive.enable": "true",
            "sasl.password": "p",
            "client.id": "c",
        }
        properties = settings.client_properties({"group.id": "g", "client.id": "d"})
        assert properties["bootstrap.servers"] == "localhost:9092"
        assert (properties["group.id"], properties["client.id"]) == ("g", "d")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("7d", 604_800), ("90000ms", 90)]
)
def test_durations(text: str, seconds: int) -> None:
    assert load(flags={"state.session_gap_s": text}).state.session_gap_s == seconds


def test_duration_in_milliseconds() -> None:
    assert load(flags={"worker.session_timeout_ms": "30s"}).worker.session_timeout_ms == 30_000


class TestErrors:
    @pytest.mark.parametrize(
        ("toml", "parts"),
        [
            ("[worker]\ngruop = 'x'", ["unknown setting 'worker.gruop'", "driftline.toml", "did you mean 'group'?"]),
            ("[wroker]\ngroup = 'x'", ["unknown section 'wroker'", "did you mean 'worker'?"]),
            ("[worker]\nzzzz = 1", ["unknown setting 'worker.zzzz'", "there are: group, data_dir"]),
            ("group = 'x'", ["'group'", "outside a section", "[worker]"]),
            ("[worker\n", ["is not TOML", "driftline.toml"]),
            ("[worker]\nlists = 'all'", ["worker.lists = 'all'", 'Allowed: "chunk" or "event"', "It means: "]),
            ("[topics]\npartitions = 0", ["topics.partitions = 0", "Allowed: a whole number from 1 to 10000"]),
            ("[topics]\npartitions = 'many'", ["topics.partitions = 'many'", "whole number"]),
            ("[topics]\nevents = 'a b'", ["topics.events", "a-z A-Z 0-9 . _ -"]),
            ("[topics]\nlate = 'driftline.items.v1'", ["items and late name the same topic"]),
            ("[kafka]\nbootstrap_servers = 'host'", ["'host' is no HOST:PORT"]),
            ("[kafka]\nbootstrap_servers = 'host:99999'", ["'host:99999' is no HOST:PORT"]),
            ("[kafka.properties]\n'group.id' = 'x'", ["group.id is set by Driftline itself"]),
            ("[worker]\nheartbeat_interval_ms = 5000", ["section [worker]", "more than a third", "lower the first"]),
            ("[state]\nsession_gap_s = 'soon'", ["state.session_gap_s = 'soon'", '"30s", "15m", "7d"']),
            ("[weights]\nview = nan", ["weights.view"]),
            ("[events]\ngrace_s = -1", ["events.grace_s = -1", "from 0", '"30s", "15m", "7d"']),
            ("[events]\nlate_policy = 'drop'", ["events.late_policy = 'drop'", '"late_topic" or "admit"']),
            ("[events]\nmax_skew_s = 59", ["section [events]", "no clock is ever corrected", 'correct_skew = "off"']),
        ],
    )
    def test_names_setting_value_source_and_what_is_allowed(self, toml: str, parts: list[str], tmp_path: Path) -> None:
        with pytest.raises(SettingsError) as caught:
            load(toml, tmp_path)
        for part in parts:
            assert part in str(caught.value)

    def test_all_mistakes_at_once(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError) as caught:
            load("[topics]\npartitions = 0\n[worker]\nx = 1", tmp_path)
        assert len(str(caught.value).splitlines()) == 2

    def test_names_the_environment_variable(self) -> None:
        with pytest.raises(SettingsError, match="environment variable DRIFTLINE_TOPICS_PARTITIONS"):
            load(DRIFTLINE_TOPICS_PARTITIONS="x")

    def test_names_the_command_line_when_it_overrules_the_others(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match="given by the command line"):
            load("[topics]\npartitions = 4", tmp_path, {"topics.partitions": "x"}, DRIFTLINE_TOPICS_PARTITIONS="4")

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match=r"cannot read .*nothing\.toml.*Give a file"):
            load_settings(tmp_path / "nothing.toml", {}, {})

    def test_is_a_refusal(self) -> None:
        assert issubclass(SettingsError, RefusedError)
        assert SettingsError.exit_code == 2

    def test_a_secret_is_in_no_error(self) -> None:
        with pytest.raises(SettingsError) as caught:
            load(DRIFTLINE_KAFKA_PROPERTIES='{"sasl.password": "hunter2", "group.id": "x"}')
        assert "hunter2" not in str(caught.value)


class TestUnknownVariables:
    def test_one_that_names_nearly_a_setting_is_warned_of(self, caplog: pytest.LogCaptureFixture) -> None:
        load(DRIFTLINE_WORKER_GROUPS="x")
        assert "DRIFTLINE_WORKER_GROUPS names no setting" in caplog.text
        assert "DRIFTLINE_WORKER_GROUP?" in caplog.text

    def test_what_kubernetes_sets_for_a_service_does_no_harm(self) -> None:
        environ = {"DRIFTLINE_WORKER_PORT": "tcp://10.0.0.1:80", "DRIFTLINE_WORKER_SERVICE_HOST": "10.0.0.1"}
        assert load(**environ) == Settings()


class TestShown:
    @pytest.mark.parametrize(
        "name",
        ["sasl.password", "ssl.key.password", "sasl.oauthbearer.client.secret", "ssl.key.pem", "sasl.jaas.config"],
    )
    def test_secrets_are_hidden(self, name: str) -> None:
        settings = load(flags={"kafka": {"properties": {name: "hunter2", "sasl.username": "u"}}})
        assert settings.shown()["kafka"]["properties"] == {name: HIDDEN, "sasl.username": "u"}

    def test_changed(self) -> None:
        assert Settings().changed() == []
        assert load(flags={"topics.partitions": 5}).changed() == [("topics.partitions", 5)]


def test_environment_names_are_distinct() -> None:
    names = [environment_name(section, key) for section, key, _ in fields()]
    assert len(names) == len(set(names))
