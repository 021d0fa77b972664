"""What goes wrong ends in one clear line, its fix, exit code 1 or 2, and nothing half-written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from dydiff_env.cli.app import app
from dydiff_env.cli.common import reporting

EXPORT = ["--batch", "8", "--horizon", "4"]


def refused(arguments: list[str], *words: str, left: Path) -> None:
    """The command fails with these words, without a traceback, and `left` holds what it held."""
    before = sorted(left.rglob("*"))
    result = CliRunner().invoke(app, arguments)
    message = " ".join(result.stderr.split())
    assert result.exit_code in (1, 2), result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert "error:" in message and "Traceback" not in message
    assert all(word in message for word in words), message
    assert sorted(left.rglob("*")) == before


def script(path: Path, inputs: int, outputs: int) -> Path:
    """A TorchScript policy of these widths."""
    torch.jit.script(torch.nn.Linear(inputs, outputs)).save(str(path))
    return path


@pytest.fixture
def hopper_copy(hopper_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset that a test may damage."""
    return Path(shutil.copytree(hopper_folder, tmp_path_factory.mktemp("copy") / "hopper.minari"))


def test_a_missing_policy_file(tiny_world_path: Path, tmp_path: Path) -> None:
    line = ["export", "--policy", str(tmp_path / "no.pt"), "--world", str(tiny_world_path)]
    refused([*line, "--out", str(tmp_path / "syn"), *EXPORT], "no.pt", "fix:", left=tmp_path)


def test_a_missing_policy_and_no_world(tmp_path: Path) -> None:
    refused(["evaluate", "--policy", str(tmp_path / "nope.pt")], "no policy file", left=tmp_path)


def test_an_environment_of_discrete_actions(tmp_path: Path) -> None:
    refused(["evaluate", "--policy", "random", "--env", "CartPole-v1"], "Discrete actions", "fix:", left=tmp_path)


def test_a_missing_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DYDIFF_ENV_WORLD", raising=False)
    line = ["export", "--policy", "random", "--out", "syn"]
    refused(line, "No world found", "dydiff-env fit", left=tmp_path)
    refused([*line, "--world", "nowhere"], "nowhere is not a world", left=tmp_path)


def test_a_wrong_dataset_id(tmp_path: Path) -> None:
    for command in (["fit"], ["train", "td3bc"]):
        line = [*command, "--dataset", "demo/hoper-v0", "--out", str(tmp_path / "out.pt")]
        refused(line, "demo/hoper-v0", "fix:", left=tmp_path)


def test_spaces_that_do_not_match_the_world(tiny_world_path: Path, tmp_path: Path) -> None:
    from dydiff_env.agents import agent_class
    from dydiff_env.data.simulator import describe

    agent_class("td3bc")(describe("HalfCheetah-v5")).save(tmp_path / "cheetah.pt")
    line = ["export", "--policy", str(tmp_path / "cheetah.pt"), "--world", str(tiny_world_path)]
    refused([*line, "--out", str(tmp_path / "syn"), *EXPORT], "17", "11", left=tmp_path)


def test_an_empty_dataset(hopper_copy: Path, tmp_path: Path) -> None:
    with h5py.File(hopper_copy / "main_data.hdf5", "w"):
        pass
    metadata = json.loads((hopper_copy / "metadata.json").read_text())
    metadata |= {"total_episodes": 0, "total_steps": 0}
    (hopper_copy / "metadata.json").write_text(json.dumps(metadata))
    refused(["fit", "--dataset", str(hopper_copy), "--out", str(tmp_path / "w")], "fix:", left=tmp_path)


def test_numbers_that_are_not_finite(hopper_copy: Path, tmp_path: Path) -> None:
    with h5py.File(hopper_copy / "main_data.hdf5", "r+") as file:
        file["episode_3/rewards"][1] = np.nan
    line = ["fit", "--dataset", str(hopper_copy), "--out", str(tmp_path / "w")]
    refused(line, "episode 3", "rewards", left=tmp_path)


def test_a_truncated_safetensors_file(tiny_world_path: Path, tmp_path: Path) -> None:
    world = Path(shutil.copytree(tiny_world_path, tmp_path / "world"))
    weights = world / "world.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    line = ["export", "--policy", "random", "--world", str(world), "--out", str(tmp_path / "syn")]
    refused([*line, *EXPORT], "cannot be read as a world", left=tmp_path)


def test_a_policy_of_the_wrong_width(tiny_world: Any, tiny_world_path: Path, tmp_path: Path) -> None:
    spec = tiny_world.spec
    wrong_in = script(tmp_path / "in.pt", spec.observation_size + 1, spec.action_size)
    wrong_out = script(tmp_path / "out.pt", spec.observation_size, spec.action_size + 2)
    for policy, words in ((wrong_in, ("size 12", "size 11")), (wrong_out, ("(2, 5)", "(2, 3)"))):
        line = ["export", "--policy", str(policy), "--world", str(tiny_world_path)]
        refused([*line, "--out", str(tmp_path / "syn"), *EXPORT], *words, left=tmp_path)


def test_an_existing_output(tiny_world_path: Path, tmp_path: Path) -> None:
    (tmp_path / "syn").mkdir()
    line = ["export", "--policy", "random", "--world", str(tiny_world_path), "--out", str(tmp_path / "syn")]
    refused([*line, *EXPORT], "exists", "--overwrite", left=tmp_path)


def test_wrong_usage_exits_with_2(tiny_world_path: Path, tmp_path: Path) -> None:
    line = ["export", "--policy", "random", "--world", str(tiny_world_path), "--out", str(tmp_path / "syn")]
    for extra in (["--filter", "best"], ["--keep", "2"], ["--device", "tpu"], ["--seed", "-1"]):
        result = CliRunner().invoke(app, [*line, *extra])
        assert result.exit_code == 2, result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("seed", ["-1", str(2**32)])
def test_seeds_that_no_generator_takes_are_wrong_usage(seed: str, tiny_world_path: Path, hopper_folder: Path, tmp_path: Path) -> None:
    train = ["train", "bc", "--dataset", str(hopper_folder), "--out", str(tmp_path / "a.pt"), "--steps", "1"]
    for line in (
        ["fit", "--dataset", str(hopper_folder), "--out", str(tmp_path / "w"), "--seed", seed],
        ["evaluate", "--policy", "random", "--world", str(tiny_world_path), "--seed", seed],
        [*train, "--seed", seed],
        [*train, "--seeds", f"0,{seed}"],
    ):
        result = CliRunner().invoke(app, line)
        assert result.exit_code == 2 and "--seed" in result.output, result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["--world=~/world"], ["--world", "~/world"]])
def test_the_home_folder_may_be_a_tilde(
    words: list[str], tiny_world_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(tiny_world_path, tmp_path / "world")
    line = ["export", "--policy", "random", *words, "--out=~/syn", *EXPORT]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "syn" / "main_data.hdf5").is_file()


def test_a_checkpoint_is_not_called_as_its_log(hopper_folder: Path, tmp_path: Path) -> None:
    refused(["train", "bc", "--dataset", str(hopper_folder), "--out", str(tmp_path / "a.csv")], "does not end in .pt", left=tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("write", [
    lambda: torch.save(torch.zeros(100_000), "/dev/full"),
    lambda: Path("/dev/full").write_text("much"),
])  # fmt: skip
def test_a_full_disk_is_one_line(write: Callable[[], Any], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), reporting(False):
        write()
    assert "The disk may be full" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(RuntimeError, match="a bug"), reporting(False):
        raise RuntimeError("a bug")
