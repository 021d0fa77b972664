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
from dydiff_env.agents.loop import LoopConfig

ROOT = Path(__file__).parents[1]


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


def test_a_checkout_is_whole_where_python_starts_in_it() -> None:
    code = "import sys; sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]; sys.path.insert(0, '.'); "
    code += "import dydiff_env.agents, dydiff_env.cli.app; print(dydiff_env.agents.__file__)"
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True)
    assert Path(done.stdout.strip()) == ROOT / "agents" / "__init__.py"


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


@pytest.mark.parametrize("file", sorted((ROOT / "examples").glob("*.py")), ids=lambda file: file.stem)
def test_an_example_is_short_and_says_how_to_run_it(file: Path) -> None:
    text = file.read_text()
    assert len(text.splitlines()) < 80
    assert f"python examples/{file.name}" in (ast.get_docstring(ast.parse(text)) or "")


def test_algorithm_1_in_python(tiny_world_path: Path, hopper_folder: Path, tmp_path: Path) -> None:
    config = LoopConfig(rounds=2, updates=20, batch=20, horizon=8, eval_episodes=2)
    rounds = example("dydiff_loop").main(str(tmp_path / "run"), str(hopper_folder), str(tiny_world_path), config=config)
    assert [row["round"] for row in rounds] == [1, 2] and rounds[1]["synthetic_rows"] > 0


def test_dreams_train_an_agent_without_this_package(tiny_world_path: Path, tmp_path: Path) -> None:
    main = example("export_and_train").main
    assert main(str(tmp_path / "syn"), str(tiny_world_path), "random", updates=40, batch=32) > 0


def test_a_world_from_a_table_of_logs_follows_what_was_logged(tmp_path: Path) -> None:
    error = example("world_from_logs").main(str(tmp_path / "logs.csv"), str(tmp_path / "out"), episodes=80)
    assert error < 1.0  # unrelated states are some 1.1 apart; the full run reaches .05 or so


def test_the_figures_of_the_paper(
    tiny_world_path: Path, hopper_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tiny_world_path.parent)  # its ./world is not what the embedded policy acts in
    path = {name: str(tmp_path / f"{name}.png") for name in ("fig1", "fig7", "fig9")}
    sizes = {"rounds": 2, "updates": 5, "count": 40, "seeds": 1, "episodes": 2}
    curves = example("paper_fig1").main(path["fig1"], str(hopper_folder), str(tiny_world_path), **sizes)
    assert len(curves) == 8 and all(returns.shape == (1, 2) for returns in curves.values())
    errors = example("paper_fig7").main(path["fig7"], str(tiny_world_path), starts=4, most=1)
    assert set(errors["clone"]) == {"real", "M0", "M1"}
    if importlib.util.find_spec("gymnasium_robotics"):
        legal = example("paper_fig9").main(path["fig9"], starts=8, most=1)
        assert len(legal) == 3 and legal[-1] == 8  # the simulator has walls
    assert all(Path(picture).stat().st_size > 5000 for picture in path.values() if Path(picture).exists())


def test_examples_run_small(tiny_world_path: Path, tmp_path: Path, capsys: Any) -> None:
    example("export_your_policy").main(str(tiny_world_path), str(tmp_path / "syn"), batch=16)
    assert len(example("rank_policies").main(str(tiny_world_path), ["random"], starts=4, horizon=8)) == 1
    example("train_in_the_dream").main(str(tiny_world_path), 128, episodes=1)
    assert "real return" in capsys.readouterr().out
