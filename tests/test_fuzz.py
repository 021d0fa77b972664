"""A few hundred of the mutated files that `benchmarks/fuzz_files.py` makes by the thousand."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import gymnasium as gym
import pytest

from dydiff_env.data.environment import environment_spec
from dydiff_env.errors import DyDiffError


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    path = Path(__file__).parent.parent / "benchmarks" / "fuzz_files.py"
    found = importlib.util.spec_from_file_location("fuzz_files", path)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules["fuzz_files"] = module
    found.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        ("world_json", 80),
        ("safetensors_header", 60),
        ("baseline_json", 40),
        ("agent_checkpoint", 80),
        ("minari_metadata", 60),
        ("planted", 40),
    ],
)
def test_mutated_files_load_or_are_refused(fuzz: ModuleType, kind: str, inputs: int) -> None:
    found = fuzz.run_kind(kind, inputs, seed=77)
    assert found["first_unexpected"] == {}
    assert found.get("works", 0) + found["refused"] == inputs and found["refused"] > 0


@pytest.mark.parametrize("odd", [0.5, [1, 2], "x"])
def test_an_environment_with_odd_arguments_is_refused(odd: object) -> None:
    """Found by the mutations above."""
    told = {**json.loads(gym.spec("Hopper-v5").to_json()), "kwargs": odd}
    with pytest.raises(DyDiffError, match="environment cannot be read"):
        environment_spec(json.dumps(told))
