"""`driftline worker`: what it hands over, and what it refuses before the first event."""

import logging
from pathlib import Path
from typing import Any

import pytest

from model.artifact import save_artifact, untrained_artifact
from stream.brokers import claim_embedded, reach
from stream.settings import Settings


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model that was never trained."""
    folder = tmp_path / "model"
    save_artifact(folder, untrained_artifact([f"i{n}" for n in range(10)], ["c"] * 10, dim=8, hidden=8, seed=1))
    return folder


@pytest.mark.parametrize(("flag", "level"), [("", logging.INFO), ("-q", logging.WARNING), ("-vv", logging.DEBUG)])
def test_settings_and_log_level_reach_the_worker(
    driftline, monkeypatch: pytest.MonkeyPatch, flag: str, level: int
) -> None:
    given: list[Any] = []
    monkeypatch.setattr("stream.app.run_worker", lambda settings, **more: given.append((settings, more)))
    flags = ("--model", "m", "--web-port", "0", "--group", "g", "--data-dir", "d")
    assert driftline("worker", *flags, *([flag] if flag else [])).code == 0
    settings, more = given[0]
    assert (settings.model.path, settings.worker.web_port) == ("m", 0)
    assert (settings.worker.group, settings.worker.data_dir) == ("g", Path("d"))
    assert more == {"log_level": level}


def test_without_a_model(driftline, there: tuple[str, str]) -> None:
    done = driftline("worker", *there)
    assert done.code == 2
    assert "--model" in done.err


def test_a_model_that_is_damaged(driftline, there: tuple[str, str], model: Path, tmp_path: Path) -> None:
    (model / "network.pt").write_bytes(b"junk")
    done = driftline("worker", *there, "--model", str(model), "--data-dir", str(tmp_path / "data"))
    assert done.code == 2
    assert "Traceback" not in done.err


def test_a_second_worker_on_the_embedded_broker(
    driftline, there: tuple[str, str], settings: Settings, model: Path, tmp_path: Path
) -> None:
    with claim_embedded(reach(settings.client_properties())):
        done = driftline("worker", *there, "--model", str(model), "--data-dir", str(tmp_path / "data"))
    assert done.code == 2
    assert "another worker is on the embedded broker" in done.err


def test_topics_are_checked_first(driftline, there: tuple[str, str], model: Path) -> None:
    done = driftline("worker", *there, "--model", str(model), "--set", "topics.changelog=nothing")
    assert done.code == 2
    assert "missing topics: nothing (changelog)" in done.err
