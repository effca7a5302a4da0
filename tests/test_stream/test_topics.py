"""Creating and checking topics, on the embedded broker and on a real Kafka."""

import uuid
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from stream.brokers import EmbeddedBroker, reach
from stream.errors import BrokerError, TopicError
from stream.settings import Settings, load_settings
from stream.topics import check_topics, create_topics, topic_specs


def settings_for(bootstrap_servers: str, prefix: str = "", **more: Any) -> Settings:
    """Settings with topics of their own (`prefix`), so that tests can share a broker."""
    names = {f"topics.{role}": prefix + name for role, name in Settings().topics.names().items()}
    return load_settings(None, {"kafka.bootstrap_servers": bootstrap_servers, **names, **more}, {})


class TestSpecs:
    def test_all_of_a_user_is_on_one_partition_number(self) -> None:
        counts = {spec.role: spec.partitions for spec in topic_specs(Settings())}
        assert {counts[role] for role in ("events", "rekey", "recommendations", "changelog")} == {32}

    def test_compacted_are_those_of_which_the_last_value_counts(self) -> None:
        compacted = {spec.role for spec in topic_specs(Settings()) if spec.compacted}
        assert compacted == {"recommendations", "items", "models", "erasures", "changelog"}


class TestEmbedded:
    def test_missing_topics_are_all_named_with_what_to_do(self, embedded: EmbeddedBroker) -> None:
        settings = settings_for(embedded.bootstrap_servers)
        with pytest.raises(TopicError) as caught:
            check_topics(settings)
        assert all(name in str(caught.value) for name in settings.topics.names().values())
        assert "driftline topics create" in str(caught.value)

    def test_create_then_check(self, embedded: EmbeddedBroker) -> None:
        settings = settings_for(embedded.bootstrap_servers, **{"topics.partitions": 6})
        assert {topic.done for topic in create_topics(settings)} == {"created"}
        assert check_topics(settings).partitions[settings.topics.changelog] == 6
        assert {topic.done for topic in create_topics(settings)} == {"there"}

    @pytest.mark.parametrize("role", ["recommendations", "changelog", "rekey"])
    def test_unequal_partition_counts(self, embedded: EmbeddedBroker, role: str) -> None:
        settings = settings_for(embedded.bootstrap_servers)
        embedded.create_topic(settings.topics.names()[role], 3)
        create_topics(settings)
        with pytest.raises(TopicError, match=rf"\({role}\) has 3 partitions, .* has 32: they must be equal.*--set"):
            check_topics(settings)

    def test_new_topics_follow_the_events_topic(self, embedded: EmbeddedBroker) -> None:
        settings = settings_for(embedded.bootstrap_servers)
        embedded.create_topic(settings.topics.events, 5)
        create_topics(settings)
        assert check_topics(settings).partitions[settings.topics.changelog] == 5

    def test_from_another_process_only_its_own_partition_count(
        self, embedded: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(EmbeddedBroker, "_running", {})  # as seen from elsewhere
        with pytest.raises(TopicError, match=r"4 partitions .* to have 32.*topics\.partitions=4"):
            create_topics(settings_for(embedded.bootstrap_servers))
        settings = settings_for(embedded.bootstrap_servers, **{"topics.partitions": 4})
        create_topics(settings)
        assert check_topics(settings).partitions[settings.topics.events] == 4


@pytest.mark.kafka
class TestKafka:
    @pytest.fixture
    def settings(self, kafka: str) -> Settings:
        return settings_for(kafka, f"topics-test-{uuid.uuid4().hex[:8]}.", **{"topics.partitions": 3})

    @pytest.fixture
    def admin(self, kafka: str) -> AdminClient:
        return AdminClient({"bootstrap.servers": kafka})

    def test_create_then_check(self, settings: Settings, admin: AdminClient) -> None:
        assert {topic.done for topic in create_topics(settings)} == {"created"}
        assert check_topics(settings).partitions[settings.topics.events] == 3
        resource = ConfigResource(ResourceType.TOPIC, settings.topics.changelog)
        config = admin.describe_configs([resource])[resource].result()
        assert config["cleanup.policy"].value == "compact"
        assert config["segment.bytes"].value == str(64 * 1024 * 1024)
        assert config["min.insync.replicas"].value == "1"
        assert {topic.done for topic in create_topics(settings)} == {"there"}

    def test_a_changelog_that_is_not_compacted_is_told_and_mended(self, settings: Settings, admin: AdminClient) -> None:
        admin.create_topics([NewTopic(settings.topics.changelog, 3, 1)])[settings.topics.changelog].result()
        create_topics(settings)
        with pytest.raises(TopicError, match=r"\(changelog\) is not only compacted.*driftline topics create --mend"):
            check_topics(settings)
        assert "mended" in {topic.done for topic in create_topics(settings, mend=True)}
        check_topics(settings)

    def test_mending_leaves_durability_as_its_owner_has_it(self, settings: Settings, admin: AdminClient) -> None:
        name = settings.topics.changelog
        admin.create_topics([NewTopic(name, 3, 1, config={"min.insync.replicas": "2"})])[name].result()
        create_topics(settings, mend=True)
        resource = ConfigResource(ResourceType.TOPIC, name)
        assert admin.describe_configs([resource])[resource].result()["min.insync.replicas"].value == "2"

    def test_too_many_copies_for_the_brokers(self, settings: Settings) -> None:
        with pytest.raises(BrokerError, match=r"did not create topic .*replication_factor"):
            create_topics(settings_for(settings.kafka.bootstrap_servers, "x.", **{"topics.replication_factor": 3}))
        assert not any(name.startswith("x.") for name in reach(settings.client_properties()).partitions)
