"""deploy/: what can be held without a Docker engine."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import typer.main
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from stream.cli import load
from stream.settings import environment_name, fields

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
ENVIRONMENT = {environment_name(section, key) for section, key, _ in fields()}


def is_command(words: list[str]) -> bool:
    """Whether `driftline WORDS` is a command, with options that it has."""
    command: Any = typer.main.get_command(load())
    while words and getattr(command, "commands", None):
        command = command.commands.get(words[0])
        words = words[1:]
        if command is None:
            return False
    flags = {flag for parameter in command.params for flag in parameter.opts}
    return not getattr(command, "commands", None) and all(w in flags for w in words if w.startswith("-"))


@pytest.mark.parametrize("name", OURS)
def test_every_service_runs_a_command_of_ours(name: str) -> None:
    assert is_command(OURS[name]["command"])


@pytest.mark.parametrize("name", OURS)
def test_every_variable_of_a_service_is_a_setting(name: str) -> None:
    assert OURS[name]["environment"].keys() <= ENVIRONMENT


def test_services_wait_for_what_they_need() -> None:
    assert SERVICES["topics"]["depends_on"]["kafka"]["condition"] == "service_healthy"
    assert SERVICES["worker"]["depends_on"]["topics"]["condition"] == "service_completed_successfully"
    for name in ("kafka", "worker"):
        assert "test" in SERVICES[name]["healthcheck"]


def test_kafka_is_the_version_that_the_tests_run() -> None:
    pom = ElementTree.parse(DEPLOY / "kafka" / "pom.xml")
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{pom.findtext('.//{*}kafka.version')}"


def test_dockerfile() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    words = [line.split(maxsplit=1) for line in lines if line and not line.startswith(("#", " "))]
    last = dict(words)  # of each instruction the last one, which is the one in force
    assert last["ENTRYPOINT"] == '["driftline"]'
    assert is_command(yaml.safe_load(last["CMD"]))
    assert last["USER"] not in ("root", "0")
    assert set(re.findall(r"\b(DRIFTLINE_[A-Z_]+)=", "\n".join(lines))) <= ENVIRONMENT
    for _, copied in (pair for pair in words if pair[0] == "COPY" and "--from" not in pair[1]):
        for source in copied.split()[:-1]:
            assert (ROOT / source).exists(), f"the Dockerfile copies {source}, which is not there"


class TestConstraints:
    LINES = (DEPLOY / "constraints.txt").read_text().splitlines()[1:]

    def test_are_versions_only(self) -> None:
        for line in self.LINES:
            assert re.fullmatch(r"[a-z0-9-]+==[A-Za-z0-9.!]+", line), line

    def test_hold_every_dependency_within_its_bounds(self) -> None:
        pinned = {name: Version(number) for name, number in (line.split("==") for line in self.LINES)}
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        extras = project["optional-dependencies"].values()
        for text in [*project["dependencies"], *(text for extra in extras for text in extra)]:
            requirement = Requirement(text)
            name = re.sub(r"[-_.]+", "-", requirement.name).lower()
            assert name in pinned, f"{name}: run python deploy/constraints.py"
            assert pinned[name] in requirement.specifier

    def test_leave_out_what_only_gpus_need(self) -> None:
        assert not [line for line in self.LINES if line.startswith(("nvidia", "cuda", "triton"))]

    def test_have_the_client_that_is_tested(self) -> None:
        assert f"confluent-kafka=={version('confluent-kafka')}" in self.LINES


def test_no_address_of_a_registry_in_deploy() -> None:
    allowed = ("http://maven.apache.org/POM", "http://www.w3.org/", "http://127.0.0.1")
    for path in [ROOT / "docker-compose.yml", *(p for p in DEPLOY.rglob("*") if p.is_file())]:
        for address in re.findall(r"https?://\S+", path.read_text()):
            assert address.startswith(allowed), f"{path}: {address}"
