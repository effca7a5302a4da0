"""Every setting of Driftline: its name, default, meaning and limits, in one place.

Where a value comes from, the first that has it: command-line flag, environment variable
DRIFTLINE_SECTION_KEY, TOML file (`-c FILE` or DRIFTLINE_CONFIG), the default below.
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

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator
from pydantic import model_validator as validates_together
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from model.ranking.settings import RankingSettings
from state.settings import StateSettings
from state.weights import DEFAULT_WEIGHTS
from stream.errors import SettingsError

log = logging.getLogger(__name__)
# librdkafka's own lines go here and not straight to stderr; heard only where logging is set up.
LIBRDKAFKA_LOG = logging.getLogger("stream.librdkafka")
LIBRDKAFKA_LOG.addHandler(logging.NullHandler())

ENVIRONMENT_PREFIX = "DRIFTLINE_"
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
    erasures: str = Field(default="driftline.erasures.v1", description="Confirmations of erasures.")
    late: str = Field(default="driftline.events.v1.late", description="Events that came too late, with how late.")
    dead_letters: str = Field(
        default="driftline.events.v1.dlq",
        description="Events that could not be used, bytes unchanged, reason in the headers.",
    )
    changelog: str = Field(
        default="driftline.state.v1.changelog", description="The state of every user, by user; compacted."
    )
    partitions: int = Field(
        default=32,
        ge=1,
        le=10_000,
        description="Partitions of events, rekey, recommendations and changelog, which must be equal: 4 to 8 "
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
        "changelog",
    )
    @classmethod
    def _legal(cls, value: str) -> str:
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
        """Role (events, rekey, ...) -> the topic's name."""
        return {k: v for k, v in self if isinstance(v, str)}


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
    lists: Literal["chunk", "event"] = Field(
        default="chunk",
        description='"chunk": one list a user for the events that arrive together; "event": a list for each '
        "event, at its price.",
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
        description="A time further in the future than this is refused; up to it, taken as now.",
    )
    max_bytes: int = Field(default=1_000_000, ge=1, description="A larger event is refused unread.")
    mismatched_key: Literal["rekey", "dead_letter"] = Field(
        default="rekey",
        description='An event whose key is not its user: "rekey" sends it to the rekey topic under the right '
        'key, "dead_letter" refuses it.',
    )


class ModelSection(Section):
    """The model."""

    path: str = Field(default="", description="Folder of the artifact, as `driftline train` writes it.")


_STATE = StateSettings()


class StateSection(Section):
    """What is kept of a user; together at most about 2 KiB."""

    recent_items: int = Field(
        default=_STATE.recent_items,
        ge=1,
        le=10_000,
        description="Last interactions kept; the network's vector is rebuilt from them for a new model.",
    )
    max_counted_items: int = Field(
        default=_STATE.max_counted_items,
        ge=1,
        le=100_000,
        description="Items with a decayed count, at most; a shop that sells again wants more (256).",
    )
    max_categories: int = Field(
        default=_STATE.max_categories, ge=1, le=1000, description="Categories with a decayed interest, at most."
    )
    event_id_ring: int = Field(
        default=_STATE.event_id_ring,
        ge=1,
        le=100_000,
        description="Last event ids kept: an event sent twice within them counts once.",
    )
    session_gap_s: Seconds = Field(default=_STATE.session_gap_s, ge=1, description="A pause that ends a session.")
    category_half_life_s: Seconds = Field(
        default=_STATE.category_half_life_s, ge=1, description="Time in which a category's interest halves."
    )
    count_half_life_s: Seconds = Field(
        default=_STATE.count_half_life_s, ge=1, description="Time in which an item's count halves."
    )


class WeightsSection(Section):
    """What an event of each type adds to its user's interest in the item; below 0: against it."""

    impression: float = Field(default=DEFAULT_WEIGHTS["impression"], description="The item was shown.")
    view: float = Field(default=DEFAULT_WEIGHTS["view"], description="The item's page was opened.")
    click: float = Field(default=DEFAULT_WEIGHTS["click"], description="The item was clicked in a list.")
    add_to_cart: float = Field(default=DEFAULT_WEIGHTS["add_to_cart"], description="Put into the cart.")
    remove_from_cart: float = Field(default=DEFAULT_WEIGHTS["remove_from_cart"], description="Taken out of the cart.")
    purchase: float = Field(default=DEFAULT_WEIGHTS["purchase"], description="Bought; times the quantity.")
    like: float = Field(default=DEFAULT_WEIGHTS["like"], description="Said to be liked.")
    dislike: float = Field(default=DEFAULT_WEIGHTS["dislike"], description="Said to be disliked.")
    hide: float = Field(default=DEFAULT_WEIGHTS["hide"], description="Asked not to be shown again.")
    rating: float = Field(default=DEFAULT_WEIGHTS["rating"], description="Rated.")
    session_start: float = Field(default=DEFAULT_WEIGHTS["session_start"], description="A visit began; it has no item.")


_RANKING = RankingSettings()


class RankingSection(Section):
    """How a list is made. The weights are those of the log-linear blend, used where a model brings no learnt one."""

    list_size: int = Field(default=_RANKING.list_size, ge=1, le=1000, description="Items of a list.")
    exclude: Literal["seen", "session", "none"] = Field(
        default=_RANKING.exclude,
        description='Items left out of a list: "seen" all that the state remembers (films), "session" those of '
        'this visit (shops, which sell again), "none". What the user hid or disliked is left out always.',
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

    kafka: KafkaSection = KafkaSection()
    topics: TopicsSection = TopicsSection()
    worker: WorkerSection = WorkerSection()
    events: EventsSection = EventsSection()
    weights: WeightsSection = WeightsSection()
    state: StateSection = StateSection()
    ranking: RankingSection = RankingSection()
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

        return StateSettings(**self.state.model_dump())

    def ranking_settings(self) -> RankingSettings:
        """The ranking's own settings."""
        from model.ranking.settings import (
            RankingSettings,
        )  # late: model may load torch, which --help must not

        return RankingSettings(**self.ranking.model_dump())

    def event_weights(self) -> dict[str, float]:
        """Event type -> weight."""
        return dict(self.weights.model_dump())

    def shown(self) -> dict[str, dict[str, Any]]:
        """All values as plain data, secrets hidden: for printing."""
        shown: dict[str, dict[str, Any]] = self.model_dump(mode="json")
        properties: dict[str, str] = shown["kafka"]["properties"]
        shown["kafka"]["properties"] = {
            name: HIDDEN if _SECRET.search(name) else value for name, value in properties.items()
        }
        return shown

    def changed(self) -> list[tuple[str, Any]]:
        """("section.key", value as `shown`) of each setting that is not its default."""
        mine, default = self.shown(), Settings().shown()
        return [
            (f"{section}.{key}", value)
            for section, values in mine.items()
            for key, value in values.items()
            if value != default[section][key]
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
    environ = os.environ if environ is None else environ
    if config is None and environ.get(ENVIRONMENT_PREFIX + "CONFIG"):
        config = Path(environ[ENVIRONMENT_PREFIX + "CONFIG"])
    sources = [
        _Source(f"the file {config}", _from_file(config) if config else {}),
        _Source("the environment variable", _from_environment(environ), environment=True),
        _Source("the command line", _from_flags(overrides or {})),
    ]
    values: dict[str, dict[str, Any]] = {}
    for source in sources:
        _join(values, source.values)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        told = [_explain(detail, sources) for detail in error.errors(include_url=False)]
        raise SettingsError("\n".join(told)) from None


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
        assert isinstance(kind, type)
        assert issubclass(kind, Section)
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
        if not isinstance(content, dict):
            raise SettingsError(
                f"{section!r} in the file {path} stands outside a section. "
                f"Put it under one of {', '.join(f'[{name}]' for name, _ in sections())}."
            )
    return values


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """Values of the variables that name a setting; one that nearly does is only warned of.

    Only warned: Kubernetes itself sets DRIFTLINE_WORKER_PORT and the like for a service of that name.
    """
    known = {environment_name(section, key): (section, key) for section, key, _ in fields()}
    values: dict[str, Any] = {}
    for name, text in environ.items():
        if name in known:
            section, key = known[name]
            values.setdefault(section, {})[key] = _parsed(text) if key == "properties" else text
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
            key, _, rest = key.partition(".")
            value = _parsed(value) if key == "properties" and not rest else value
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
    """Lays `more` over `into`, tables key by key."""
    for key, value in more.items():
        if isinstance(value, Mapping):
            below = into.get(key)
            into[key] = dict(_dotted(below)) if key == "properties" and isinstance(below, dict) else below or {}
            if isinstance(into[key], dict):
                _join(into[key], dict(_dotted(value)) if key == "properties" else value)
                continue
        into[key] = value


def _explain(detail: ErrorDetails, sources: list[_Source]) -> str:
    """One mistake as an operator needs it."""
    path = tuple(str(part) for part in detail["loc"])
    name = ".".join(path)
    given = next((told for source in reversed(sources) if (told := source.told(path))), "the defaults")
    if detail["type"] == "extra_forbidden":
        known = [n for n, _ in sections()] if len(path) == 1 else list(dict(sections())[path[0]].model_fields)
        near = difflib.get_close_matches(path[-1], known, 1, cutoff=0.5)
        kind = "section" if len(path) == 1 else "setting"
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}."
        return f"unknown {kind} {name!r} (given by {given}): {hint}"
    problem = detail["msg"].removeprefix("Value error, ")
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
    named = {int: "a whole number", float: "a number", str: "text", Path: "a path"}
    words = next((told for known, told in named.items() if kind is known), "a table of texts")
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
        "# DRIFTLINE_SECTION_KEY, that over the file, the file over these defaults.",
    ]
    return "\n".join(head) + "\n\n" + settings_as_toml(Settings().shown(), commented=True)


def settings_as_toml(shown: Mapping[str, Mapping[str, Any]], *, commented: bool = False) -> str:
    """A settings file with these values (`Settings.shown`); `commented`: with each one's meaning and limits."""
    parts: list[str] = []
    for section, kind in sections():
        if commented:
            parts.append(f"# {(kind.__doc__ or '').strip()}")
        parts.append(f"[{section}]")
        for key, field in kind.model_fields.items():
            if commented:
                told = f"{field.description} Allowed: {allowed(field)}."
                parts += [f"# {line}" for line in textwrap.wrap(told, 106)]
            parts.append(f"{key} = {_toml(shown[section][key])}")
        parts.append("")
    return "\n".join(parts)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{key}" = {_toml(item)}' for key, item in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)  # of texts, numbers and truth values, TOML is as JSON


if __name__ == "__main__":
    Path(__file__).parent.parent.joinpath("deploy", "config.toml").write_text(config_toml(), encoding="utf-8")
