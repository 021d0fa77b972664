"""A few hundred of the mutated files that `benchmarks/fuzz_files.py` makes by the thousand."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


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
