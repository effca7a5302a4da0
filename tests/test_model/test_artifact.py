import hashlib
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import model.artifact as artifact_module
from model.artifact import (
    ARRAYS,
    ITEMS,
    MANIFEST,
    NETWORK,
    Artifact,
    artifact_from_network,
    load_artifact,
    save_artifact,
    untrained_artifact,
)
from model.errors import ArtifactError
from model.interest_net import InterestNet, NetSettings, script

ITEM_IDS = [f"item-{k}" for k in range(30)]


def tiny() -> Artifact:
    return untrained_artifact(ITEM_IDS, ["a", "b", "c"] * 10, dim=8, hidden=12, rules=4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_artifact(tmp_path / "model", tiny())
    return tmp_path / "model"


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest as a careful forger would: its digest fits again."""
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    manifest.pop("sha256")
    manifest["sha256"] = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(manifest))


def replace_file(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)

    def change(manifest: dict[str, Any]) -> None:
        manifest["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    rewrite(folder, change)


def test_load_gives_what_was_saved(tmp_path: Path) -> None:
    artifact = replace(tiny(), blend={"w1": np.ones((8, 3), np.float32)}, metrics={"hr@20": 0.5}, data={"events": 7})
    save_artifact(tmp_path / "model", artifact)
    loaded = load_artifact(tmp_path / "model")
    for name in ("name", "version", "checksum", "state_size", "dim", "settings", "metrics", "data"):
        assert getattr(loaded, name) == getattr(artifact, name)
    assert (loaded.item_ids, loaded.item_categories) == (ITEM_IDS, ["a", "b", "c"] * 10)
    for name in ("item_matrix", "item_bias", "rules_to", "rules_weight", "basket_to", "popularity"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(artifact, name))
    assert loaded.blend is not None
    np.testing.assert_array_equal(loaded.blend["w1"], np.ones((8, 3)))
    state, token = torch.rand(5, artifact.state_size), torch.tensor([0, 3, 29, 30, 30])
    after = loaded.network.step(state, token, torch.zeros(5, dtype=torch.long))
    assert torch.equal(after, artifact.network.step(state, token, torch.zeros(5, dtype=torch.long)))
    assert loaded.network.query(after).shape == (5, artifact.dim)


def test_sizes_are_those_of_the_state() -> None:
    artifact = untrained_artifact(["a", "b"])
    state = artifact.network.step(
        torch.zeros(1, artifact.state_size), torch.tensor([2]), torch.zeros(1, dtype=torch.long)
    )
    assert state.shape == (1, artifact.state_size)
    assert artifact.item_matrix.shape == (2, artifact.dim)


def test_domains_are_kept_and_may_be_missing(tmp_path: Path) -> None:
    domains = ["books", "", "films"] * 10
    save_artifact(tmp_path / "model", replace(tiny(), item_domains=domains))
    assert load_artifact(tmp_path / "model").item_domains == domains
    save_artifact(tmp_path / "model", tiny())  # as models of before there were domains
    assert "domains" not in json.loads((tmp_path / "model" / ITEMS).read_text())
    assert load_artifact(tmp_path / "model").item_domains == []


def test_same_arguments_same_model() -> None:
    one, two, other = (untrained_artifact(ITEM_IDS, seed=seed) for seed in (1, 1, 2))
    assert one.checksum == two.checksum != other.checksum
    np.testing.assert_array_equal(one.item_matrix, two.item_matrix)


def test_checksum_names_the_vectors_and_not_the_blend() -> None:
    artifact = tiny()
    reordered = untrained_artifact(ITEM_IDS[::-1], dim=8, hidden=12)
    assert reordered.checksum != artifact.checksum
    assert replace(artifact, blend={"w": np.ones(1, np.float32)}).checksum == artifact.checksum


def test_random_rules_are_distinct_and_never_the_item_itself() -> None:
    artifact = untrained_artifact(ITEM_IDS, rules=10)
    for item, row in enumerate(artifact.rules_to):
        assert len(set(row)) == 10
        assert item not in row
    assert (np.diff(artifact.rules_weight, axis=1) <= 0).all()


def test_saving_replaces_an_older_model_and_leaves_nothing_beside_it(folder: Path) -> None:
    newer = untrained_artifact(ITEM_IDS, seed=9)
    save_artifact(folder, newer)
    assert load_artifact(folder).checksum == newer.checksum
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_saving_does_not_replace_what_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "love.txt").write_text("dear")
    with pytest.raises(ArtifactError, match="nothing was written: choose an empty folder"):
        save_artifact(tmp_path / "letters", tiny())
    with pytest.raises(ArtifactError, match="is a file"):
        save_artifact(tmp_path / "letters" / "love.txt", tiny())
    assert (tmp_path / "letters" / "love.txt").read_text() == "dear"


def test_a_failed_save_keeps_the_older_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_artifact(folder).checksum

    def full(*args: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ArtifactError, match="no space left on device; check its space"):
        save_artifact(folder, untrained_artifact(ITEM_IDS, seed=9))
    assert load_artifact(folder).checksum == before
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"there is no model at .*driftline train"):
        load_artifact(tmp_path / "nowhere")


def test_a_file_for_a_folder(folder: Path) -> None:
    with pytest.raises(ArtifactError, match="give the model's folder"):
        load_artifact(folder / NETWORK)


def test_folder_without_manifest(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"is no model: it has no manifest\.json"):
        load_artifact(tmp_path)


@pytest.mark.parametrize("name", [NETWORK, ITEMS, ARRAYS])
def test_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match=f"{name} is missing; copy the folder again"):
        load_artifact(folder)


@pytest.mark.parametrize("name", [NETWORK, ITEMS, ARRAYS])
def test_truncated_file(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-10])
    with pytest.raises(ArtifactError, match=f"{name} has {len(content) - 10} of {len(content)} bytes"):
        load_artifact(folder)


@pytest.mark.parametrize("name", [NETWORK, ITEMS, ARRAYS])
def test_altered_file(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=f"{name} was altered"):
        load_artifact(folder)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[1, 2]", "is no Driftline model"),
        (b'{"model": "of another project"}', "is no Driftline model"),
    ],
)
def test_not_a_manifest(folder: Path, content: bytes, reason: str) -> None:
    (folder / MANIFEST).write_bytes(content)
    with pytest.raises(ArtifactError, match=reason):
        load_artifact(folder)


def test_altered_manifest(folder: Path) -> None:
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text.replace("untrained", "excellent"))
    with pytest.raises(ArtifactError, match="was altered"):
        load_artifact(folder)


def test_other_schema(folder: Path) -> None:
    rewrite(folder, lambda manifest: manifest.update(schema=99))
    with pytest.raises(ArtifactError, match="schema 99, this Driftline reads 1; train the model again"):
        load_artifact(folder)


def test_missing_field(folder: Path) -> None:
    rewrite(folder, lambda manifest: manifest.pop("version"))
    with pytest.raises(ArtifactError, match="'version' is missing"):
        load_artifact(folder)


@pytest.mark.parametrize("field", ["state_size", "dim"])
def test_size_that_is_not_the_networks(folder: Path, field: str) -> None:
    rewrite(folder, lambda manifest: manifest.update({field: manifest[field] + 1}))
    with pytest.raises(ArtifactError, match="train the model again"):
        load_artifact(folder)


def test_items_of_another_model(folder: Path) -> None:
    columns = {"ids": ITEM_IDS[:10], "names": ITEM_IDS[:10], "categories": [""] * 10}
    replace_file(folder, ITEMS, json.dumps(columns).encode())
    with pytest.raises(ArtifactError, match=r"item_matrix is float32\[30, 8\], not float32\[10, 8\]"):
        load_artifact(folder)


def test_network_of_another_model(folder: Path, tmp_path: Path) -> None:
    save_artifact(tmp_path / "other", untrained_artifact(ITEM_IDS, dim=8, hidden=12, seed=5))
    replace_file(folder, NETWORK, (tmp_path / "other" / NETWORK).read_bytes())
    with pytest.raises(ArtifactError, match="the checksum is not that of the network"):
        load_artifact(folder)


def test_network_that_is_none(folder: Path) -> None:
    replace_file(folder, NETWORK, b"not a network")
    with pytest.raises(ArtifactError, match="is no TorchScript module"):
        load_artifact(folder)


class Trap:
    """Says so when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (pytest.fail, ("a pickle was loaded",))


def test_pickled_arrays_are_not_loaded(folder: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "trap.npz", item_matrix=np.array([Trap()], object))
    replace_file(folder, ARRAYS, (tmp_path / "trap.npz").read_bytes())
    with pytest.raises(ArtifactError, match="no archive of plain arrays"):
        load_artifact(folder)


def test_a_pickled_network_is_not_loaded(folder: Path) -> None:
    replace_file(folder, NETWORK, pickle.dumps(Trap()))
    with pytest.raises(ArtifactError, match="no TorchScript module"):
        load_artifact(folder)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rules_to": np.full((30, 4), 30, np.int32)}, "points to an item that does not exist"),
        ({"item_bias": np.full(30, np.nan, np.float32)}, "not finite"),
        ({"item_bias": np.zeros(30)}, r"float64\[30\], not float32\[30\]"),
        ({"popularity": np.zeros(30, np.float32)}, "is not a distribution"),
        ({"item_ids": ["same"] * 30}, "repeated"),
        ({"item_domains": ["books"]}, "30 ids, 1 domains"),
        ({"item_domains": [1] * 30}, "no text"),
        ({"item_names": ["one"]}, "30 ids, 1 names"),
    ],
)
def test_an_artifact_that_contradicts_itself_is_not_saved(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ArtifactError, match=reason):
        save_artifact(tmp_path / "model", replace(tiny(), **change))
    assert list(tmp_path.iterdir()) == []


def test_no_items() -> None:
    with pytest.raises(ArtifactError, match="at least one item"):
        untrained_artifact([])


def test_a_step_that_is_not_the_sequence_is_not_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    network = InterestNet(NetSettings(items=5, dim=8, hidden=8))
    other = InterestNet(NetSettings(items=5, dim=8, hidden=8))
    monkeypatch.setattr(artifact_module, "script", lambda _: script(other))
    with pytest.raises(ArtifactError, match="away from its sequence"):
        artifact_from_network(network, name="x", item_ids=list("abcde"))
