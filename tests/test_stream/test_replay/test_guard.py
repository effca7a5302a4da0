"""What is refused, and with whose permission it is not."""

import pytest

from stream.errors import RefusedError
from stream.replay.guard import check
from stream.settings import load_settings

LIVE = load_settings(overrides={"topics.features": "driftline.features.v1", "worker.group": "shop"}, environ={})
ROLES = LIVE.topics.names()
STATE = {"changelog", "recommendations", "late", "dead_letters", "erasures", "features"}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("into", ["shadow", "files", "", "Live", "live", "state"])
def test_live_topics(into: str, role: str) -> None:
    allowed = (into == "live" and role == "events") or (into == "state" and role in STATE)
    if allowed:
        check(LIVE, into, writes=["mine", ROLES[role]])
        return
    with pytest.raises(RefusedError, match=rf"would write to {ROLES[role]} \(topics.{role}\)"):
        check(LIVE, into, writes=["mine", ROLES[role]])


@pytest.mark.parametrize("into", ["shadow", "files", "live"])
def test_the_live_group(into: str) -> None:
    with pytest.raises(RefusedError, match=r"offsets of shop \(worker.group\).*--into state"):
        check(LIVE, into, commits=["driftline-replay-1", "shop"])
    check(LIVE, into, commits=["driftline-replay-1", "driftline"])
    check(LIVE, "state", commits=["shop"])


def test_what_to_do_is_said() -> None:
    with pytest.raises(RefusedError, match="say so with --into live, or give it a topic of its own"):
        check(LIVE, "shadow", writes=[ROLES["events"]])
    with pytest.raises(RefusedError, match="live: give it a topic of its own"):
        check(LIVE, "shadow", writes=[ROLES["items"]])


def test_a_loop() -> None:
    events = ROLES["events"]
    with pytest.raises(RefusedError, match=f"read what it writes to {events}"):
        check(LIVE, "live", writes=[events], reads=["old", events])
    check(LIVE, "live", writes=[events], reads=["old"])
    check(LIVE, "shadow", writes=["mine"], reads=[events])


def test_two_kinds_on_one_topic() -> None:
    with pytest.raises(RefusedError, match="two kinds of records to mine"):
        check(LIVE, "shadow", writes=["mine", "other", "mine"])
