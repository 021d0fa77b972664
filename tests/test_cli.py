"""The program explains itself quickly, and the line people type most works as documented."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import minari
import pytest
from typer.testing import CliRunner

from dydiff_env import __version__
from dydiff_env.cli.app import COMMANDS, app, load

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


@pytest.mark.parametrize(
    "chosen, found", [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")]
)
def test_threads_spin_briefly_unless_told_otherwise(chosen: dict[str, str], found: str) -> None:
    code = (
        "import os, sys\n"
        "from dydiff_env.cli.app import main\n"
        "assert 'torch' not in sys.modules\n"  # it reads the variable when it is loaded
        "sys.argv = ['dydiff-env', '--version']\n"
        "try: main()\n"
        "except SystemExit: print(os.environ.get('GOMP_SPINCOUNT'))"
    )
    variables = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    environment = {name: value for name, value in os.environ.items() if name not in variables} | chosen
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == found


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    result = runner.invoke(app, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert name in result.stdout and "--json" in result.stdout
    assert "For example:" in result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_80_columns(name: str) -> None:
    result = runner.invoke(app, [name, "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_in_the_help_have_options_that_exist(name: str) -> None:
    known = {option for parameter in load(name).params for option in parameter.opts}
    for line in COMMANDS[name].examples:
        words = line.split()
        assert words[:2] == ["dydiff-env", name] and len(line) <= 78
        assert {word for word in words if word.startswith("--")} <= known, line


def test_no_colour_where_none_is_wanted() -> None:
    for wish, coloured in (({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False), ({"FORCE_COLOR": "1"}, True)):
        env = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
        line = [sys.executable, "-c", "from dydiff_env.cli.app import main; main()", "--help"]
        shown = subprocess.run(line, env={**env, "TERM": "xterm-256color", **wish}, capture_output=True, text=True, check=True)
        assert bool(re.search(r"\x1b\[[\d;]*3\d", shown.stdout)) == coloured


@pytest.mark.parametrize(("typed", "offered"), [("exp", "export"), ("fit --pre", "--preset")])
def test_a_shell_completes_commands_and_options(typed: str, offered: str) -> None:
    line = [sys.executable, "-c", "from dydiff_env.cli.app import main; main()"]
    words = f"dydiff-env {typed}"
    wish = {"_DYDIFF_ENV_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    done = subprocess.run(line, env={**os.environ, **wish}, capture_output=True, text=True)
    assert offered in done.stdout.split(), done.stderr


@pytest.mark.parametrize(
    ("line", "near"),
    [
        ("export --polcy x --out y", "--policy"),
        ("export --policy demo --out y --filter hardmx", "Did you mean hardmax?"),
        ("train tb3bc --dataset x --out y", "Did you mean td3bc?"),
        ("export --policy dmo --out y", "Did you mean demo?"),
        ("evaluate --policy demo --device cuad", "Did you mean cuda?"),
    ],
)
def test_a_mistyped_name_is_answered_with_the_near_one(line: str, near: str) -> None:
    result = runner.invoke(app, line.split())
    assert result.exit_code != 0 and near in result.output


def test_a_mistyped_preset_is_answered_with_the_near_one(hopper_folder: Path, tmp_path: Path) -> None:
    line = ["fit", "--dataset", str(hopper_folder), "--out", str(tmp_path / "w"), "--preset", "fsat"]
    assert "Did you mean fast?" in runner.invoke(app, line).output


def test_a_command_ends_by_saying_what_it_made_and_what_comes_next(tiny_world_path: Path, tmp_path: Path) -> None:
    line = ["export", "--policy", "random", "--world", str(tiny_world_path), "--out", str(tmp_path / "syn"), "--batch", "10"]
    result = runner.invoke(app, [*line, "--horizon", "4"])
    assert "Done." in result.output and "8 rollouts" in result.output
    assert "Next: dydiff-env train td3bc" in result.output


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
