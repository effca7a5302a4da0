"""`driftline doctor`: a table, and an exit code for scripts."""

import json

import pytest

from stream.doctor import Check


@pytest.fixture
def findings(monkeypatch: pytest.MonkeyPatch) -> list[Check]:
    """What the doctor finds."""
    found = [Check("a", "ok", "good"), Check("b", "warn", "[so so]", "Look at it.")]
    monkeypatch.setattr("stream.doctor.examine", lambda _: iter(found))
    return found


def test_table_and_code(driftline, findings: list[Check]) -> None:
    done = driftline("doctor")
    assert done.code == 0
    assert [line.split() for line in done.out.splitlines()][1:] == [
        ["a", "ok", "good"],
        ["b", "warn", "[so", "so]", "Look", "at", "it."],
    ]
    findings.append(Check("c", "fail", "bad", "Mend it."))
    assert driftline("doctor").code == 1


def test_json(driftline, findings: list[Check]) -> None:
    assert json.loads(driftline("doctor", "-o", "json").out)[0] == {
        "name": "a",
        "status": "ok",
        "found": "good",
        "todo": "",
    }


def test_a_wrong_setting_is_refused(driftline, findings: list[Check]) -> None:
    assert driftline("doctor", "--set", "topics.partitions=0").code == 2
