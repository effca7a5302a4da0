"""Keyed hashes for ids."""

import hashlib
import hmac

import pytest

from stream.contract.event import Event
from stream.errors import SettingsError
from stream.pseudonym import KEY_VARIABLE, Names, Pseudonyms, names_of, pseudonyms_of
from stream.settings import Settings, load_settings

NEW, OLD = "the-new-key-0123456789", "the-old-key-0123456789"


def _settings(mode: str) -> Settings:
    return load_settings(overrides={"events.pseudonyms": mode}, environ={})


def test_a_pseudonym_is_the_hmac_of_the_id() -> None:
    expected = hmac.new(NEW.encode(), b"jane@example.org", hashlib.sha256).hexdigest()[:32]
    assert Pseudonyms(NEW).of("jane@example.org") == "~" + expected


def test_the_same_id_has_the_same_and_another_key_another() -> None:
    assert Pseudonyms(NEW).of("ann") == Pseudonyms(NEW).of("ann")
    assert len({Pseudonyms(NEW).of("ann"), Pseudonyms(OLD).of("ann"), Pseudonyms(NEW).of("bob")}) == 3


def test_the_newest_key_names_and_all_look_up() -> None:
    both = Pseudonyms(f" {NEW}, {OLD} ,")
    assert both.of("ann") == Pseudonyms(NEW).of("ann")
    assert both.all_of("ann") == [Pseudonyms(NEW).of("ann"), Pseudonyms(OLD).of("ann")]


@pytest.mark.parametrize("keys", ["", " , ", "short", f"{NEW},short"])
def test_no_key_or_a_short_one_is_refused_with_what_to_do_and_without_the_key(keys: str) -> None:
    with pytest.raises(SettingsError, match=f"{KEY_VARIABLE}.*openssl rand") as caught:
        Pseudonyms(keys)
    assert "short" not in str(caught.value)


def test_half_a_surrogate_pair_stops_nobody() -> None:
    assert Pseudonyms(NEW).of("\ud800").startswith("~")


def test_both_ids_of_an_event_are_replaced_and_nothing_else() -> None:
    event = Event(event_id="e", event_type="view", occurred_at=1, user_id="ann", anonymous_id="cookie", item_id="i")
    names = Pseudonyms(NEW)
    changed = names.applied(event)
    assert (changed.user_id, changed.anonymous_id) == (names.of("ann"), names.of("cookie"))
    assert (changed.event_id, changed.item_id) == ("e", "i")
    assert event.user_id == "ann"
    anonymous = names.applied(Event(event_id="e", event_type="view", occurred_at=1, anonymous_id="cookie"))
    assert (anonymous.user_id, anonymous.key) == (None, names.of("cookie").encode())


def test_what_a_user_is_called_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, f"{NEW},{OLD}")
    new, old = Pseudonyms(f"{NEW},{OLD}").all_of("ann")
    assert names_of(_settings("off"), "ann") == [Names("ann", b"ann", b"ann")]
    assert names_of(_settings("producer"), "ann") == [Names(name, name.encode(), name.encode()) for name in (new, old)]
    assert names_of(_settings("worker"), "ann") == [Names("ann", b"ann", name.encode()) for name in (new, old)]
    assert names_of(_settings("worker"), "ann", "shop") == [
        Names("ann", b"shop\x1fann", f"shop\x1f{name}".encode()) for name in (new, old)
    ]


def test_settings_that_ask_for_none_need_no_key() -> None:
    assert pseudonyms_of(_settings("off"), {}) is None
    with pytest.raises(SettingsError):
        pseudonyms_of(_settings("worker"), {})
