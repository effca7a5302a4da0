"""The generated schemas are current, are schemas, and agree with the decoders."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from model.ranking.lists import Interest, RankedItem, Reason
from stream.contract import schemas
from stream.contract.control import ERROR_HEADERS, ErasureConfirmed, ModelPointer, user_hash
from stream.contract.event import Event, EventDecoder, EventItem, Experiment
from stream.contract.item import Item
from stream.contract.recommendation import ModelRef, Recommendation, Source
from stream.errors import EventError
from stream.settings import Settings

NOW_MS = 1_767_323_045_123
AT = "2026-01-02T03:04:05.123Z"
EXAMPLES: list[tuple[str, msgspec.Struct]] = [
    ("event", Event(event_id="e", event_type="view", occurred_at=NOW_MS, user_id="u", item_id="i")),
    (
        "event",
        Event(
            event_id="e",
            event_type="purchase",
            occurred_at=AT,
            anonymous_id="a",
            items=(EventItem("i", 1, 2.5, "C", 0), "j"),
            experiment=Experiment("x", "b"),
            properties={"a": [1]},
        ),
    ),
    ("event", Event(event_id="e", event_type="session_start", occurred_at=1.5e9, user_id="u")),
    ("event", Event(event_type="view", occurred_at=NOW_MS, user_id="u", item_id="i", tenant="t", domain="d")),
    ("item", Item(item_id="i")),
    ("item", Item(item_id="i", name="n", category=("a", "b"), price=1, expires_at=AT, available=False)),
    (
        "recommendation",
        Recommendation(
            recommendation_id="3-7-ab",
            user_id="u",
            generated_at=AT,
            trigger_event_id="e",
            events_applied=1,
            source=Source("t", 3, 7),
            model=ModelRef("m", "1"),
            strategy="popular",
            interests=[Interest("C", 1.0, 1.0, "steady", 1_767_000_000, 1_767_323_045)],
            items=[RankedItem("i", 1, 0.5, [Reason("popular")])],
            experiment=Experiment("x", "b"),
        ),
    ),
    ("model_pointer", ModelPointer(name="m", version="1", uri="u", sha256="a" * 64, activated_at=AT)),
    (
        "erasure_confirmed",
        ErasureConfirmed(user_hash=user_hash(b"u"), erased_at=AT, source=Source("t", 0, 1), requested_at=AT),
    ),
]


def validator(name: str) -> Draft202012Validator:
    text = (schemas.SCHEMAS_DIR / f"{name}.json").read_text("utf-8")
    return Draft202012Validator(json.loads(text))


def test_files_are_current() -> None:
    assert schemas.stale(schemas.generated()) == [], "run python -m stream.contract.schemas"


@pytest.mark.parametrize("name", schemas.MESSAGES)
def test_is_a_schema_and_describes_every_member(name: str) -> None:
    schema = schemas.json_schema(name)
    Draft202012Validator.check_schema(schema)
    for member, described in schema["properties"].items():
        assert "description" in described or "$ref" in described, member


@pytest.mark.parametrize(("name", "message"), EXAMPLES)
def test_what_we_write_is_valid(name: str, message: msgspec.Struct) -> None:
    validator(name).validate(msgspec.json.decode(msgspec.json.encode(message)))


def test_every_message_has_an_example() -> None:
    assert {name for name, _ in EXAMPLES} == set(schemas.MESSAGES)


OWN = {"event_id": "e", "event_type": "view", "occurred_at": AT, "user_id": "u", "item_id": "i"}


@pytest.mark.parametrize(
    "changes",
    [
        {"event_type": "search"},
        {"occurred_at": None},
        {"user_id": None},
        {"user_id": ""},
        {"item_id": None},
        {"item_id": "", "items": []},
        {"item_id": {}},
        {"quantity": "abc"},
        {"quantity": -1},
        {"items": [{"price": 1}]},
        {"user_id": "u" * 513},
    ],
)
def test_schema_and_decoder_refuse_alike(changes: dict[str, Any]) -> None:
    payload = {name: value for name, value in {**OWN, **changes}.items() if value is not None}
    with pytest.raises(ValidationError):
        validator("event").validate(payload)
    with pytest.raises(EventError):
        EventDecoder().decode(msgspec.json.encode(payload), now_ms=NOW_MS)


def test_asyncapi_refers_to_what_is_there() -> None:
    document = yaml.safe_load(schemas.ASYNCAPI_FILE.read_text("utf-8"))
    assert document["asyncapi"] == "3.0.0"
    references = list(_references(document))
    assert len(references) > 15
    for reference in references:
        if reference.startswith("#/"):
            place: Any = document
            for step in reference[2:].split("/"):
                place = place[step]
        else:
            assert (schemas.ASYNCAPI_FILE.parent / reference).resolve().is_file()
    payloads = {m["payload"].get("$ref", "").rpartition("/")[2] for m in document["components"]["messages"].values()}
    assert payloads - {""} == {f"{name}.json" for name in schemas.MESSAGES}
    assert document["components"]["messages"]["dead_letter"]["headers"]["required"] == list(ERROR_HEADERS)


def _references(place: Any) -> Any:
    if isinstance(place, dict):
        for name, value in place.items():
            if name == "$ref":
                yield value
            else:
                yield from _references(value)


def test_topic_names_are_the_defaults_of_the_settings() -> None:
    topics = Settings().topics
    addresses = {name: channel["address"] for name, channel in schemas.asyncapi()["channels"].items()}
    assert addresses == {
        "events": topics.events,
        "recommendations": topics.recommendations,
        "items": topics.items,
        "models": topics.models,
        "erasures": topics.erasures,
        "late": topics.late,
        "deadLetters": topics.dead_letters,
    }


def test_check_finds_what_is_not_current(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(schemas, "SCHEMAS_DIR", tmp_path / "schemas")
    monkeypatch.setattr(schemas, "ASYNCAPI_FILE", tmp_path / "deploy" / "asyncapi.yaml")
    assert schemas.main(["--check"]) == 1
    assert schemas.main([]) == 0
    assert schemas.main(["--check"]) == 0
    (tmp_path / "schemas" / "event.json").write_text("{}")
    (tmp_path / "schemas" / "gone.json").write_text("{}")
    capsys.readouterr()
    assert schemas.main(["--check"]) == 1
    told = capsys.readouterr().err
    assert "event.json is not current" in told
    assert "gone.json is not current" in told
    assert schemas.main([]) == 0
    assert not (tmp_path / "schemas" / "gone.json").exists()
