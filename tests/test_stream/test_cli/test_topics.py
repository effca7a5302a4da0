"""`driftline topics`, on the embedded broker and on a real Kafka."""

import json
import uuid

import pytest

from stream.brokers import EmbeddedBroker
from stream.settings import Settings


def test_check_says_what_to_do_and_create_does_it(driftline, embedded: EmbeddedBroker) -> None:
    there = ("--bootstrap-servers", embedded.bootstrap_servers)
    missing = driftline("topics", "check", *there)
    assert missing.code == 2
    assert "missing topics: driftline.events.v1 (events), " in missing.err
    assert missing.err.rstrip().endswith("Create them: driftline topics create")
    created = driftline("topics", "create", "-o", "json", *there)
    assert {row["done"] for row in json.loads(created.out)} == {"created"}
    assert driftline("topics", "check", *there).code == 0


@pytest.mark.kafka
def test_on_a_real_kafka(driftline, kafka: str) -> None:
    prefix = f"cli-test-{uuid.uuid4().hex[:8]}."
    names = [
        flag for role, name in Settings().topics.names().items() for flag in ("--set", f"topics.{role}={prefix}{name}")
    ]
    flags = ("--bootstrap-servers", kafka, "--set", "topics.partitions=2", *names)
    assert driftline("topics", "create", *flags).code == 0
    assert driftline("topics", "check", *flags).code == 0
    again = driftline("topics", "create", "--mend", "-o", "json", *flags)
    done = {row["role"]: row["done"] for row in json.loads(again.out)}
    assert (done["changelog"], done["events"]) == ("mended", "there")
