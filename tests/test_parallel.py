"""Two processes train one world: as good as one process's, the same weights in both, and killed ones go on."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dydiff_env.data.dataset import Dataset
from dydiff_env.errors import DyDiffError
from dydiff_env.world.parallel import Processes, processes
from dydiff_env.world.presets import TINY
from dydiff_env.world.world import World

FIT = """
import sys, torch
from pathlib import Path
from dydiff_env.cli.fit import fit
import dydiff_env.world.fit as fitting
from dydiff_env.world.parallel import processes
from dydiff_env.world.training import TrainingConfig, train

peers, folder, run = processes("cpu"), Path(sys.argv[2]), fitting.fit_world

def fitted(job):  # what this process has trained: the command itself reads back what the main one saved
    world = run(job)
    torch.save(world.models.state_dict(), folder / f"world{peers.rank}.pt")
    return world

fitting.fit_world = fitted
fit(sys.argv[1], folder / "world", preset="tiny", device="cpu", json=True)

def trained(name, stop=0):
    torch.manual_seed(peers.rank)  # unequal at first
    line, seen = torch.nn.Linear(3, 1), []
    def loss(generator, _):
        seen.append(torch.randn(8, 3, generator=generator))
        if len(seen) == stop:
            raise KeyboardInterrupt
        return (line(seen[-1]).squeeze(-1) - seen[-1].sum(-1)).square().mean()
    config = TrainingConfig(steps=40, learning_rate=0.1, evaluate_every=10)
    done = train(name, line, loss, config, seed=0, checkpoint=folder / f"{name}.pt", checkpoint_seconds=0.0)
    return line.state_dict(), torch.stack(seen), done["curve"]

whole, drawn, curve = trained("whole")
try:
    trained("stopped", stop=25)
    raise AssertionError("it went on")
except KeyboardInterrupt:
    resumed, again, _ = trained("stopped")
assert len(again) == 20
torch.save({"whole": whole, "resumed": resumed, "drawn": drawn, "curve": curve}, folder / f"line{peers.rank}.pt")
"""


def start(*arguments: str) -> list[subprocess.Popen[str]]:
    """The same program twice, as a launcher does it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        **os.environ,
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    return [
        subprocess.Popen(
            [sys.executable, *arguments], env={**common, "RANK": rank, "LOCAL_RANK": rank}, text=True,
            stdout=subprocess.PIPE,
        )
        for rank in "01"
    ]  # fmt: skip


def finish(running: list[subprocess.Popen[str]]) -> list[str]:
    """What each printed, once both are done."""
    printed = [process.communicate(timeout=300)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    return printed


@pytest.fixture(scope="module")
def fitted(hopper_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder of what two processes made, killed once in between, and what each printed."""
    if importlib.util.find_spec("accelerate") is None:
        pytest.skip("accelerate is not installed")
    folder = tmp_path_factory.mktemp("fitted")
    running = start("-c", FIT, str(hopper_folder), str(folder))
    while not (folder / "world.partial" / "reward.pt").exists():
        assert all(process.poll() is None for process in running)
        time.sleep(0.01)
    for process in running:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    return folder, finish(start("-c", FIT, str(hopper_folder), str(folder)))


def test_processes_see_rows_of_their_own_and_end_with_the_same_weights(
    fitted: tuple[Path, list[str]],
) -> None:
    folder, _ = fitted
    worlds = [torch.load(folder / f"world{rank}.pt") for rank in range(2)]
    for key, value in World.load(folder / "world").models.state_dict().items():
        assert torch.equal(worlds[0][key], value) and torch.equal(worlds[1][key], value), key
    one, two = (torch.load(folder / f"line{rank}.pt") for rank in range(2))
    for key, value in one["whole"].items():
        assert torch.equal(value, two["whole"][key]), key
        assert torch.equal(value, one["resumed"][key]) and torch.equal(value, two["resumed"][key]), key
    assert one["curve"] == two["curve"] and one["curve"][-1][1] < 0.1 * one["curve"][0][1]
    assert not torch.isclose(one["drawn"], two["drawn"]).any()


def test_the_world_of_two_processes_is_as_good_as_one(
    fitted: tuple[Path, list[str]], hopper_dataset: Dataset
) -> None:
    folder, printed = fitted
    assert json.loads(printed[0])["world"] == str(folder / "world") and printed[1] == ""
    assert not (folder / "world.partial").exists()
    world = World.load(folder / "world")
    assert world.preset.dynamics_training == TINY.dynamics_training  # not one process's share of it
    one, two = World.fit(hopper_dataset, preset="tiny", seed=0).record, world.record
    assert two["training"]["reward"]["r2"] > one["training"]["reward"]["r2"] - 0.05
    for model in ("single_step", "denoiser"):
        for horizon in ("h1", "h10"):
            errors = [record["fidelity"]["open_loop"][model][horizon] for record in (one, two)]
            assert errors[1] < 1.7 * errors[0], (model, horizon, errors)  # as far apart as two seeds


def test_one_process_asks_nothing_of_accelerate(tiny_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tiny_world.record and processes("cpu") == Processes() and "accelerate" not in sys.modules
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert processes("cpu") == Processes()


def test_processes_that_cannot_work_together_say_so(
    hopper_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(DyDiffError, match=r"pip install \"dydiff-env\[accelerate\]\""):
        World.fit(hopper_dataset, preset="tiny", out=tmp_path / "world")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    with pytest.raises(DyDiffError, match="one machine"):
        World.fit(hopper_dataset, preset="tiny", out=tmp_path / "world")
    assert not list(tmp_path.iterdir())
