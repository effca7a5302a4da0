"""The four profiles: they load, set what they say, and nothing else."""

from itertools import pairwise
from pathlib import Path

import pytest

from state.weights import TYPE_CODES
from state.window import ALL_WINDOWS
from stream.errors import SettingsError
from stream.profiles import PROFILES
from stream.settings import Settings, fields, load_settings, load_settings_told

every_profile = pytest.mark.parametrize("name", PROFILES)


def test_there_is_one_for_each_use() -> None:
    assert list(PROFILES) == ["shop", "social", "news", "entertainment"]


@every_profile
class TestEach:
    def test_is_loaded_and_sets_what_it_says_and_nothing_else(self, name: str) -> None:
        settings, sources = load_settings_told(None, {"profile": name}, {})
        assert settings.profile == name
        shown = settings.shown()
        for path, choice in PROFILES[name].choices.items():
            section, key = path.split(".")
            assert shown[section][key] == choice.value
            assert sources[path] == f"the profile {name}"
        assert dict(settings.changed()).keys() <= PROFILES[name].choices.keys()
        assert sources.keys() == {"profile", *PROFILES[name].choices}

    def test_says_why_of_each_value(self, name: str) -> None:
        assert PROFILES[name].about
        whys = [choice.why for choice in PROFILES[name].choices.values()]
        assert all(len(why) > 20 for why in whys)
        assert len(set(whys)) == len(whys)

    def test_keeps_the_order_of_the_weights(self, name: str) -> None:
        weights = load_settings(None, {"profile": name}, {}).event_weights()
        falling = ["purchase", "add_to_cart", "like", "click", "view", "impression"]
        assert all(weights[more] > weights[less] for more, less in pairwise(falling))
        assert all(weights[against] < 0.0 for against in ("dislike", "hide", "remove_from_cart"))

    def test_makes_settings_for_every_part(self, name: str) -> None:
        settings = load_settings(None, {"profile": name}, {})
        assert settings.weight_settings().dwell_usual_ms == settings.weights.dwell_usual_ms
        assert settings.ranking_settings().exclude == settings.ranking.exclude
        assert settings.state_settings().session_gap_s == settings.state.session_gap_s

    def test_what_says_more_counts_in_no_smaller_window_and_for_no_shorter_time(self, name: str) -> None:
        state = load_settings(None, {"profile": name}, {}).state_settings()
        rising = [TYPE_CODES[kind] for kind in ("impression", "click", "like", "purchase")]
        reaches = [state.reaches[code] for code in rising]
        assert reaches == sorted(reaches)
        assert (reaches[0], reaches[-1]) == (0, ALL_WINDOWS)
        half_lives = [(state.half_lives_s or [1.0] * 256)[code] for code in rising]
        assert half_lives == sorted(half_lives)

    def test_a_state_stays_within_two_kib(self, name: str) -> None:
        assert load_settings(None, {"profile": name}, {}).state_settings().max_state_bytes(512) <= 2048


def test_what_each_use_is_about() -> None:
    shop, social, news, films = (load_settings(None, {"profile": name}, {}) for name in PROFILES)
    assert (shop.ranking.exclude, films.ranking.exclude) == ("session", "seen")
    popular = [each.ranking.popularity_half_life_s for each in (news, social, shop, films)]
    assert popular == sorted(set(popular))
    kept = [each.state.count_half_life_s for each in (news, social, shop, films)]
    assert kept == sorted(set(kept))
    stayed = [each.weights.dwell_usual_ms for each in (social, shop, news, films)]
    assert stayed == sorted(set(stayed))


class TestPrecedence:
    FILE = 'profile = "news"\n[ranking]\nexclude = "none"\n'

    def _file(self, folder: Path) -> Path:
        path = folder / "driftline.toml"
        path.write_text(self.FILE)
        return path

    def test_flag_over_environment_over_file_over_profile_over_default(self, tmp_path: Path) -> None:
        path, variable = self._file(tmp_path), {"DRIFTLINE_RANKING_EXCLUDE": "session"}
        assert Settings().ranking.popularity_weight == 0.15
        assert load_settings(path, {}, {}).ranking.popularity_weight == 0.3
        assert load_settings(None, {"profile": "news"}, {}).ranking.exclude == "seen"
        assert load_settings(path, {}, {}).ranking.exclude == "none"
        assert load_settings(path, {}, variable).ranking.exclude == "session"
        assert load_settings(path, {"ranking.exclude": "seen"}, variable).ranking.exclude == "seen"

    def test_windows_of_the_file_replace_those_of_the_profile(self, tmp_path: Path) -> None:
        path = tmp_path / "driftline.toml"
        path.write_text(
            "[state.windows]\n"
            "day = { size_s = 86400, pane_s = 3600, cells = 20 }\n"
            "month = { size_s = 2592000, pane_s = 86400, cells = 18 }\n"
        )
        own = load_settings(path, {"profile": "entertainment"}, {}).state
        assert (list(own.windows), own.last_window) == (["day", "month"], {})
        assert "season" in load_settings(None, {"profile": "entertainment"}, {}).state.windows  # and it is untouched

    def test_the_name_itself_comes_from_flag_environment_or_file(self, tmp_path: Path) -> None:
        path, variable = self._file(tmp_path), {"DRIFTLINE_PROFILE": "shop"}
        assert load_settings(path, {}, {}).profile == "news"
        assert load_settings(path, {}, variable).profile == "shop"
        assert load_settings(path, {"profile": "social"}, variable).profile == "social"
        assert load_settings(path, {"profile": None}, {}).profile == "news"

    def test_an_empty_name_is_none(self, tmp_path: Path) -> None:
        settings, sources = load_settings_told(self._file(tmp_path), {}, {"DRIFTLINE_PROFILE": ""})
        assert (settings.profile, settings.ranking.popularity_weight) == ("", 0.15)
        assert sources["profile"] == "the environment variable DRIFTLINE_PROFILE"

    def test_sources_are_told(self, tmp_path: Path) -> None:
        path = self._file(tmp_path)
        _, sources = load_settings_told(path, {"worker.group": "g"}, {"DRIFTLINE_TOPICS_PARTITIONS": "3"})
        assert sources["profile"] == sources["ranking.exclude"] == f"the file {path}"
        assert sources["ranking.popularity_weight"] == "the profile news"
        assert sources["worker.group"] == "the command line"
        assert sources["topics.partitions"] == "the environment variable DRIFTLINE_TOPICS_PARTITIONS"
        assert "worker.lists" not in sources


class TestUnknown:
    def test_is_refused_with_the_names(self) -> None:
        with pytest.raises(SettingsError) as caught:
            load_settings(None, {"profile": "shopp"}, {})
        assert str(caught.value) == (
            "unknown profile 'shopp' (given by the command line): did you mean 'shop'? "
            "There are: shop, social, news, entertainment."
        )

    def test_names_its_source(self) -> None:
        with pytest.raises(SettingsError, match="given by the environment variable DRIFTLINE_PROFILE"):
            load_settings(None, {}, {"DRIFTLINE_PROFILE": "x"})

    @pytest.mark.parametrize("text", ["profile = 3", "profile = ['shop']", "[profile]\nname = 'shop'"])
    def test_what_is_no_text_is_refused(self, text: str, tmp_path: Path) -> None:
        path = tmp_path / "driftline.toml"
        path.write_text(text)
        with pytest.raises(SettingsError, match="unknown profile"):
            load_settings(path, {}, {})


def test_a_mistake_in_a_profile_would_be_told_as_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROFILES["shop"].choices, "ranking.list_size", PROFILES["shop"].choices["weights.view"])  # type: ignore[arg-type]  # a dict
    with pytest.raises(SettingsError, match=r"ranking\.list_size = 0\.5 \(given by the profile shop\)"):
        load_settings(None, {"profile": "shop"}, {})


def test_profiles_set_only_settings_there_are() -> None:
    known = {f"{section}.{key}" for section, key, _ in fields()}
    assert {path for profile in PROFILES.values() for path in profile.choices} <= known
