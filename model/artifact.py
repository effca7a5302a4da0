"""A trained model as a folder, and the one seam to TorchScript.

    <folder>/manifest.json   format, schema, name, version, settings, metrics, sha256 and size of every file
             network.pt      TorchScript: step(state, token, type) -> state, query(state) -> interest
             items.json      ids, names, categories and domains of the items; an item's index is its token
             arrays.npz      item matrix, rules, popularity, the learnt blend

Nothing in a folder is trusted before its digest was checked, nothing is unpickled (`allow_pickle=False`;
TorchScript has its own restricted reader), and all that a worker would index with is checked against the
catalogue's size, so that a damaged model is refused before the first event and not by the one that happens to
touch the damage.

Letters in shapes: n items, S floats of state, D width of a query, R rules kept per item.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import torch

from model.errors import ArtifactError
from model.interest_net import STEP_TOLERANCE, InterestNet, NetSettings, script, step_error

FORMAT = "driftline-model"
SCHEMA_VERSION = 1
"""Raised when a folder's meaning changes; a worker loads its own schema only."""

MANIFEST = "manifest.json"
NETWORK = "network.pt"
ITEMS = "items.json"
ARRAYS = "arrays.npz"
_BLEND = "blend."

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Artifact:
    """A model in memory, ready to serve. Arrays are read-only by convention: all users share them."""

    name: str
    version: str
    checksum: int
    """32 bits, never 0: names the meaning of a user's vector (network weights and token order). A vector made
    by another checksum must be rebuilt. Refitting the blend alone changes `version`, not this."""
    network: torch.jit.ScriptModule
    """step(state f32[B, S], token i64[B], type i64[B]) -> f32[B, S]; query(state f32[B, S]) -> f32[B, D]."""
    state_size: int
    """S. A new user's state is S zeros."""
    dim: int
    """D."""
    item_ids: list[str]
    """An item's token is its index here; token n is the start of a session."""
    item_names: list[str]
    item_categories: list[str]
    item_matrix: F32
    """f32[n, D]; the network's score of all items is query @ item_matrix.T + item_bias."""
    item_bias: F32
    """f32[n]."""
    rules_to: I32
    """i32[n, R]: the items that follow item x, best first, padded with -1."""
    rules_weight: F32
    """f32[n, R]: count(x -> y) / (pop_x^.5 * pop_y^.35), 0 where padded."""
    basket_to: I32
    """i32[n, R]: the items found in one session with x, best first, padded with -1."""
    basket_weight: F32
    """f32[n, R], normalised as rules_weight."""
    popularity: F32
    """f32[n]: each item's decayed share of the events at the end of training; sums to 1."""
    item_domains: list[str] = field(default_factory=list)
    """The domain of each item, '' for none; empty where none has one, as in a model made before there were any."""
    blend: dict[str, npt.NDArray[Any]] | None = None
    """Weights of the learnt ranker; None: the ranker uses the weights of its settings."""
    settings: dict[str, Any] = field(default_factory=dict)
    """How the model was made: JSON values only."""
    metrics: dict[str, float] = field(default_factory=dict)
    created_at: str = ""
    """ISO 8601, UTC; '' until saved."""
    data: dict[str, Any] = field(default_factory=dict)
    """Fingerprint of the training data: rows, users, items, first and last time, sha256."""

    @property
    def items(self) -> int:
        """n: items in the catalogue, and the token that starts a session."""
        return len(self.item_ids)


def vector_checksum(network: torch.nn.Module, item_ids: Sequence[str]) -> int:
    """32 bits over all that a user's vector depends on: the network's weights and the items' order."""
    digest = hashlib.sha256(f"{FORMAT} {SCHEMA_VERSION}\n".encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    digest.update(json.dumps(list(item_ids)).encode())
    return int.from_bytes(digest.digest()[:4], "little") or 1


def artifact_from_network(
    network: InterestNet,
    *,
    name: str,
    item_ids: Sequence[str],
    item_names: Sequence[str] | None = None,
    item_categories: Sequence[str] | None = None,
    item_domains: Sequence[str] | None = None,
    rules: tuple[I32, F32] | None = None,
    basket: tuple[I32, F32] | None = None,
    popularity: F32 | None = None,
    settings: dict[str, Any] | None = None,
    metrics: dict[str, float] | None = None,
    data: dict[str, Any] | None = None,
) -> Artifact:
    """Script a network and put it together with what was counted. What is left out is empty or uniform.

    Raises ArtifactError when the scripted step does not do what the network does over a sequence.
    """
    n = len(item_ids)
    scripted = script(network)
    error = step_error(network, scripted)
    if not error <= STEP_TOLERANCE:
        raise ArtifactError(
            f"the network's step is {error:.2g} away from its sequence, {STEP_TOLERANCE:g} is allowed: lists would not "
            "be those it was trained for. Train again, with a smaller learning_rate if numbers grew without bound."
        )
    checksum = vector_checksum(scripted, item_ids)
    none = (np.full((n, 1), -1, np.int32), np.zeros((n, 1), np.float32))
    rules_to, rules_weight = rules or none
    basket_to, basket_weight = basket or none
    return Artifact(
        name=name,
        version=f"{checksum:08x}",
        checksum=checksum,
        network=scripted,
        state_size=network.state_size,
        dim=network.embedding.embedding_dim,
        item_ids=list(item_ids),
        item_names=list(item_names if item_names is not None else item_ids),
        item_categories=list(item_categories if item_categories is not None else [""] * n),
        item_domains=list(item_domains) if item_domains is not None and any(item_domains) else [],
        item_matrix=network.item_matrix().detach().numpy().astype(np.float32),
        item_bias=network.item_bias.detach().numpy().astype(np.float32),
        rules_to=rules_to,
        rules_weight=rules_weight,
        basket_to=basket_to,
        basket_weight=basket_weight,
        popularity=popularity if popularity is not None else np.full(n, 1.0 / n, np.float32),
        settings=dict(settings or {}),
        metrics=dict(metrics or {}),
        data=dict(data or {}),
    )


def untrained_artifact(
    item_ids: Sequence[str],
    item_categories: Sequence[str] | None = None,
    *,
    dim: int = 64,
    hidden: int = 96,
    seed: int = 0,
    rules: int = 0,
) -> Artifact:
    """A model with random weights, the same for the same arguments: for a bench, a test, a first worker.

    With `rules` > 0 every item gets that many random rules of both kinds, so that a bench pays for them; with
    0 there are none, and popularity is uniform: its lists mean nothing.
    """
    n = len(item_ids)
    if n == 0:
        raise ArtifactError("a model needs at least one item; give the ids of the catalogue.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = InterestNet(NetSettings(items=n, dim=dim, hidden=hidden))
    draw = np.random.default_rng(seed)
    pairs: list[tuple[I32, F32] | None] = [None, None]
    if rules > 0:
        for kind in range(2):
            # A start and a step coprime to n give distinct neighbours, never the item itself.
            to = (np.arange(n)[:, None] + 1 + draw.permutation(n - 1)[: min(rules, n - 1)]) % n
            weight = -np.sort(-draw.random((n, to.shape[1])), axis=1)
            pairs[kind] = (to.astype(np.int32), weight.astype(np.float32))
    return artifact_from_network(
        network,
        name="untrained",
        item_ids=item_ids,
        item_categories=item_categories,
        rules=pairs[0],
        basket=pairs[1],
        settings={"dim": dim, "hidden": hidden, "seed": seed, "trained": False},
    )


# --- saving ---------------------------------------------------------------------------------------


def save_artifact(path: str | Path, artifact: Artifact) -> None:
    """Write the folder whole or not at all: into a temporary one beside it, to disk, then renamed.

    An older model at `path` is replaced.  Raises ArtifactError when `path` holds something else, when the
    artifact contradicts itself, or when the disk refuses.
    """
    target = Path(path)
    if target.exists() and not target.is_dir():
        raise ArtifactError(f"{target} is a file; a model is a folder: choose another --out.")
    if target.is_dir() and any(target.iterdir()) and not (target / MANIFEST).exists():
        raise ArtifactError(f"{target} holds files that are no model; nothing was written: choose an empty folder.")
    _check(artifact, where=f"model {artifact.name!r}")
    files = {
        NETWORK: _network_bytes(artifact),
        ITEMS: _items_bytes(artifact),
        ARRAYS: _arrays_bytes(artifact),
    }
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "schema": SCHEMA_VERSION,
        "name": artifact.name,
        "version": artifact.version,
        "checksum": artifact.checksum,
        "created_at": artifact.created_at or datetime.now(UTC).isoformat(timespec="seconds"),
        "items": artifact.items,
        "state_size": artifact.state_size,
        "dim": artifact.dim,
        "settings": artifact.settings,
        "metrics": artifact.metrics,
        "data": artifact.data,
        "files": {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in files.items()
        },
    }
    manifest["sha256"] = _manifest_digest(manifest)
    files[MANIFEST] = json.dumps(manifest, indent=2).encode()
    try:
        _write_folder(target, files)
    except OSError as error:
        raise ArtifactError(
            f"the model could not be written to {target}: {error}; check its space and rights."
        ) from error


def _network_bytes(artifact: Artifact) -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(artifact.network, buffer)
    return buffer.getvalue()


def _items_bytes(artifact: Artifact) -> bytes:
    columns = {"ids": artifact.item_ids, "names": artifact.item_names, "categories": artifact.item_categories}
    if artifact.item_domains:
        columns["domains"] = artifact.item_domains
    return json.dumps(columns, ensure_ascii=False).encode()


def _arrays_bytes(artifact: Artifact) -> bytes:
    arrays: dict[str, npt.NDArray[Any]] = {name: getattr(artifact, name) for name in _ARRAY_NAMES}
    if artifact.blend is not None:
        arrays.update({_BLEND + name: array for name, array in artifact.blend.items()})
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for its own flags
    return buffer.getvalue()


def _manifest_digest(manifest: dict[str, Any]) -> str:
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _write_folder(target: Path, files: dict[str, bytes]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        for name, content in files.items():
            with (temporary / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        temporary.chmod(0o755)  # mkdtemp makes it 0o700; a worker may run as another user
        if target.exists():
            # A folder cannot be renamed over a full one: the old model steps aside first.
            aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
            target.rename(aside / "model")
            temporary.rename(target)
            shutil.rmtree(aside)
        else:
            temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # gone already when all went well


# --- loading --------------------------------------------------------------------------------------

_AGAIN = "copy the folder again, or make it again with `driftline train`."


def load_artifact(path: str | Path) -> Artifact:
    """Read and check a folder that save_artifact wrote.

    Raises ArtifactError, saying what to do, when the folder or a file is missing, truncated or altered, is no
    model, is of another schema, or when its parts do not fit each other.
    """
    folder = Path(path)
    manifest = _read_manifest(folder)
    contents: dict[str, bytes] = {}
    for name in (NETWORK, ITEMS, ARRAYS):
        contents[name] = _read_checked(folder, name, manifest["files"].get(name))
    where = f"model {folder}"
    arrays = _load_arrays(contents[ARRAYS], where)
    blend = {name.removeprefix(_BLEND): array for name, array in arrays.items() if name.startswith(_BLEND)}
    columns = _load_items(contents[ITEMS], where)
    network = _load_network(contents[NETWORK], where)
    try:
        artifact = Artifact(
            name=manifest["name"],
            version=manifest["version"],
            checksum=manifest["checksum"],
            network=network,
            state_size=manifest["state_size"],
            dim=manifest["dim"],
            item_ids=columns["ids"],
            item_names=columns["names"],
            item_categories=columns["categories"],
            item_domains=columns.get("domains", []),
            blend=blend or None,
            settings=manifest["settings"],
            metrics=manifest["metrics"],
            created_at=manifest["created_at"],
            data=manifest["data"],
            **{name: arrays[name] for name in _ARRAY_NAMES},
        )
    except KeyError as error:
        raise ArtifactError(f"{where}: {error.args[0]!r} is missing; {_AGAIN}") from error
    _check(artifact, where)
    return artifact


def _read_manifest(folder: Path) -> dict[str, Any]:
    if not folder.exists():
        raise ArtifactError(f"there is no model at {folder}; make one with `driftline train`, or correct model.path.")
    if not folder.is_dir():
        raise ArtifactError(f"{folder} is a file; give the model's folder, the one with {MANIFEST} in it.")
    try:
        raw = (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        raise ArtifactError(
            f"{folder} is no model: it has no {MANIFEST}; give the folder that `driftline train` wrote."
        ) from None
    except OSError as error:
        raise ArtifactError(f"{folder / MANIFEST} cannot be read: {error}; check its rights.") from error
    try:
        manifest = json.loads(raw)
    except ValueError as error:
        raise ArtifactError(f"{folder / MANIFEST} is not JSON ({error}); {_AGAIN}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ArtifactError(f"{folder} is no Driftline model (format is not {FORMAT!r}); {_AGAIN}")
    if manifest.get("schema") != SCHEMA_VERSION:
        raise ArtifactError(
            f"{folder} has schema {manifest.get('schema')!r}, this Driftline reads {SCHEMA_VERSION}; "
            "train the model again with this version, or run the version that made it."
        )
    if manifest.get("sha256") != _manifest_digest(manifest) or not isinstance(manifest.get("files"), dict):
        raise ArtifactError(f"{folder / MANIFEST} was altered after it was written; {_AGAIN}")
    return manifest


def _read_checked(folder: Path, name: str, expected: dict[str, Any] | None) -> bytes:
    file = folder / name
    if expected is None:
        raise ArtifactError(f"{folder / MANIFEST} does not list {name}; {_AGAIN}")
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise ArtifactError(f"{file} is missing; {_AGAIN}") from None
    except OSError as error:
        raise ArtifactError(f"{file} cannot be read: {error}; check its rights.") from error
    if len(content) != expected["bytes"]:
        raise ArtifactError(f"{file} has {len(content)} of {expected['bytes']} bytes; {_AGAIN}")
    if hashlib.sha256(content).hexdigest() != expected["sha256"]:
        raise ArtifactError(f"{file} was altered: its sha256 is not the manifest's; {_AGAIN}")
    return content


def _load_arrays(content: bytes, where: str) -> dict[str, npt.NDArray[Any]]:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:
        # A foreign zip can fail in any of numpy's and zipfile's ways; all mean the same to the operator.
        raise ArtifactError(f"{where}: {ARRAYS} is no archive of plain arrays ({error}); {_AGAIN}") from error


def _load_items(content: bytes, where: str) -> dict[str, list[str]]:
    try:
        columns = json.loads(content)
    except ValueError as error:
        raise ArtifactError(f"{where}: {ITEMS} is not JSON ({error}); {_AGAIN}") from error
    if not isinstance(columns, dict) or not all(isinstance(column, list) for column in columns.values()):
        raise ArtifactError(f"{where}: {ITEMS} does not hold lists of ids, names and categories; {_AGAIN}")
    return columns


def _load_network(content: bytes, where: str) -> torch.jit.ScriptModule:
    try:
        network = torch.jit.load(  # type: ignore[no-untyped-call]  # torch leaves it untyped
            io.BytesIO(content), map_location="cpu"
        )
    except (RuntimeError, ValueError, torch.jit.Error) as error:
        first_line = str(error).strip().splitlines()[0]
        raise ArtifactError(f"{where}: {NETWORK} is no TorchScript module ({first_line}); {_AGAIN}") from error
    assert isinstance(network, torch.jit.ScriptModule)
    return network.eval()


# --- checking -------------------------------------------------------------------------------------

_ARRAY_NAMES = (
    "item_matrix",
    "item_bias",
    "rules_to",
    "rules_weight",
    "basket_to",
    "basket_weight",
    "popularity",
)


def _check(artifact: Artifact, where: str) -> None:
    """Refuse an artifact whose parts do not fit each other."""

    def refuse(reason: str) -> NoReturn:
        raise ArtifactError(f"{where}: {reason}; train the model again.")

    n, d = artifact.items, artifact.dim
    ids = artifact.item_ids
    if n == 0 or len(artifact.item_names) != n or len(artifact.item_categories) != n:
        refuse(f"{n} ids, {len(artifact.item_names)} names, {len(artifact.item_categories)} categories")
    if not all(isinstance(text, str) for text in (*ids, *artifact.item_names, *artifact.item_categories)):
        refuse("an item's id, name or category is no text")
    if artifact.item_domains and (
        len(artifact.item_domains) != n or not all(isinstance(text, str) for text in artifact.item_domains)
    ):
        refuse(f"{n} ids, {len(artifact.item_domains)} domains, or one that is no text")
    if "" in ids or len(set(ids)) != n:
        refuse("item ids are empty or repeated")
    rules, baskets = artifact.rules_to.shape[-1], artifact.basket_to.shape[-1]
    for name, shape, kind in (
        ("item_matrix", (n, d), "f4"),
        ("item_bias", (n,), "f4"),
        ("rules_to", (n, rules), "i4"),
        ("rules_weight", (n, rules), "f4"),
        ("basket_to", (n, baskets), "i4"),
        ("basket_weight", (n, baskets), "f4"),
        ("popularity", (n,), "f4"),
    ):
        array = getattr(artifact, name)
        if array.shape != shape or array.dtype != np.dtype(kind):
            refuse(f"{name} is {array.dtype}{list(array.shape)}, not {np.dtype(kind)}{list(shape)}")
        if kind == "i4" and (array.min() < -1 or array.max() >= n):
            refuse(f"{name} points to an item that does not exist")
        if kind == "f4" and not np.isfinite(array).all():
            refuse(f"{name} holds a number that is not finite")
    if artifact.popularity.min() < 0.0 or abs(float(artifact.popularity.sum()) - 1.0) > 1e-3:
        refuse("popularity is not a distribution")
    _check_network(artifact, refuse)


def _check_network(artifact: Artifact, refuse: Any) -> None:
    """Run the network once on both ends of the token range and compare what comes out with the manifest."""
    network, size = artifact.network, artifact.state_size
    if not hasattr(network, "step") or not hasattr(network, "query"):
        refuse(f"{NETWORK} has no methods step and query")
    token = torch.tensor([0, artifact.items])  # 2
    state = torch.zeros(2, size)  # 2 S
    try:
        with torch.no_grad():
            after = network.step(state, token, torch.zeros_like(token))  # 2 S
            query = network.query(after)  # 2 D
    except (RuntimeError, IndexError, torch.jit.Error) as error:
        last_line = str(error).strip().splitlines()[-1]
        refuse(f"the network does not take {artifact.items} items and states of {size} ({last_line})")
    if tuple(after.shape) != (2, size) or tuple(query.shape) != (2, artifact.dim):
        refuse(
            f"the network's state is {list(after.shape)} and its query {list(query.shape)}, "
            f"not [2, {size}] and [2, {artifact.dim}]"
        )
    if not bool(torch.isfinite(after).all()):
        refuse("the network gives a number that is not finite")
    if vector_checksum(network, artifact.item_ids) != artifact.checksum:
        refuse("the checksum is not that of the network and the items")
