"""Events in by `produce`, out by `tail` and `get`, on the embedded broker."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import Producer

from model.ranking.lists import PARTS, Interest, RankedItem, Reason
from stream.contract.control import LATE_BY_MS
from stream.contract.recommendation import (
    ModelRef,
    Recommendation,
    Source,
    decode_recommendation,
    encode_recommendation,
)
from stream.engine.partitioner import partition_of
from stream.pseudonym import KEY_VARIABLE, Pseudonyms
from stream.reading import Start, read
from stream.settings import Settings

AT_MS = 1_767_323_045_123


def events_file(folder: Path, count: int = 6, junk: str = "") -> Path:
    path = folder / "events.jsonl"
    lines = [
        json.dumps(
            {
                "event_id": f"e{n}",
                "event_type": "view",
                "occurred_at": AT_MS + n,
                "user_id": f"u{n % 3}",
                "item_id": f"i{n}",
            }
        )
        for n in range(count)
    ]
    path.write_text("\n".join(lines) + "\n" + junk)
    return path


def send(settings: Settings, topic: str, records: list[tuple[str, bytes | None, dict[str, bytes], int]]) -> None:
    """Records (key, value, headers, time in ms) by murmur2, as the worker sends them."""
    producer = Producer(settings.client_properties({"partitioner": "murmur2_random"}))
    for key, value, headers, at_ms in records:
        producer.produce(topic, value, key, headers=headers, timestamp=at_ms)  # type: ignore[arg-type]  # a dict is taken
    assert producer.flush(10) == 0


def a_list(user: str, *items: str, offset: int = 7, interests: Sequence[Interest] = ()) -> bytes:
    return encode_recommendation(
        Recommendation(
            recommendation_id=f"0-{offset}-x",
            user_id=user,
            generated_at="2026-01-02T03:04:05.000Z",
            trigger_event_id="e1",
            events_applied=3,
            source=Source("t", 0, offset),
            model=ModelRef("glr", "1"),
            strategy="hybrid",
            interests=list(interests),
            items=[
                RankedItem(item, rank, 1.0 / rank, [Reason(type="because_of", item_id="m", item_name="Milk")])
                for rank, item in enumerate(items, 1)
            ],
        )
    )


class TestProduce:
    def test_then_tail(self, driftline, there: tuple[str, str], tmp_path: Path) -> None:
        done = driftline("produce", events_file(tmp_path), *there)
        assert done.code == 0
        assert done.err.startswith("6 events sent to driftline.events.v1")
        tailed = driftline("tail", "events", "--from", "earliest", "--no-follow", "-o", "json", *there)
        records = [json.loads(line) for line in tailed.out.splitlines()]
        assert sorted(record["value"]["item_id"] for record in records) == [f"i{n}" for n in range(6)]
        assert all(record["key"] == record["value"]["user_id"] for record in records)
        assert all(record["partition"] == partition_of(record["key"].encode(), 6) for record in records)

    def test_bad_rows_are_told_and_end_it_with_1(self, driftline, there: tuple[str, str], tmp_path: Path) -> None:
        path = events_file(tmp_path, 3, junk="nonsense\n{}\n")
        done = driftline("produce", path, *there)
        assert done.code == 1
        assert "not sent: events.jsonl:4: " in done.err
        assert "not sent: events.jsonl:5: " in done.err
        assert "3 events sent" in done.err
        assert "2 rows left out" in done.err
        assert driftline("produce", path, "--skip-bad", *there).code == 0

    def test_a_file_that_is_wrong_throughout_does_not_flood(
        self, driftline, there: tuple[str, str], tmp_path: Path
    ) -> None:
        done = driftline("produce", events_file(tmp_path, 0, junk="x\n" * 500), *there)
        assert done.code == 1
        assert len(done.err.splitlines()) < 30
        assert "500 rows left out" in done.err

    def test_a_published_layout(self, driftline, there: tuple[str, str], tmp_path: Path) -> None:
        path = tmp_path / "u.data"
        path.write_text("196\t242\t3\t881250949\n")
        assert driftline("produce", path, *there).code == 2
        assert driftline("produce", path, "--preset", "auto", *there).code == 0
        [record] = json.loads(
            f"[{driftline('tail', 'events', '--from', 'earliest', '-n', '1', '-o', 'json', *there).out}]"
        )
        assert (record["key"], record["value"]["event_type"], record["value"]["value"]) == ("196", "rating", 3)
        wrong = driftline("produce", path, "--preset", "movies", *there)
        assert (wrong.code, "there is no preset movies" in wrong.err) == (2, True)

    def test_short_names_of_fields(self, driftline, there: tuple[str, str], tmp_path: Path) -> None:
        path = tmp_path / "till.csv"
        path.write_text(f"who,what,when\n7,milk,{AT_MS}\n")
        names = [part for pair in ("user=who", "item=what", "time=when") for part in ("--map", pair)]
        assert driftline("produce", path, *names, "--event-type", "view", *there).code == 0

    def test_a_table_of_other_names(self, driftline, there: tuple[str, str], tmp_path: Path) -> None:
        path = tmp_path / "till.csv"
        path.write_text(f"customer,product,occurred_at\n007,milk,{AT_MS}\n")
        names = ("--map", "user_id=customer", "--map", "item_id=product", "--event-type", "purchase")
        assert driftline("produce", path, *names, *there).code == 0
        out = driftline("tail", "events", "--from", "earliest", "-n", "1", "-o", "yaml", *there).out
        record = yaml.safe_load(out)
        assert record["key"] == "007"
        assert record["value"]["event_id"] == "till.csv:2"

    def test_with_pseudonyms_no_id_reaches_kafka_and_the_real_one_finds_the_events(
        self, driftline, there: tuple[str, str], settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(KEY_VARIABLE, "a-key-of-our-own-0123")
        file = tmp_path / "segment.jsonl"
        foreign = {"messageId": "m1", "event": "Product Viewed", "timestamp": "2026-01-02T03:04:05Z"}
        jane = {"userId": "jane@example.org", "traits": {"email": "jane@example.org"}}
        file.write_text(json.dumps({**foreign, **jane, "item_id": "i1"}))
        assert driftline("produce", str(file), "--pseudonyms", *there).code == 0
        everything = driftline("tail", "events", "--from", "earliest", "--no-follow", *there, "-o", "json").out
        assert "jane" not in everything
        name = Pseudonyms("a-key-of-our-own-0123").of("jane@example.org")
        assert json.loads(everything)["key"] == json.loads(everything)["value"]["user_id"] == name
        look = ("tail", "events", "--from", "earliest", "--no-follow", *there, "-o", "json", "--user")
        by_setting = ("--set", "events.pseudonyms=producer")
        assert json.loads(driftline(*look, "jane@example.org", *by_setting).out)["key"] == name
        assert driftline(*look, "someone else", *by_setting).out == ""
        assert json.loads(driftline(*look, name).out)["key"] == name
        send(settings, settings.topics.recommendations, [(name, a_list(name, "i5"), {}, AT_MS)])
        found = driftline("get", "jane@example.org", *by_setting, *there, "-o", "json")
        assert json.loads(found.out)["user_id"] == name

    def test_items(self, driftline, there: tuple[str, str], settings: Settings, tmp_path: Path) -> None:
        path = tmp_path / "shop.csv"
        path.write_text("item_id,category,price,deleted\n007,Kitchen > Cups,9.5,\n8,,,true\n9,,much,\n")
        done = driftline("produce", "--items", path, *there)
        assert done.code == 1
        assert "not sent: shop.csv:4: " in done.err
        assert "2 items sent to driftline.items.v1" in done.err
        assert driftline("produce", "--items", path, "--skip-bad", "-n", "2", *there).code == 0
        found = {m.key(): m.value() for m in read(settings, settings.topics.items, Start(), follow=False)}
        assert found == {b"007": b'{"item_id":"007","category":["Kitchen","Cups"],"price":9.5}', b"8": None}

    @pytest.mark.parametrize("flags", [["--event-type", "view"], ["--pseudonyms"]])
    def test_items_have_no_users_and_types(
        self, driftline, there: tuple[str, str], tmp_path: Path, flags: list[str]
    ) -> None:
        done = driftline("produce", "--items", tmp_path / "a.csv", *flags, *there)
        assert done.code == 2
        assert "are for events" in done.err

    def test_pseudonyms_twice_are_refused(self, driftline, there: tuple[str, str], tmp_path: Path) -> None:
        outcome = driftline(
            "produce", str(events_file(tmp_path)), "--pseudonyms", "--set", "events.pseudonyms=worker", *there
        )
        assert outcome.code == 2
        assert "hash the hashes" in outcome.err

    def test_pseudonyms_need_a_key(
        self, driftline, there: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv(KEY_VARIABLE, raising=False)
        outcome = driftline("produce", str(events_file(tmp_path)), "--pseudonyms", *there)
        assert outcome.code == 2
        assert KEY_VARIABLE in outcome.err

    def test_quietly(self, driftline, there: tuple[str, str], tmp_path: Path) -> None:
        done = driftline("produce", events_file(tmp_path), "-q", *there)
        assert (done.code, done.out, done.err) == (0, "", "")


class TestTail:
    @pytest.mark.parametrize(
        ("start", "items"),
        [
            ("earliest", ["old", "mid", "new"]),
            ("latest", []),
            (f"ts={AT_MS + 1000}", ["mid", "new"]),
            ("ts=2026-01-02T03:04:06.123Z", ["mid", "new"]),
            ("last=1h", []),
        ],
    )
    def test_from(self, driftline, there: tuple[str, str], settings: Settings, start: str, items: list[str]) -> None:
        records: list[tuple[str, bytes | None, dict[str, bytes], int]] = [
            ("u", json.dumps({"item_id": name}).encode(), {}, AT_MS + 1000 * n)
            for n, name in enumerate(("old", "mid", "new"))
        ]
        send(settings, settings.topics.events, records)
        done = driftline("tail", "events", "--from", start, "--no-follow", "-o", "json", *there)
        assert done.code == 0
        assert [json.loads(line)["value"]["item_id"] for line in done.out.splitlines()] == items

    @pytest.mark.parametrize("wrong", ["yesterday", "ts=noon", "last=1y", "last="])
    def test_a_place_that_is_none(self, driftline, there: tuple[str, str], wrong: str) -> None:
        done = driftline("tail", "--from", wrong, *there)
        assert done.code == 2
        assert f"--from {wrong}" in done.err

    def test_lists_and_erasures_in_words(self, driftline, there: tuple[str, str], settings: Settings) -> None:
        topic = settings.topics.recommendations
        send(settings, topic, [("u1", a_list("u1", "a", "b"), {}, AT_MS), ("u1", None, {}, AT_MS)])
        lines = driftline("tail", "--from", "earliest", "--no-follow", *there).out.splitlines()
        assert lines[0].endswith("u1  hybrid, 3 events: a, b")
        assert lines[1].endswith("u1  (erased)")

    def test_dead_letters_with_their_reason_and_any_bytes(
        self, driftline, there: tuple[str, str], settings: Settings
    ) -> None:
        headers = {"__streams.errors.message": b"JSON is malformed"}
        send(settings, settings.topics.dead_letters, [("k", b"\xff\xfe{", headers, AT_MS)])
        flags = ("dlq", "--from", "earliest", "--no-follow", *there)
        assert driftline("tail", *flags).out.rstrip().endswith("k  JSON is malformed")
        assert json.loads(driftline("tail", *flags, "-o", "json").out)["value"] == "\\xff\\xfe{"

    def test_late_events_with_how_late(self, driftline, there: tuple[str, str], settings: Settings) -> None:
        headers = {"__streams.errors.message": b"the event of ... is 7200.000 s behind", LATE_BY_MS: b"7200000"}
        send(settings, settings.topics.late, [("u1", b'{"event_id": "e1"}', headers, AT_MS)])
        flags = ("late", "--from", "earliest", "--no-follow", *there)
        assert driftline("tail", *flags).out.rstrip().endswith("u1  the event of ... is 7200.000 s behind")
        (line,) = driftline("tail", *flags, "-o", "json").out.splitlines()
        assert json.loads(line)["headers"][LATE_BY_MS] == "7200000"
        assert json.loads(line)["value"] == {"event_id": "e1"}

    def test_what_others_wrote_does_not_steer_the_terminal(
        self, driftline, there: tuple[str, str], settings: Settings
    ) -> None:
        send(
            settings, settings.topics.dead_letters, [("\x1b[2J", b"x", {"__streams.errors.message": b"\x9b2J"}, AT_MS)]
        )
        out = driftline("tail", "dlq", "--from", "earliest", "--no-follow", *there).out
        assert "\x1b" not in out
        assert r"\x1b[2J" in out
        send(settings, settings.topics.recommendations, [("u", a_list("u", "[red]\x1b[2J"), {}, AT_MS)])
        out = driftline("get", "u", *there).out
        assert r"[red]\x1b[2J" in out

    def test_without_the_topic(self, driftline, there: tuple[str, str]) -> None:
        done = driftline("tail", *there, "--set", "topics.recommendations=nothing")
        assert done.code == 2
        assert "topic nothing is missing. Create it: driftline topics create" in done.err


class TestGet:
    def test_the_last_list_of_the_user(self, driftline, there: tuple[str, str], settings: Settings) -> None:
        lists: list[tuple[str, bytes | None, dict[str, bytes], int]] = [
            (f"u{n % 4}", a_list(f"u{n % 4}", f"i{n}", "x", offset=n), {}, AT_MS) for n in range(40)
        ]
        send(settings, settings.topics.recommendations, lists)
        done = driftline("get", "u1", *there)
        assert done.code == 0
        assert "because of Milk" in done.out
        assert "i37" in done.out
        assert "from 3 events" in done.err
        data: dict[str, Any] = json.loads(driftline("get", "u2", "-n", "1", "-o", "json", *there).out)
        assert data["user_id"] == "u2"
        assert [item["item_id"] for item in data["items"]] == ["i38"]
        assert yaml.safe_load(driftline("get", "u3", "-o", "yaml", *there).out)["source"]["offset"] == 39

    def test_the_parts_of_its_scores(self, driftline, there: tuple[str, str], settings: Settings) -> None:
        made = decode_recommendation(a_list("u", "milk"))
        made.parts, made.items[0].parts = PARTS, [3.1, 0.0, 0.5, -0.15]
        lists = [("u", encode_recommendation(made), {}, AT_MS), ("v", a_list("v", "milk"), {}, AT_MS)]
        send(settings, settings.topics.recommendations, lists)
        assert "network 3.1, personal 0.5, popularity -0.15" in driftline("get", "u", *there).out
        assert "parts" not in driftline("get", "v", *there).out

    def test_the_interests_behind_it_with_their_kind_where_one_is_no_category(
        self, driftline, there: tuple[str, str], settings: Settings
    ) -> None:
        cups = Interest("Cups", 3.0, 0.75, "rising", AT_MS // 1000, AT_MS // 1000)
        acme = Interest("Acme", 1.0, 0.25, "steady", AT_MS // 1000, AT_MS // 1000, "brand")
        lists = [("u", a_list("u", "a", interests=[cups]), {}, AT_MS), ("v", a_list("v", "a"), {}, AT_MS)]
        send(settings, settings.topics.recommendations, [*lists, ("w", a_list("w", interests=[cups, acme]), {}, AT_MS)])
        head, row = driftline("get", "u", "--interests", *there).out.splitlines()
        assert head.split() == ["interest", "weight", "share", "trend", "first", "seen", "last", "seen"]
        assert row.split()[:4] == ["Cups", "3", "75%", "rising"]
        assert driftline("get", "v", "--interests", *there).out == ""
        head, _, row = driftline("get", "w", "--interests", *there).out.splitlines()
        assert head.split()[:3] == ["interest", "kind", "weight"]
        assert row.split()[:4] == ["Acme", "brand", "1", "25%"]
        found = json.loads(driftline("get", "w", "--interests", "-o", "json", *there).out)
        assert [(one["name"], one.get("kind")) for one in found] == [("Cups", None), ("Acme", "brand")]

    def test_of_a_tenants_user(self, driftline, there: tuple[str, str], settings: Settings) -> None:
        send(
            settings,
            settings.topics.recommendations,
            [("u", a_list("u", "ours"), {}, AT_MS), ("acme\x1fu", a_list("u", "theirs"), {}, AT_MS)],
        )
        for flags, item in (((), "ours"), (("--tenant", "acme"), "theirs")):
            data: dict[str, Any] = json.loads(driftline("get", "u", *flags, "-o", "json", *there).out)
            assert [each["item_id"] for each in data["items"]] == [item]
        done = driftline("get", "u", "--tenant", "bolt", *there)
        assert done.code == 1
        assert "no list for user 'u' of tenant 'bolt'" in done.err

    def test_a_user_without_one(self, driftline, there: tuple[str, str]) -> None:
        done = driftline("get", "nobody", *there)
        assert done.code == 1
        assert "no list for user 'nobody'" in done.err
        assert "driftline tail events" in done.err

    def test_a_user_who_was_erased(self, driftline, there: tuple[str, str], settings: Settings) -> None:
        send(settings, settings.topics.recommendations, [("u", a_list("u", "a"), {}, AT_MS), ("u", None, {}, AT_MS)])
        done = driftline("get", "u", *there)
        assert done.code == 1
        assert "it was erased" in done.err
