"""Every setting of Driftline: its name, default, meaning and limits, in one place.

Where a value comes from, the first that has it: command-line flag, environment variable
DRIFTLINE_SECTION_KEY, TOML file (`-c FILE` or DRIFTLINE_CONFIG), the profile (`--profile`, DRIFTLINE_PROFILE, or
`profile` at the top of the file; see `stream.profiles`), the default below.
`deploy/config.toml` is written from this module (`python -m stream.settings`) and a test holds it current.
"""

import difflib
import json
import logging
import os
import re
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic import model_validator as validates_together
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from model.ranking.settings import RankingSettings
from state.errors import StateError
from state.settings import StateSettings
from state.weights import DEFAULT_WEIGHTS, EVENT_TYPES, WeightSettings
from state.window import Window, WindowSettings
from stream.errors import SettingsError
from stream.profiles import PROFILES

log = logging.getLogger(__name__)
# librdkafka's own lines go here and not straight to stderr; heard only where logging is set up.
LIBRDKAFKA_LOG = logging.getLogger("stream.librdkafka")
LIBRDKAFKA_LOG.addHandler(logging.NullHandler())

ENVIRONMENT_PREFIX = "DRIFTLINE_"
# Settings that are tables: JSON in a flag or in the environment.
_TABLES = ("properties", "windows", "count_half_lives_s", "last_window")
HIDDEN = "********"

_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*")
_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")
# One server: an optional listener protocol, a host (or [IPv6]), a port.
_SERVER = re.compile(r"(?:[A-Za-z_]+://)?(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5})")
_SECRET = re.compile(r"password|secret|jaas|\.pem$|oauthbearer\.config|token(?!\.endpoint)", re.IGNORECASE)


def _duration(per_unit_ms: int) -> BeforeValidator:
    """Lets a number be written as a duration ("30m", "7d", "500ms") in the field's own unit."""

    def read(value: Any) -> Any:
        match = _DURATION.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            return value
        amount = float(match[1]) * _UNITS_MS[match[2]] / per_unit_ms
        return int(amount) if amount.is_integer() else amount

    return BeforeValidator(read)


Seconds = Annotated[int, _duration(1000)]
SecondsFloat = Annotated[float, _duration(1000)]
Millis = Annotated[int, _duration(1)]
SecondsByName = dict[str, Annotated[int, _duration(1000), Field(ge=1)]]
Port = Annotated[int, Field(ge=0, le=65535)]


class Section(BaseModel):
    """One table of the TOML file; a key that it does not know is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class KafkaSection(Section):
    """The broker, and how to reach it."""

    bootstrap_servers: str = Field(
        default="localhost:9092", description="Kafka's addresses, HOST:PORT, several separated by commas."
    )
    properties: dict[str, str] = Field(
        default_factory=dict,
        description="Any librdkafka property, for every client: TLS, SASL, client.id. "
        'For instance "security.protocol" = "SASL_SSL". Secrets are better given by the environment: '
        'DRIFTLINE_KAFKA_PROPERTIES=\'{"sasl.password": "..."}\' is joined with what the file says.',
    )

    @field_validator("bootstrap_servers")
    @classmethod
    def _servers(cls, value: str) -> str:
        servers = [part.strip() for part in value.split(",")]
        for server in servers:
            match = _SERVER.fullmatch(server)
            if match is None or not 1 <= int(match[1]) <= 65535:
                raise ValueError(f"{server!r} is no HOST:PORT (such as kafka-1:9092,kafka-2:9092)")
        return ",".join(servers)

    @field_validator("properties", mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        # TOML reads an unquoted security.protocol as a table in a table; librdkafka wants dotted names.
        return dict(_dotted(value)) if isinstance(value, Mapping) else value

    @field_validator("properties")
    @classmethod
    def _ours(cls, value: dict[str, str]) -> dict[str, str]:
        for name in ("bootstrap.servers", "group.id", "transactional.id", "enable.auto.commit"):
            if name in value:
                raise ValueError(f"{name} is set by Driftline itself: leave it out")
        return value


class TopicsSection(Section):
    """The topics, and the shape in which `driftline topics create` makes them."""

    events: str = Field(default="driftline.events.v1", description="Events in, by user.")
    rekey: str = Field(
        default="driftline.events.v1.rekey",
        description="Events whose key is not their user, to be given that key.",
    )
    recommendations: str = Field(default="driftline.recommendations.v1", description="Lists out, by user; compacted.")
    items: str = Field(default="driftline.items.v1", description="The catalogue, by item; compacted.")
    models: str = Field(default="driftline.models.v1", description="Which model is active; compacted.")
    erasures: str = Field(default="driftline.erasures.v1", description="Confirmations of erasures; compacted.")
    late: str = Field(default="driftline.events.v1.late", description="Events that came too late, with how late.")
    dead_letters: str = Field(
        default="driftline.events.v1.dlq",
        description="Events that could not be used, bytes unchanged, reason in the headers.",
    )
    features: str = Field(
        default="",
        description='What was known of a user when a list was made, one record a list, to learn from; "": not '
        'written. Create it before its use: driftline topics create. Such as "driftline.features.v1".',
    )
    changelog: str = Field(
        default="driftline.state.v1.changelog", description="The state of every user, by user; compacted."
    )
    partitions: int = Field(
        default=32,
        ge=1,
        le=10_000,
        description="Partitions of events, rekey, recommendations, features and changelog, which must be equal: 4 to 8 "
        "times the largest number of workers. Cannot be changed later without moving users between "
        "partitions.",
    )
    replication_factor: int = Field(
        default=1,
        ge=1,
        le=100,
        description="Copies of each partition. 3 in production, on three brokers or more.",
    )

    @field_validator(
        "events",
        "rekey",
        "recommendations",
        "items",
        "models",
        "erasures",
        "late",
        "dead_letters",
        "features",
        "changelog",
    )
    @classmethod
    def _legal(cls, value: str, info: ValidationInfo) -> str:
        if not value and info.field_name == "features":
            return value
        if not _TOPIC.fullmatch(value) or value in (".", ".."):
            raise ValueError("a topic's name has 1 to 249 of the characters a-z A-Z 0-9 . _ -")
        return value

    @validates_together(mode="after")
    def _distinct(self) -> "TopicsSection":
        seen: dict[str, str] = {}
        for role, name in self.names().items():
            if name in seen:
                raise ValueError(f"{seen[name]} and {role} name the same topic {name!r}: give each its own")
            seen[name] = role
        return self

    def names(self) -> dict[str, str]:
        """Role (events, rekey, ...) -> the topic's name; without roles that have none."""
        return {k: v for k, v in self if isinstance(v, str) and v}


class WorkerSection(Section):
    """One worker process."""

    group: str = Field(
        default="driftline",
        min_length=1,
        max_length=249,
        description="Consumer group; workers of one group share.",
    )
    data_dir: Path = Field(
        default=Path("data"),
        description="Folder of the local stores. A cache of the changelog: it may be lost at any time.",
    )
    session_timeout_ms: Millis = Field(
        default=6000,
        ge=1000,
        le=300_000,
        description="A worker silent for so long is taken for dead, and its partitions move.",
    )
    heartbeat_interval_ms: Millis = Field(
        default=1000,
        ge=100,
        le=100_000,
        description="Sign of life to the broker; at most a third of the above.",
    )
    max_cycle_records: int = Field(
        default=2048, ge=1, le=100_000, description="Events of one cycle, and so of one transaction, at most."
    )
    linger_max_ms: Millis = Field(
        default=20,
        ge=0,
        le=1000,
        description="Under load a cycle may wait so long for more events: cheaper, but later.",
    )
    transaction_timeout_ms: Millis = Field(
        default=10_000,
        ge=1000,
        le=900_000,
        description="The broker aborts a transaction open for so long; until then readers of committed data "
        "wait behind it.",
    )
    purge_after_s: Seconds = Field(
        default=3600,
        ge=0,
        description="So long after a user was forgotten the local store is rewritten where the state was, so that its "
        "bytes leave the disk; some 50 ms of work in the background. Shorter, and it is done more often.",
    )
    lists: Literal["chunk", "event", "none"] = Field(
        default="chunk",
        description='"chunk": one list a user for the events that arrive together; "event": a list for each '
        'event, at its price; "none": states only.',
    )
    corrupt_state: Literal["stop", "rebuild"] = Field(
        default="stop",
        description='A state whose bytes cannot be read: "stop" ends the worker with an error that says where; '
        '"rebuild" '
        "makes it anew from what the events topic still holds of its partition: some microseconds for each of its "
        "records, ten minutes at most.",
    )
    web_host: str = Field(default="127.0.0.1", min_length=1, description="Address that the health pages listen on.")
    web_port: Port = Field(default=6066, description="Port of the health pages; 0 for none.")

    @validates_together(mode="after")
    def _fits(self) -> "WorkerSection":
        if self.heartbeat_interval_ms * 3 > self.session_timeout_ms:
            raise ValueError(
                f"heartbeat_interval_ms = {self.heartbeat_interval_ms} is more than a third of "
                f"session_timeout_ms = {self.session_timeout_ms}: lower the first or raise the second"
            )
        return self


class EventsSection(Section):
    """Which events are taken."""

    max_future_s: Seconds = Field(
        default=300,
        ge=0,
        description="An event further ahead of its record's timestamp than this has a wrong clock (see future_policy); "
        "one less far ahead is taken to be of that timestamp.",
    )
    future_policy: Literal["refuse", "clamp"] = Field(
        default="refuse",
        description='An event further ahead than max_future_s: "refuse" makes it a dead letter (future_time), '
        '"clamp" takes it to be of its record\'s timestamp.',
    )
    grace_s: Seconds = Field(
        default=86_400,
        ge=0,
        description="An event this much older than the newest of its partition is still on time; an older one is "
        "late. A day takes what phones send when they are back on the network, and what producers that do not "
        "wait for each other mix up; it is the longest time in which the window of a day can still hold an event.",
    )
    late_policy: Literal["late_topic", "admit"] = Field(
        default="late_topic",
        description='A late event: "late_topic" puts it, bytes unchanged, on the late topic, and it changes no state; '
        '"admit" applies it all the same (for a log that is not in order of time, such as one sorted by user). '
        "Counted either way.",
    )
    correct_skew: Literal["both", "ahead", "off"] = Field(
        default="both",
        description="Whether occurred_at is corrected where sent_at shows the sender's clock to be off, by the "
        'record\'s timestamp less sent_at: "both" ways, only where the clock is "ahead", or "off". Use "ahead" where '
        "records wait between sent_at and Kafka for minutes (store and forward): they look as if from a clock that is "
        "behind.",
    )
    skew_threshold_s: Seconds = Field(
        default=60, ge=1, description="A smaller difference of sent_at from the record's timestamp is left as it is."
    )
    max_skew_s: Seconds = Field(
        default=86_400,
        ge=1,
        description="A larger difference is not a clock's but that of a log that is replayed, and left as it is.",
    )
    max_bytes: int = Field(default=1_000_000, ge=1, description="A larger event is refused unread.")
    mismatched_key: Literal["rekey", "dead_letter"] = Field(
        default="rekey",
        description='An event whose key is not its user: "rekey" sends it to the rekey topic under the right '
        'key, "dead_letter" refuses it.',
    )

    @validates_together(mode="after")
    def _skew(self) -> "EventsSection":
        if self.skew_threshold_s > self.max_skew_s:
            raise ValueError(
                f"skew_threshold_s = {self.skew_threshold_s} is more than max_skew_s = {self.max_skew_s}: then no "
                'clock is ever corrected; say so with correct_skew = "off", or lower the first'
            )
        return self

    pseudonyms: Literal["off", "producer", "worker"] = Field(
        default="off",
        description="Keyed hashes in place of the users' ids; the key is in the environment variable "
        'DRIFTLINE_PSEUDONYM_KEY. "producer": `driftline produce` hashes before anything reaches Kafka; "worker": '
        "events hold the ids, and states, lists and confirmations the hashes. get, tail and erase then take the real "
        "id.",
    )


class CatalogSection(Section):
    """The catalogue: the items topic, which every worker holds whole."""

    category_level: int = Field(
        default=0,
        ge=0,
        le=32,
        description="Which name of an item's category path is the interest of an event that names none: 1 the "
        "broadest, 2 the next, 0 the last. Take the level that your events and the model's training data name.",
    )
    text_bytes: int = Field(
        default=128,
        ge=0,
        le=32_768,
        description="So much of an item's text is kept. A million items take some 300 MB with 128, and 1 MB less or "
        "more for each byte less or more.",
    )
    learnt_items: int = Field(
        default=4096,
        ge=0,
        le=1_000_000,
        description="Items of a partition whose category is known from its events only, neither by the catalogue nor "
        "by the model: so many at most; they serve events that name no category. 0: none.",
    )
    start_timeout_s: Seconds = Field(
        default=600,
        ge=1,
        description="A worker that starts waits so long at most until it has read the items topic; 10 s do for a "
        "million items.",
    )


class ModelSection(Section):
    """The model."""

    path: str = Field(default="", description="Folder of the artifact, as `driftline train` writes it.")


_STATE = StateSettings()


class WindowTable(Section):
    """One window."""

    size_s: Seconds
    pane_s: Seconds
    cells: int
    emphasis: float = 1.0


class StateSection(Section):
    """What is kept of a user; together at most about 2 KiB."""

    recent_items: int = Field(
        default=_STATE.recent_items,
        ge=1,
        le=1000,
        description="Last interactions kept; the network's vector is rebuilt from them for a new model.",
    )
    max_counted_items: int = Field(
        default=_STATE.max_counted_items,
        ge=1,
        le=10_000,
        description="Items with a decayed count, at most; a shop that sells again wants more (256).",
    )
    event_id_ring: int = Field(
        default=_STATE.event_id_ring,
        ge=1,
        le=10_000,
        description="Last event ids kept: an event sent twice within them counts once.",
    )
    session_gap_s: Seconds = Field(default=_STATE.session_gap_s, ge=1, description="A pause that ends a session.")
    count_half_life_s: Seconds = Field(
        default=_STATE.count_half_life_s, ge=1, description="Time in which an item's count halves."
    )
    count_half_lives_s: SecondsByName = Field(
        default=_STATE.count_half_lives_s,
        description="The same by event type, where it is another: an item's count halves in the time of the strongest "
        'type of event on it so far. For instance {"view" = "14d", "purchase" = "120d"}.',
    )
    windows: dict[str, WindowTable] = Field(
        default={
            window.name: WindowTable(
                size_s=window.size_s, pane_s=window.pane_s, cells=window.cells, emphasis=window.emphasis
            )
            for window in _STATE.windows.windows
        },
        description="Sliding windows of event time over a user's interests, by name, any number: the length size_s, "
        "the step pane_s it slides in (a multiple of the next smaller window's), the (interest, pane) cells kept, of "
        "10 bytes each, and emphasis, what a weight in it counts in an interest's points. They replace the default's, "
        "and those of a profile together with its last_window.",
    )
    window_grace_s: Seconds = Field(
        default=_STATE.windows.grace_s,
        ge=0,
        description="Events of a user may come in any order within this and leave the same windows. One that comes "
        "later than that, but not too late (events.grace_s), lands in the larger panes only.",
    )

    last_window: dict[str, str] = Field(
        default=_STATE.last_window,
        description="By event type, the largest window that it counts in, one of the first three; all, if not given. "
        'For instance {"impression" = "session"}: what was shown is no interest any more after the visit.',
    )
    interests: str = Field(
        default=",".join(_STATE.interests),
        description='What of an item makes an interest, separated by commas: "category", "brand", "properties.NAME". '
        "The event says it, else the catalogue. Each more takes as many cells of the windows again: give them more.",
    )

    @validates_together(mode="after")
    def _works(self) -> "StateSection":
        self.state_settings()
        return self

    def state_settings(self) -> StateSettings:
        """As the state takes them. Raises ValueError where they do not go together."""
        own = self.model_dump(include=set(StateSettings.__struct_fields__) - {"windows", "interests"})
        windows = self.window_settings()
        try:
            interests = tuple([field.strip() for field in self.interests.split(",")])
            return StateSettings(**own, windows=windows, interests=interests)
        except StateError as error:
            raise ValueError(str(error)) from None

    def window_settings(self) -> WindowSettings:
        """The windows, the smallest first. Raises ValueError where they do not go together."""
        windows = sorted(self.windows.items(), key=lambda named: named[1].size_s)
        try:
            return WindowSettings(
                windows=tuple(Window(name=name, **table.model_dump()) for name, table in windows),
                grace_s=self.window_grace_s,
            )
        except StateError as error:
            raise ValueError(str(error)) from None

    expire_after_s: Seconds = Field(
        default=400 * 86_400,
        ge=0,
        description="A user without an event for so long (event time of the partition) is forgotten: state and list. "
        "0: never.",
    )


def _for(name: str, description: str) -> Any:
    """The weight of a type that speaks for an item: the model and the reasons take it so, whatever is set."""
    return Field(default=DEFAULT_WEIGHTS[name], ge=0, le=1e6, description=description)


def _against(name: str, description: str) -> Any:
    return Field(default=DEFAULT_WEIGHTS[name], ge=-1e6, le=0, description=description)


_WEIGHTS = WeightSettings()


class WeightsSection(Section):
    """What an event of each type adds to its user's interest in the item, and what scales it (state/weights.py)."""

    impression: float = _for("impression", "The item was shown.")
    view: float = _for("view", "The item's page was opened, the film played; scaled by dwell_ms.")
    click: float = _for("click", "The item was clicked in a list; scaled by dwell_ms.")
    add_to_cart: float = _for("add_to_cart", "Put into the cart; scaled by quantity and value.")
    remove_from_cart: float = _against("remove_from_cart", "Taken out of the cart; scaled by quantity and value.")
    purchase: float = _for("purchase", "Bought; scaled by quantity and value.")
    like: float = _for("like", "Said to be liked, followed or shared.")
    dislike: float = _against("dislike", "Said to be disliked.")
    hide: float = _against("hide", "Asked not to be shown again.")
    rating: float = _for("rating", "Rated with all stars, its value; a low rating weighs against the item.")
    session_start: float = _for("session_start", "A visit began; it has no item.")
    size_strength: float = Field(
        default=_WEIGHTS.size_strength,
        ge=0,
        le=1,
        description="How much quantity and value scale the weight of an order: 0 not at all, 1 by log2(1 + pieces).",
    )
    value_usual: float = Field(
        default=_WEIGHTS.value_usual,
        ge=0,
        le=1e12,
        description="Usual value of one piece, in the currency of the events; 0: value scales nothing.",
    )
    value_strength: float = Field(
        default=_WEIGHTS.value_strength,
        ge=0,
        le=1,
        description="Share of the value in the size of an order, beside the quantity; no effect without value_usual.",
    )
    dwell_usual_ms: Millis = Field(
        default=_WEIGHTS.dwell_usual_ms,
        ge=1,
        description="How long an interested user stays: a view of that time has its full weight, a shorter one less.",
    )
    dwell_strength: float = Field(
        default=_WEIGHTS.dwell_strength,
        ge=0,
        le=1,
        description="How much dwell_ms scales the weight: 0 not at all, 1 by log2(1 + dwell / usual), 0.25 to 4.",
    )
    rating_min: float = Field(
        default=_WEIGHTS.rating_min, description="Fewest stars: twice the weight, against the item."
    )
    rating_neutral: float = Field(
        default=_WEIGHTS.rating_neutral,
        description="Stars that say nothing; best between two that can be given, for what weighs 0 leaves no trace.",
    )
    rating_max: float = Field(default=_WEIGHTS.rating_max, description="Most stars: the full weight.")

    @validates_together(mode="after")
    def _stars(self) -> "WeightsSection":
        if not self.rating_min < self.rating_neutral < self.rating_max:
            raise ValueError(
                f"rating_min = {self.rating_min}, rating_neutral = {self.rating_neutral} and rating_max = "
                f"{self.rating_max} do not rise: set each above the one before"
            )
        return self


_RANKING = RankingSettings()


class RankingSection(Section):
    """How a list is made. The weights are those of the log-linear blend, used where a model brings no learnt one."""

    list_size: int = Field(default=_RANKING.list_size, ge=1, le=1000, description="Items of a list.")
    exclude: Literal["seen", "session", "none"] = Field(
        default=_RANKING.exclude,
        description='Items left out of a list: "seen" all that the state remembers (films), "session" those of '
        'this visit (shops, which sell again), "none". What the user hid or disliked is left out always.',
    )
    domains: Literal["all", "event"] = Field(
        default=_RANKING.domains,
        description='"event": a list after an event that names a domain (books, films) holds items of that domain '
        'alone, chosen by the interests in all; "all": lists are not limited. An item\'s domain is what the catalogue '
        "says, else what the model learnt from the log.",
    )
    listed_only: bool = Field(
        default=_RANKING.listed_only,
        description="Whether items that the catalogue does not hold are left out, beside those that it says are not "
        "available, expired or gone. True where the catalogue is complete: an item whose tombstone is gone from the "
        "topic, two days later, then stays out, also for a worker that starts afterwards.",
    )
    parts: bool = Field(
        default=_RANKING.parts,
        description="Whether lists say of each item how much of its score came from the network, the rules, the user's "
        "own counts and popularity.",
    )
    network_weight: float = Field(default=_RANKING.network_weight, description="Of the network's score.")
    rules_weight: float = Field(default=_RANKING.rules_weight, description="Of the sequence rules.")
    basket_weight: float = Field(
        default=_RANKING.basket_weight,
        description="Of the rules among items of one session; 0 saves their time, a shop wants about 0.5.",
    )
    personal_weight: float = Field(
        default=_RANKING.personal_weight,
        description='Of the user\'s own decayed counts; no effect where exclude is "seen".',
    )
    popularity_weight: float = Field(default=_RANKING.popularity_weight, description="Of the decayed popularity.")
    rules_items: int = Field(default=_RANKING.rules_items, ge=1, description="Last items whose rules are used.")
    basket_items: int = Field(
        default=_RANKING.basket_items, ge=1, description="Items of the running session whose basket rules are used."
    )
    rules_age_decay: float = Field(
        default=_RANKING.rules_age_decay, gt=0, le=1, description="Each older item's rules weigh so much less."
    )
    rules_per_item: int = Field(
        default=_RANKING.rules_per_item, ge=1, description="Rules used of each item, the best first."
    )
    popularity_half_life_s: SecondsFloat = Field(
        default=_RANKING.popularity_half_life_s, gt=0, description="Time in which an item's popularity halves."
    )
    trend_refresh_events: int = Field(
        default=_RANKING.trend_refresh_events,
        ge=1,
        description="Events of a partition after which its popular items are taken anew.",
    )
    popularity_prior: float = Field(
        default=_RANKING.popularity_prior,
        gt=0,
        description="Event weight that the model's popularity counts for beside what the partition has seen.",
    )


class Settings(BaseModel):
    """All sections; `Settings()` has the defaults. `load_settings` reads the other sources.

    pydantic alone, not pydantic-settings: joining the sources here lets an error name the one to mend.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    profile: str = Field(
        default="",
        description="Values that suit one use, in place of the defaults. What is set beside it wins over it.",
    )
    kafka: KafkaSection = KafkaSection()
    topics: TopicsSection = TopicsSection()
    worker: WorkerSection = WorkerSection()
    events: EventsSection = EventsSection()
    weights: WeightsSection = WeightsSection()
    state: StateSection = StateSection()
    ranking: RankingSection = RankingSection()
    catalog: CatalogSection = CatalogSection()
    model: ModelSection = ModelSection()

    def client_properties(self, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Properties of a librdkafka client: the address, `kafka.properties`, and over them `more`."""
        return {
            "logger": LIBRDKAFKA_LOG,
            "bootstrap.servers": self.kafka.bootstrap_servers,
            **self.kafka.properties,
            **(more or {}),
        }

    def state_settings(self) -> StateSettings:
        """The state's own settings."""
        return self.state.state_settings()

    def ranking_settings(self) -> RankingSettings:
        """The ranking's own settings."""
        from model.ranking.settings import (
            RankingSettings,
        )  # late: model may load torch, which --help must not

        return RankingSettings(**self.ranking.model_dump())

    def event_weights(self) -> dict[str, float]:
        """Event type -> weight."""
        weights: dict[str, float] = self.weights.model_dump(include=set(EVENT_TYPES))
        return weights

    def weight_settings(self) -> WeightSettings:
        """What `state.weights.weigh` takes."""
        weights = self.event_weights()
        scales = self.weights.model_dump(exclude=set(EVENT_TYPES))
        return WeightSettings(base=tuple(weights[name] for name in EVENT_TYPES), **scales)

    def shown(self) -> dict[str, Any]:
        """All values as plain data, secrets hidden: for printing. The profile, then section -> key -> value."""
        shown: dict[str, Any] = self.model_dump(mode="json")
        properties: dict[str, str] = shown["kafka"]["properties"]
        shown["kafka"]["properties"] = {
            name: HIDDEN if _SECRET.search(name) else value for name, value in properties.items()
        }
        return shown

    def changed(self) -> list[tuple[str, Any]]:
        """("section.key", value as `shown`) of each setting that is not its default."""
        mine, default = self.shown(), Settings().shown()
        return [
            (f"{section}.{key}", mine[section][key])
            for section, key, _ in fields()
            if mine[section][key] != default[section][key]
        ]


def load_settings(
    config: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """The settings from all sources.

    `config`: a TOML file, or None for what DRIFTLINE_CONFIG names, if it does. `overrides`: what the command
    line gave, {"kafka.bootstrap_servers": ...} or {"kafka": {"bootstrap_servers": ...}}; None values count as
    not given. `environ`: os.environ unless given.
    Raises SettingsError, which names the setting, what is wrong, where it was given and what is allowed.
    """
    return load_settings_told(config, overrides, environ)[0]


def load_settings_told(
    config: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> tuple[Settings, dict[str, str]]:
    """As `load_settings`, and "section.key" (or "profile") -> where it comes from, of all that is not by default.

    For instance "the profile shop", "the file driftline.toml", "the environment variable DRIFTLINE_WORKER_GROUP",
    "the command line".
    """
    environ = os.environ if environ is None else environ
    if config is None and environ.get(ENVIRONMENT_PREFIX + "CONFIG"):
        config = Path(environ[ENVIRONMENT_PREFIX + "CONFIG"])
    given = [
        _Source(f"the file {config}", _from_file(config) if config else {}),
        _Source("the environment variable", _from_environment(environ), environment=True),
        _Source("the command line", _from_flags(overrides or {})),
    ]
    sources = [_from_profile(given), *given]
    values: dict[str, Any] = {}
    for source in sources:
        _join(values, source.values)
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        problems = [_explain(detail, sources) for detail in error.errors(include_url=False)]
        raise SettingsError("\n".join(problems)) from None
    paths = [("profile",), *((section, key) for section, key, _ in fields())]
    return settings, {".".join(path): told for path in paths if (told := _told(path, sources))}


class _Source:
    """Where values came from, so that a mistake can be traced."""

    def __init__(self, name: str, values: dict[str, Any], *, environment: bool = False) -> None:
        self.name = name
        self.values = values
        self._environment = environment

    def told(self, path: tuple[str, ...]) -> str | None:
        """How to name this source for the setting at `path`; None when the source does not give it."""
        values: Any = self.values
        for key in path[:2]:
            if not isinstance(values, Mapping) or key not in values:
                return None
            values = values[key]
        return f"{self.name} {environment_name(*path[:2])}" if self._environment else self.name


def _told(path: tuple[str, ...], sources: list[_Source]) -> str | None:
    """The source whose value counts for the setting at `path`; None when none gives it."""
    return next((told for source in reversed(sources) if (told := source.told(path))), None)


def _from_profile(given: list[_Source]) -> _Source:
    """The values of the profile that the other sources name.

    Raises:
        SettingsError: there is none of that name.
    """
    told = _told(("profile",), given)
    if told is None:
        return _Source("no profile", {})
    name = next(source.values["profile"] for source in reversed(given) if "profile" in source.values)
    if name == "":  # as in a file that has every default, or a flag that takes back what the file says
        return _Source("no profile", {})
    if not isinstance(name, str) or name not in PROFILES:
        near = difflib.get_close_matches(str(name), PROFILES, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise SettingsError(f"unknown profile {name!r} (given by {told}): {hint}There are: {', '.join(PROFILES)}.")
    values = PROFILES[name].values()
    if _told(("state", "windows"), given):  # the profile's last_window names windows that are not there any more
        values.get("state", {}).pop("last_window", None)
    return _Source(f"the profile {name}", dict(values))


def environment_name(section: str, key: str = "") -> str:
    """DRIFTLINE_SECTION_KEY."""
    return (ENVIRONMENT_PREFIX + section + ("_" + key if key else "")).upper()


def fields() -> Iterator[tuple[str, str, FieldInfo]]:
    """(section, key, field) of every setting, in the file's order."""
    for section, kind in sections():
        for key, field in kind.model_fields.items():
            yield section, key, field


def sections() -> Iterator[tuple[str, type[Section]]]:
    """(name, class) of every section, in the file's order."""
    for section, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield section, kind


def _from_file(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(
            f"cannot read the settings file {path}: {reason}. Give a file that can be read with -c/--config "
            f"or {ENVIRONMENT_PREFIX}CONFIG; deploy/config.toml is one with every default."
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"the settings file {path} is not TOML: {error}. Mend that line.") from None
    for section, content in values.items():
        if not isinstance(content, dict) and section != "profile":
            raise SettingsError(
                f"{section!r} in the file {path} stands outside a section. "
                f"Put it under one of {', '.join(f'[{name}]' for name, _ in sections())}; only profile stands above."
            )
    return values


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """Values of the variables that name a setting; one that nearly does is only warned of.

    Only warned: Kubernetes itself sets DRIFTLINE_WORKER_PORT and the like for a service of that name.
    """
    known = {environment_name(section, key): (section, key) for section, key, _ in fields()}
    values: dict[str, Any] = {}
    for name, text in environ.items():
        if name == environment_name("profile"):
            values["profile"] = text
        elif name in known:
            section, key = known[name]
            values.setdefault(section, {})[key] = _parsed(text) if key in _TABLES else text
        elif name.startswith(tuple(environment_name(section) + "_" for section, _ in sections())):
            near = difflib.get_close_matches(name, known, 1)
            log.warning("%s names no setting and is ignored%s", name, f": {near[0]}?" if near else "")
    return values


def _from_flags(overrides: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in overrides.items():
        if isinstance(value, Mapping) and "." not in name:
            _join(values, {name: {k: v for k, v in value.items() if v is not None}})
        elif value is not None:
            section, _, key = name.partition(".")
            if not key:  # profile
                values[section] = value
                continue
            key, _, rest = key.partition(".")
            value = _parsed(value) if key in _TABLES and not rest else value
            _join(values, {section: {key: {rest: value} if rest else value}})
    return values


def _parsed(text: Any) -> Any:
    """A table given as JSON text; anything else as it is, for the validation to refuse."""
    try:
        return json.loads(text) if isinstance(text, str) else text
    except json.JSONDecodeError:
        return text


def _dotted(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield prefix + key, str(value).lower() if isinstance(value, bool) else str(value)


def _join(into: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Lays `more` over `into`: sections key by key, properties name by name; any other table replaces the other's."""
    for section, content in more.items():
        if not isinstance(content, Mapping):
            into[section] = content
            continue
        below = into.get(section)
        joined = into[section] = below if isinstance(below, dict) else {}
        for key, value in content.items():
            if key == "properties" and isinstance(value, Mapping):
                old = joined.get(key)
                joined[key] = {**(dict(_dotted(old)) if isinstance(old, Mapping) else {}), **dict(_dotted(value))}
            else:
                joined[key] = value


def _explain(detail: ErrorDetails, sources: list[_Source]) -> str:
    """One mistake as an operator needs it."""
    path = tuple(str(part) for part in detail["loc"])
    name = ".".join(path)
    given = _told(path, sources) or "the defaults"
    if detail["type"] == "extra_forbidden":
        known = [n for n, _ in sections()] if len(path) == 1 else list(dict(sections())[path[0]].model_fields)
        near = difflib.get_close_matches(path[-1], known, 1, cutoff=0.5)
        kind = "section" if len(path) == 1 else "setting"
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}."
        return f"unknown {kind} {name!r} (given by {given}): {hint}"
    problem = detail["msg"].removeprefix("Value error, ")
    if path == ("profile",):
        return f"profile (given by {given}): {problem}. There are: {', '.join(PROFILES)}."
    if len(path) == 1:  # two values of a section that do not go together
        return f"section [{name}]: {problem}."
    field = dict(sections())[path[0]].model_fields[path[1]]
    # What is inside properties may be secret.
    value = HIDDEN if path[1] == "properties" else repr(detail["input"])
    problem = problem[0].lower() + problem[1:]
    return (
        f"setting {name} = {value} (given by {given}): {problem}. Allowed: {allowed(field)}. "
        f"It means: {field.description}"
    )


def allowed(field: FieldInfo) -> str:
    """What a setting may be, in words."""
    kind = field.annotation
    choices = getattr(kind, "__args__", ())
    if getattr(kind, "__origin__", None) is Literal:
        return " or ".join(f'"{choice}"' for choice in choices)
    named: dict[Any, str] = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        Path: "a path",
        dict[str, str]: "a table of texts",
        dict[str, WindowTable]: "a table of windows",
        SecondsByName: 'a table of whole numbers of seconds, or durations such as "7d"',
    }
    words = next(told for known, told in named.items() if kind == known)
    for limit in field.metadata:
        for sign, told in (("ge", "from"), ("gt", "above"), ("le", "to"), ("lt", "below")):
            bound = getattr(limit, sign, None)
            if bound is not None:
                words += f" {told} {bound}"
    if any(isinstance(part, BeforeValidator) for part in field.metadata):
        words += ', or a duration such as "30s", "15m", "7d"'
    return words


def config_toml() -> str:
    """The text of deploy/config.toml: every setting with its default, meaning and limits."""
    head = [
        "# Every setting of Driftline with its default. Written by `python -m stream.settings`: leave it,",
        "# copy what you change into a file of your own and give it with -c FILE or DRIFTLINE_CONFIG.",
        "# A command-line flag (or --set SECTION.KEY=VALUE) wins over the environment variable",
        "# DRIFTLINE_SECTION_KEY, that over the file, the file over the profile, the profile over these defaults.",
    ]
    return "\n".join(head) + "\n\n" + settings_as_toml(Settings().shown(), commented=True)


def settings_as_toml(
    shown: Mapping[str, Any], *, commented: bool = False, sources: Mapping[str, str] | None = None
) -> str:
    """A settings file with these values (`Settings.shown`).

    `commented`: with each one's meaning and limits. `sources`: with where each comes from (`load_settings_told`).
    """

    def line(name: str, key: str, value: Any) -> str:
        source = (sources or {}).get(name)
        return f"{key} = {_toml(value)}" + (f"  # {source.removeprefix('the ')}" if source else "")

    parts: list[str] = []
    if commented:
        uses = "; ".join(f"{name}: {profile.about}" for name, profile in PROFILES.items())
        told = f"{Settings.model_fields['profile'].description} Allowed: empty for none, or a name. {uses}."
        parts += [f"# {part}" for part in textwrap.wrap(told, 106)]
    parts += [line("profile", "profile", shown["profile"]), ""]
    for section, kind in sections():
        if commented:
            parts.append(f"# {(kind.__doc__ or '').strip()}")
        parts.append(f"[{section}]")
        for key, field in kind.model_fields.items():
            if commented:
                told = f"{field.description} Allowed: {allowed(field)}."
                parts += [f"# {line}" for line in textwrap.wrap(told, 106)]
            parts.append(line(f"{section}.{key}", key, shown[section][key]))
        parts.append("")
    return "\n".join(parts)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{key}" = {_toml(item)}' for key, item in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)  # of texts, numbers and truth values, TOML is as JSON


if __name__ == "__main__":
    Path(__file__).parent.parent.joinpath("deploy", "config.toml").write_text(config_toml(), encoding="utf-8")
