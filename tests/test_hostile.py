"""What files may not do: run code, or end in a traceback."""

from __future__ import annotations

import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import h5py
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import dydiff_env
from dydiff_env import DyDiffError, World, embedded, load_dataset, load_policy
from dydiff_env.agents import BC
from dydiff_env.agents.loop import LoopConfig, _read_rows
from dydiff_env.cli.app import app
from dydiff_env.data import cache
from dydiff_env.data.d4rl import import_d4rl
from dydiff_env.data.dataset import Dataset, DatasetSpec
from dydiff_env.data.simulator import describe, make_env
from dydiff_env.evaluation.report.sections import _of_another_task
from dydiff_env.evaluation.report.sources import read_log
from dydiff_env.evaluation.simulator import Simulator


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module beside what is loaded, that leaves a mark when it is imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "evil_module.py").write_text("open('RAN', 'w')\ndef f(*arguments, **options): open('RAN', 'w')\n")
    return tmp_path / "RAN"


def test_an_environment_in_plain_text_imports_nothing(trap: Path, tmp_path: Path) -> None:
    world = shutil.copytree(embedded.WORLD, tmp_path / "w")
    document = json.loads((world / "world.json").read_text())
    document["spec"]["env_spec"] = "evil_module:X-v0"
    (world / "world.json").write_text(json.dumps(document))
    loaded = World.load(world)
    with pytest.raises(DyDiffError):
        Simulator(loaded.spec)
    env = gym.make("DyDiffDream-v0", world=loaded, render_mode="rgb_array")
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="Drawing numbers"):
        env.render()
    assert not trap.exists()


@pytest.mark.parametrize("text", [
    {"id": "Pendulum-v1", "entry_point": "evil_module:f", "kwargs": {}},
    {"id": "DyDiffDream-v0", "entry_point": "evil_module:f", "kwargs": {"policy": "evil_module:f"}},
])  # fmt: skip
def test_a_dataset_without_spaces_calls_nothing_it_names(text: dict[str, object], trap: Path, tmp_path: Path) -> None:
    for kind in ("arrow", "hdf5"):
        folder = tmp_path / kind
        folder.mkdir()
        facts = {"dataset_id": "tests/b-v0", "data_format": kind, "total_episodes": 1, "total_steps": 1, "env_spec": json.dumps(text)}
        (folder / "metadata.json").write_text(json.dumps(facts))
        with pytest.raises(DyDiffError):
            load_dataset(folder)
    assert not trap.exists()


def test_a_recordings_window_is_not_opened_again() -> None:
    recorded = json.loads(gym.spec("Pendulum-v1").to_json()) | {"kwargs": {"render_mode": "rgb_array", "g": 9.0}}
    with make_env(json.dumps(recorded)) as env:
        assert env.unwrapped.render_mode is None and env.unwrapped.g == 9.0


@pytest.mark.parametrize("disguise", [b"torch.from_file\\\n(", b"torch.from_file # a comment\n("])
def test_torchscript_hides_no_call(disguise: bytes, tmp_path: Path) -> None:
    class Writes(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :2] + torch.from_file("mark", True, 64)[0]

    torch.jit.script(Writes()).save(str(tmp_path / "plain.pt"))
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(tmp_path / "p.pt", "w") as other:
        for entry in plain.infolist():
            code = plain.read(entry)
            other.writestr(entry.filename, code.replace(b"torch.from_file(", disguise))
    spec = DatasetSpec(gym.spaces.Box(-1, 1, (5,)), gym.spaces.Box(-1, 1, (2,)))
    with pytest.raises(DyDiffError, match=r"from_file.*--trust"):
        load_policy(tmp_path / "p.pt", spec)


def test_damage_inside_a_file_is_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["observations"], file["actions"], file["rewards"] = np.zeros((9, 2)), np.zeros((9, 1)), np.zeros(9)
        file["terminals"], file["timeouts"] = np.zeros(9, bool), np.zeros(8, bool)
    with pytest.raises(DyDiffError, match="cannot be read"), pytest.warns(UserWarning):
        import_d4rl(tmp_path / "a.hdf5", tmp_path / "out", "tests/b-v0")
    (tmp_path / "table.csv").write_text("run,updates,return\na,1,2\n")
    with pytest.raises(DyDiffError, match=r"table.csv is no log"):
        read_log(tmp_path / "table.csv")


def test_a_link_to_nowhere_hides_no_dataset_and_old_copies_go(hopper_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYDIFF_ENV_CACHE", str(tmp_path / "cache"))
    folder = shutil.copytree(hopper_folder, tmp_path / "data")
    (folder / ".#lock").symlink_to("nowhere")
    first = load_dataset(folder)
    (folder / "note.txt").write_text("changed")
    assert load_dataset(folder).transitions == first.transitions
    assert len(list((tmp_path / "cache" / "datasets").iterdir())) == 1
    assert np.isfinite(np.asarray(first.observations)).all()  # what is mapped stays, though its name is gone
    assert cache.cache_entry(folder).exists()


def test_a_device_that_is_not_there_is_no_damage(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(DyDiffError, match="The device cuda cannot be used"):
        World.load(embedded.WORLD, "cuda")
    with pytest.raises(DyDiffError, match="The device cuda cannot be used"):
        load_policy("demo", device="cuda")


def test_what_one_types_in_a_notebook_is_short(tiny_world: World, hopper_dataset: Dataset) -> None:
    policy = load_policy("random", tiny_world.spec)
    dream = tiny_world.dream(policy, tiny_world.sample_starts(3), 4, 0)
    assert [repr(thing).partition("(")[0] for thing in (tiny_world, dream, hopper_dataset, policy)] == [
        "World", "Trajectories", "Dataset", "BoundedPolicy"]  # fmt: skip
    assert all(len(repr(thing)) < 160 for thing in (dream, hopper_dataset, policy))
    assert dream != tiny_world.dream(policy, tiny_world.sample_starts(3), 4, 0) and dream in [dream]
    assert callable(dydiff_env.export) and callable(dydiff_env.improve)


def test_a_command_that_is_stopped_says_what_is_kept_and_notes_are_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    (tmp_path / "log.csv").write_text("run,x,u,reward\n1,0,0,1\n1,1,.5,1\n1,2,.2,1\n")
    line = ["import-table", str(tmp_path / "log.csv"), "--episode", "run", "--observations", "x", "--actions", "u"]
    told = CliRunner().invoke(app, line)
    assert told.exit_code == 0 and "note: Actions are taken to be bounded" in " ".join(told.stderr.split()) and ".py" not in told.stderr
    monkeypatch.setattr("dydiff_env.data.table.import_table", stopped)
    ended = CliRunner().invoke(app, [*line, "--overwrite"])
    assert ended.exit_code == 130 and "Nothing was kept" in ended.stderr


def test_one_vecnormalize_is_not_used_for_two(tmp_path: Path) -> None:
    line = ["evaluate", "--policy", "a.zip", "--policy", "b.zip", "--env", "Pendulum-v1", "--trust", "--vecnormalize", "v.pkl"]
    ended = CliRunner().invoke(app, line)
    assert ended.exit_code == 2 and "is of one policy" in ended.stderr


@pytest.mark.parametrize("text", ['{"config": {', json.dumps({"config": vars(LoopConfig()), "rounds": []})])
def test_a_damaged_table_of_rounds_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "loop.json").write_text(text)
    with pytest.raises(DyDiffError, match=r"loop.json is damaged"):
        _read_rows(tmp_path / "loop.json", LoopConfig(), {})


def test_a_report_shows_no_agent_of_another_task(tmp_path: Path) -> None:
    """HalfCheetah and Walker2d have as many numbers."""
    world = replace(World.load(embedded.WORLD), spec=describe("Walker2d-v5"))
    for name, other in (("HalfCheetah-v5", True), ("Walker2d-v5", False)):
        BC(describe(name)).save(tmp_path / "agent.pt")
        assert _of_another_task(tmp_path / "agent.pt", world) is other
