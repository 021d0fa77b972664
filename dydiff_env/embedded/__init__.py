"""The world and policy that ship with the package: a small PointMaze, so that everything runs at once, offline."""

from __future__ import annotations

import json
from pathlib import Path

from dydiff_env.data.dataset import DatasetSpec

FOLDER = Path(__file__).parent
WORLD = FOLDER / "world"
POLICY = FOLDER / "policy.pt"
NAME = "demo"  # what the policy is called wherever a checkpoint may be named


def spec() -> DatasetSpec:
    """Spaces and source environment of the embedded world."""
    return DatasetSpec.from_json(json.dumps(json.loads((WORLD / "world.json").read_text())["spec"]))


def suits(other: DatasetSpec) -> bool:
    """Whether the embedded world has the spaces of ``other``."""
    own = spec()
    return (own.observation_space, own.action_space) == (other.observation_space, other.action_space)
