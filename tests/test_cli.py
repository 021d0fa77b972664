"""The program explains itself quickly, and the line people type most works as documented."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import minari
import pytest
from typer.testing import CliRunner

from dydiff_env import __version__
from dydiff_env.cli.app import COMMANDS, app

runner = CliRunner()


def test_help_lists_every_command_without_loading_torch() -> None:
    code = (
        "import sys\n"
        "from dydiff_env.cli.app import app\n"
        "try: app(['--help'], prog_name='dydiff-env')\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert time.perf_counter() - begun < 10
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    result = runner.invoke(app, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert name in result.stdout and "--json" in result.stdout


def test_version() -> None:
    assert runner.invoke(app, ["--version"]).stdout.strip() == f"dydiff-env {__version__}"


def test_a_mistyped_command_is_answered_with_the_near_one() -> None:
    result = runner.invoke(app, ["exprot"])
    assert result.exit_code == 2 and "Did you mean 'export'" in result.output


def test_export_finds_the_world_named_by_the_environment_and_prints_one_json_document(
    tiny_world_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DYDIFF_ENV_WORLD", str(tiny_world_path))
    out = tmp_path / "syn.minari"
    options = ["--horizon", "5", "--batch", "20", "--iterations", "1", "--json"]
    result = runner.invoke(app, ["export", "--policy", "random", "--out", str(out), *options])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert {"trajectories", "transitions", "seconds", "trajectories_per_second"} <= document.keys()
    assert minari.MinariDataset(out).total_episodes == document["trajectories"] == 16


def test_export_finds_the_world_named_in_the_checkpoint(
    tiny_world: Any, tiny_world_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dydiff_env.agents import agent_class

    monkeypatch.chdir(tmp_path)
    agent = agent_class("td3bc")(tiny_world.spec, world=str(tiny_world_path))
    agent.save(tmp_path / "ckpt.pt")
    line = ["export", "--policy", "ckpt.pt", "--out", "syn.minari", "--batch", "10", "--horizon", "4"]
    result = runner.invoke(app, line)
    assert result.exit_code == 0, result.output
    assert minari.MinariDataset(tmp_path / "syn.minari").total_episodes == 8


def test_mix_from_the_command_line(hopper_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "mixed"
    line = [
        "mix",
        "--real",
        str(hopper_folder),
        "--synthetic",
        str(hopper_folder),
        "--out",
        str(out),
        "--json",
    ]
    result = runner.invoke(app, line)
    assert result.exit_code == 0, result.output
    assert [source["share"] for source in json.loads(result.stdout)["sources"]] == [0.5, 0.5]
