"""A training that is killed goes on, to the same model."""

import io
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.artifact import Artifact, load_artifact, save_artifact
from model.errors import TrainingError
from model.training.checkpoint import FILE, Checkpoint, identity
from model.training.dataset import Dataset, dataset_from_arrays
from model.training.loop import train
from model.training.settings import Refit, TrainSettings
from model.training.source import in_memory
from state.weights import PURCHASE

SETTINGS = TrainSettings(
    dim=16, hidden=16, batch_events=128, epochs=6, warmup_steps=5, dropout=0.1, protocol="leave-one-out", patience=50
)


def a_log() -> Dataset:
    """Sixty users who walk through two hundred items, not always one by one."""
    draw = np.random.default_rng(0)
    user = np.repeat(np.arange(60), 20)
    item = (user * 3 + np.cumsum(draw.integers(1, 3, len(user)))) % 200
    return dataset_from_arrays(
        user=user.astype(np.int32),
        item=item.astype(np.int32),
        type=np.full(len(user), PURCHASE, np.uint8),
        time_ms=np.tile(np.arange(20) * 60_000, 60),
        user_ids=[f"u{k}" for k in range(60)],
        item_ids=[f"i{k}" for k in range(200)],
    )


class KilledError(Exception):
    """In the place of a kill."""


def train_with_kills(folder: Path, settings: TrainSettings, every_steps: int) -> tuple[Artifact, int]:
    """Train, and die every few steps; the model, and how often it died."""
    deaths = 0
    while True:
        looks = 0

        def clock() -> float:
            nonlocal looks
            looks += 1
            if looks > every_steps * 3:  # some looks a step
                raise KilledError
            return looks * 1.0

        try:
            return train(a_log(), settings, checkpoint=folder, checkpoint_every_s=0.0, clock=clock), deaths
        except KilledError:
            deaths += 1


@pytest.mark.parametrize("refit", ["counts", "all"])
def test_killed_again_and_again_it_makes_the_same_model(tmp_path: Path, refit: Refit) -> None:
    settings = replace(SETTINGS, refit_on_validation=refit)
    whole = train(a_log(), settings)
    pieces, deaths = train_with_kills(tmp_path / "checkpoint", settings, 7)
    assert deaths >= 5
    for name, artifact in (("whole", whole), ("pieces", pieces)):
        save_artifact(tmp_path / name, artifact)
    for name in ("network.pt", "arrays.npz", "items.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "pieces" / name).read_bytes()
    assert {**whole.metrics, "seconds": 0} == {**pieces.metrics, "seconds": 0}
    assert not (tmp_path / "checkpoint").exists()  # done: nothing to go on from


def test_kill_9(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    draw = np.random.default_rng(1)
    walks = [np.cumsum(draw.integers(1, 3, 30)) + user * 3 for user in range(200)]
    log.write_text("".join(f"{user} {' '.join(map(str, walk))}\n" for user, walk in enumerate(walks)))

    def command(out: Path) -> list[str]:
        flags = ["--out", str(out), "--epochs", "30", "--threads", "1", "--protocol", "leave-one-out", "-q"]
        return [sys.executable, "-m", "stream.cli", "train", str(log), *flags, "--checkpoint-every", "0.1"]

    out, checkpoint = tmp_path / "killed", tmp_path / "killed.checkpoint" / FILE
    with subprocess.Popen(command(out)) as process:
        deadline_s = time.monotonic() + 120
        while not checkpoint.exists() and time.monotonic() < deadline_s:
            assert process.poll() is None  # still at it
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    assert checkpoint.exists()
    assert not out.exists()
    subprocess.run(command(out), check=True, timeout=240)
    subprocess.run(command(tmp_path / "whole"), check=True, timeout=240)
    killed, whole = load_artifact(out), load_artifact(tmp_path / "whole")
    assert killed.checksum == whole.checksum
    assert killed.metrics["steps"] == whole.metrics["steps"] > 60
    # Not network.pt: two processes write the constants of TorchScript's modules in another order.
    for name in ("items.json", "arrays.npz"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    one, other = killed.network.state_dict(), whole.network.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not checkpoint.exists()


def test_more_time_goes_on_where_time_was_over(tmp_path: Path) -> None:
    ticks = iter(range(10**6))
    short = train(a_log(), replace(SETTINGS, max_seconds=20), checkpoint=tmp_path / "c", clock=lambda: next(ticks))
    assert short.settings["stopped"] == "time"
    longer = train(a_log(), SETTINGS, checkpoint=tmp_path / "c")
    assert longer.checksum == train(a_log(), SETTINGS).checksum
    assert longer.metrics["steps"] > short.metrics["steps"]


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    ticks = iter(range(10**6))
    train(a_log(), replace(SETTINGS, max_seconds=20), checkpoint=tmp_path / "c", clock=lambda: next(ticks))
    with pytest.raises(TrainingError, match=r"is of another training; go on with the data and settings .* remove it"):
        train(a_log(), replace(SETTINGS, seed=2), checkpoint=tmp_path / "c")
    data = a_log()
    with pytest.raises(TrainingError, match="is of another training"):
        train(data.select(data.user < 50), SETTINGS, checkpoint=tmp_path / "c")


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path)
    checkpoint.save({"step": 1}, "mine")
    assert checkpoint.load("mine") == {"step": 1, "identity": "mine"}
    whole = checkpoint.file.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"nonsense"):
        checkpoint.file.write_bytes(damaged)
        with pytest.raises(TrainingError, match=r"cannot be read .*; remove it to begin anew"):
            checkpoint.load("mine")


class _Runs:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("ran",)


def test_a_checkpoint_that_holds_code_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    buffer = io.BytesIO()
    torch.save({"identity": "mine", "at": _Runs()}, buffer)
    for content in (buffer.getvalue(), pickle.dumps(_Runs())):
        (tmp_path / FILE).write_bytes(content)
        with pytest.raises(TrainingError, match="cannot be read"):
            Checkpoint(tmp_path).load("mine")
    assert not (tmp_path / "ran").exists()


def test_saving_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = Checkpoint(tmp_path)
    checkpoint.save({"step": 1}, "mine")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match="No space left on device; check its space"):
        checkpoint.save({"step": 2}, "mine")
    assert checkpoint.load("mine") == {"step": 1, "identity": "mine"}


def test_only_what_is_of_a_checkpoint_is_removed(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "c")
    checkpoint.remove()  # nothing there
    checkpoint.save({}, "mine")
    (tmp_path / "c" / "thesis.txt").touch()
    checkpoint.remove()
    assert [file.name for file in (tmp_path / "c").iterdir()] == ["thesis.txt"]


def test_identity() -> None:
    source = in_memory(a_log(), SETTINGS)
    assert identity(SETTINGS, source) == identity(replace(SETTINGS, max_seconds=1.0), source)
    assert identity(SETTINGS, source) != identity(replace(SETTINGS, dim=32), source)
