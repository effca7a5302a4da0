"""Writes deploy/constraints.txt: the versions installed here of all that Driftline needs, with every extra.

Run it in an environment where `pip install -e '.[baselines,bench,demo,dev,docker,plot]'` was done and the tests pass.
"""

import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
# What torch brings for GPUs: a machine without one can do without it.
GPU_ONLY = re.compile(r"nvidia-|cuda-|triton$")


def normal(name: str) -> str:
    """A distribution's name as the index has it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(requirements: list[str]) -> dict[str, str]:
    """Name -> installed version, of the requirements and all that they require here."""
    found: dict[str, str] = {}
    open_ones = [(Requirement(text), frozenset[str]()) for text in requirements]
    while open_ones:
        requirement, extras = open_ones.pop()
        name = normal(requirement.name)
        markers = [{"extra": extra} for extra in extras or {""}]
        if requirement.marker is not None and not any(requirement.marker.evaluate(marker) for marker in markers):
            continue
        if GPU_ONLY.match(name) or (name in found and not requirement.extras):
            continue
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            sys.exit(f"{name} is not installed: pip install -e '.[baselines,bench,demo,dev,docker,plot]'")
        found[name] = installed.version.partition("+")[0]  # a local build's mark is no version elsewhere
        wanted = frozenset(requirement.extras)
        open_ones += [(Requirement(text), wanted) for text in installed.requires or ()]
    return found


def main() -> None:
    """Writes the file."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    versions = needed([*project["dependencies"], *(text for extra in extras for text in extra)])
    lines = ["# Written by deploy/constraints.py: what the tests ran with."]
    lines += [f"{name}=={version}" for name, version in sorted(versions.items())]
    (ROOT / "deploy" / "constraints.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
