"""What is shipped is whole: names, files, examples, and the code in the pages."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
import pytest

import dydiff_env
from dydiff_env.cli.app import COMMANDS, load

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_public_names_are_there_and_cost_nothing_until_used() -> None:
    code = (
        "import sys, dydiff_env; assert 'torch' not in sys.modules; dydiff_env.World; dydiff_env.load_dataset"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert {"World", "load_dataset", "load_policy", "Trajectories"} <= set(dir(dydiff_env))
    with pytest.raises(AttributeError, match="no attribute 'Word'"):
        _ = dydiff_env.Word


def test_the_environment_is_registered_on_import() -> None:
    assert "DyDiffDream-v0" in gym.registry


def test_every_package_on_disk_is_listed_for_the_wheel() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    listed = set(ast.literal_eval(re.search(r"^packages = (\[.*?\])", text, re.S | re.M)[1]))
    folders = {
        "dydiff_env": ROOT / "dydiff_env",
        "dydiff_env.agents": ROOT / "agents",
        "dydiff_env.cli": ROOT / "cli",
    }
    on_disk = {
        ".".join([name, *file.parent.relative_to(folder).parts])
        for name, folder in folders.items()
        for file in folder.rglob("__init__.py")
    }
    assert listed == on_disk


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_real_files_commands_and_options(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\((?!http|#)([^)#]+)", text):
        assert (page.parent / target).exists(), target
    for block in re.findall(r"```python\n(.*?)```", text, re.S):
        ast.parse(block)
    for line in re.findall(r"^dydiff-env .*", "\n".join(re.findall(r"```bash\n(.*?)```", text, re.S)), re.M):
        words = line.split("#")[0].split()
        assert words[1] in COMMANDS, line
        known = {option for parameter in load(words[1]).params for option in parameter.opts}
        for word in words[2:]:
            assert not word.startswith("--") or word in known, line


def test_examples_run_small(tiny_world_path: Path, tmp_path: Path, capsys: Any) -> None:
    example("export_your_policy").main(str(tiny_world_path), str(tmp_path / "syn"), batch=16)
    assert len(example("rank_policies").main(str(tiny_world_path), ["random"], starts=4, horizon=8)) == 1
    example("train_in_the_dream").main(str(tiny_world_path), 128, episodes=1)
    assert "real return" in capsys.readouterr().out
