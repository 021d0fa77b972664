"""`~` is the home folder in Python too, wherever a path is given."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from dydiff_env.agents import BC, load_agent
from dydiff_env.agents.replay import Replay
from dydiff_env.agents.trainer import train
from dydiff_env.data.dataset import Dataset
from dydiff_env.evaluation.fidelity import plot_closed_loop
from dydiff_env.evaluation.ope import plot_agreement
from dydiff_env.evaluation.scores import Episodes
from dydiff_env.synthesis.export import export
from dydiff_env.synthesis.mix import mix
from dydiff_env.world import fit
from dydiff_env.world.world import World


def test_the_home_folder_may_be_a_tilde(
    tiny_world: World, hopper_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, home = tmp_path / "here", tmp_path / "home"
    here.mkdir(), home.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(fit, "fit_world", lambda fitting: tiny_world)
    World.fit(hopper_dataset, preset="tiny", out="~/world")
    agent = BC(tiny_world.spec, world="~/world")
    train(agent, Replay(hopper_dataset), 1, "~/bc.pt")
    agent.save("~/again.pt")
    assert load_agent("~/again.pt").updates == 1
    made: World = gym.make("DyDiffDream-v0", policy="~/bc.pt").unwrapped.world  # type: ignore[attr-defined]
    assert made.spec.dataset_id == tiny_world.spec.dataset_id
    export("~/world", "~/bc.pt", "~/syn.minari", batch=2, horizon=2)
    mix([hopper_dataset], ["~/syn.minari"], "~/mixed.minari")
    assert not list(here.iterdir())
    assert {file.name for file in home.iterdir()} == {"world", "bc.pt", "bc.csv", "again.pt", "syn.minari", "mixed.minari"}


def test_a_picture_may_lie_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("HOME", str(tmp_path))
    found = {"a": Episodes(np.array([1.0, 2.0]), np.array([5, 5]))}
    plot_agreement(found, found, "~/returns.png")
    plot_closed_loop({"a": {"M0": {"mean": 0.1}}}, "~/errors.png")
    assert {file.name for file in tmp_path.glob("*.png")} == {"returns.png", "errors.png"}
