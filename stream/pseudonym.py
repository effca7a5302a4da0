"""Keyed hashes in place of users' ids: the same id gives the same pseudonym, and only who has the key can make it.

    pseudonym = "~" + hex(HMAC-SHA256(key, id))[:32]

A plain hash would not do: ids are few and guessable (numbers, e-mail addresses), and whoever can hash them all can
look each pseudonym up. The key is the secret; it stands in the environment variable DRIFTLINE_PSEUDONYM_KEY and is
never stored or logged.

**Rotation.** The variable may hold several keys, separated by commas, the newest first. New events get the newest
key's pseudonym, look-ups and erasures try all of them. A user's interests do not move to the new pseudonym: they grow
anew, as the old ones expire. Once the log's retention and `state.expire_after_s` have passed, nothing is left under the
old key, and it can go. If it goes sooner, what is under it can be erased by nobody, and stays until it expires.

**The rest.** The event's other fields stay as they are: what else is personal in them (`properties`) is the producer's
to leave out.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping
from functools import lru_cache

import msgspec

from state.keys import user_key
from stream.contract.event import Event
from stream.errors import SettingsError
from stream.settings import Settings

KEY_VARIABLE = "DRIFTLINE_PSEUDONYM_KEY"
# As long as the half of SHA-256's output that is used: shorter ones can be tried out.
_MIN_KEY_CHARS = 16
_CACHED = 65_536


class Pseudonyms:
    """Ids to pseudonyms, under one key or several."""

    def __init__(self, keys: str) -> None:
        """keys: separated by commas, the newest first.

        Raises:
            SettingsError: there is none, or one is too short.
        """
        self._keys = [key.strip().encode() for key in keys.split(",") if key.strip()]
        if not self._keys or min(map(len, self._keys)) < _MIN_KEY_CHARS:
            raise SettingsError(
                f"{KEY_VARIABLE} must hold a key of {_MIN_KEY_CHARS} characters or more (or several, separated by "
                "commas, the newest first). Make one, such as by: openssl rand -hex 32, and keep it where secrets are "
                "kept: without it nobody can be looked up or erased."
            )
        self.of = lru_cache(_CACHED)(self._newest)

    def _newest(self, user: str) -> str:
        """The pseudonym of an id under the newest key."""
        return _pseudonym(self._keys[0], user)

    def all_of(self, user: str) -> list[str]:
        """Its pseudonyms under all keys, the newest first."""
        return [_pseudonym(key, user) for key in self._keys]

    def keys_of(self, event: Event) -> list[bytes]:
        """The keys under which something of the event's user may be kept, one for each of our keys."""
        return [user_key(name, event.tenant or "") for name in self.all_of(event.subject)]

    def applied(self, event: Event) -> Event:
        """The event under pseudonyms in place of its ids."""
        return msgspec.structs.replace(
            event,
            user_id=self.of(event.user_id) if event.user_id else None,
            anonymous_id=self.of(event.anonymous_id) if event.anonymous_id else None,
        )


def _pseudonym(key: bytes, user: str) -> str:
    # surrogatepass: half a surrogate pair in an id must not stop a worker, wherever the id was read.
    return "~" + hmac.digest(key, user.encode("utf-8", "surrogatepass"), "sha256").hex()[:32]


def pseudonyms_of(settings: Settings, environ: Mapping[str, str] | None = None) -> Pseudonyms | None:
    """The pseudonyms that the settings ask for; None when they ask for none.

    Raises:
        SettingsError: the key is missing or too short.
    """
    if settings.events.pseudonyms == "off":
        return None
    return Pseudonyms((os.environ if environ is None else environ).get(KEY_VARIABLE, ""))


class Names(msgspec.Struct, frozen=True):
    """What a user is called where."""

    event_user: str
    """The user_id of the user's events."""
    event_key: bytes
    """The key of the user's events, and so what decides the partition."""
    list_key: bytes
    """The key of the user's state and list."""


def names_of(settings: Settings, user: str, tenant: str = "") -> list[Names]:
    """All names under which something of a user may be found, by the settings; the newest first.

    Args:
        settings: all settings.
        user: the real id.
        tenant: whose user it is; "" for none.

    Raises:
        SettingsError: the key is missing or too short.
    """
    pseudonyms = pseudonyms_of(settings)
    key = user_key(user, tenant)
    if pseudonyms is None:
        return [Names(user, key, key)]
    keys = [(name, user_key(name, tenant)) for name in pseudonyms.all_of(user)]
    if settings.events.pseudonyms == "producer":
        return [Names(name, hashed, hashed) for name, hashed in keys]
    return [Names(user, key, hashed) for _, hashed in keys]
