from __future__ import annotations

import json

from stream.replay.report import headline, tables
from tests.test_stream.test_replay.comparisons import made_report


def test_sentences_tell_the_verdict_and_name_the_boosted_category() -> None:
    lines = headline(made_report())
    assert lines[0] == "Verdict: b is better."
    assert "ndcg@10 is" in lines[1]
    assert lines[2] == "200 users have a list in both; 1 in a only, 0 in b only."
    assert any(line.startswith("Most raised category: c3, from ") for line in lines)


def test_without_a_difference_none_is_told() -> None:
    report = made_report(boost=0.0)
    assert not [line for line in headline(report) if line.startswith("Most ")]
    assert "0.00% of the lists changed" in " ".join(headline(report))


def test_without_users_in_common_the_sentences_say_so() -> None:
    assert headline(made_report(users=0))[-1] == "No user has a list in both: 1 have one in a, 0 in b."


def test_tables_hold_all_kinds_and_no_empty_one() -> None:
    found = dict(tables(made_report(), rows=3))
    assert list(found) == [
        "Quality of lists, event by event",
        "Likeness of lists, over users",
        "Share of places by category",
        "Share of places by item",
        "Share of places by reason",
        "Share of places by interest",
        "Share of places by strategy",
        "Users whose lists changed most",
    ]
    assert found["Share of places by category"][0]["name"] == "c3"
    assert found["Share of places by category"][0][""] == "raised"
    assert len(found["Share of places by item"]) == 3
    assert list(dict(tables(made_report(users=0)))) == ["Quality of lists, event by event"]


def test_the_document_is_json_without_nan() -> None:
    document = made_report().document()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["diff"]["categories"][0]["verdict"] == "raised"
    empty = made_report(users=0).document()
    assert json.loads(json.dumps(empty, allow_nan=False))["quality"]["metrics"][0]["a"] is None
