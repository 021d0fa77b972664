"""Keeping the best checkpoint of a run by its dreams."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from test_train_cli import assert_same_agents, kill_when, run

from dydiff_env import embedded
from dydiff_env.agents import BC, Judge, Replay, Schedule, load_agent, train
from dydiff_env.agents.judge import best_of
from dydiff_env.agents.loop import LoopConfig, loop
from dydiff_env.errors import DyDiffError
from dydiff_env.evaluation.ope import dream_returns
from dydiff_env.policies.loader import as_policy
from dydiff_env.world.world import World

SCHEDULE = Schedule(log_every=2, eval_every=2)


def log_of(out: Path) -> list[dict[str, str]]:
    with out.with_suffix(".csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_checkpoint_with_the_best_dreams_is_kept(hopper_dataset, tiny_world, tmp_path):
    out, judge = tmp_path / "bc.pt", Judge(tiny_world, horizon=20, episodes=4)
    document = train(BC(hopper_dataset.spec), Replay(hopper_dataset), 8, out, schedule=SCHEDULE, judge=judge)
    returns = dict(map(tuple, document["dream_returns"]))
    assert list(returns) == [2, 4, 6, 8]
    assert document["best_dream_return"] == returns[document["best_updates"]] == max(returns.values())
    best = load_agent(document["best_checkpoint"])
    assert best.updates == document["best_updates"] and load_agent(out).updates == 8
    again = dream_returns(tiny_world, as_policy(best, tiny_world.spec), 4, horizon=20).returns.mean()
    assert again == pytest.approx(document["best_dream_return"], rel=1e-4)
    assert [float(row["dream_return"]) for row in log_of(out)] == list(returns.values())


class Told:
    """A judge that says what it was told to."""

    def __init__(self, *returns: float) -> None:
        self.returns = list(returns)

    def __call__(self, agent: BC) -> dict[str, float]:
        return {"dream_return": self.returns.pop(0), "dream_length": 1.0}


@pytest.mark.parametrize(("returns", "best"), [((1, 5, 3), 4), ((7, 5, 3), 2), ((2, 2, 9), 6), ((2, 2, 1), 2)])
def test_the_best_is_the_first_with_the_highest_return_also_across_a_stop(returns, best, hopper_dataset, tmp_path):
    out, replay = tmp_path / "bc.pt", Replay(hopper_dataset)
    train(BC(hopper_dataset.spec), replay, 4, out, schedule=SCHEDULE, judge=Told(*returns[:2]))
    document = train(load_agent(out), replay, 6, out, schedule=SCHEDULE, judge=Told(returns[2]))
    assert document["best_updates"] == load_agent(best_of(out)).updates == best


def test_train_dreams_in_the_world_it_is_given(hopper_folder, tiny_world_path, tmp_path):
    out = tmp_path / "ckpt.pt"
    common = ("train", "bc", "--dataset", hopper_folder, "--world", tiny_world_path, "--device", "cpu", "--json")
    code, document, _ = run(*common, "--steps", 4, "--eval-every", 2, "--out", out)
    assert code == 0 and len(document["dream_returns"]) == 2 and Path(document["best_checkpoint"]).is_file()
    code, _, error = run(*common, "--steps", 4, "--out", out)
    assert code == 2 and "--overwrite" in error
    code, document, _ = run(*common, "--steps", 2, "--out", tmp_path / "plain.pt", "--no-dream-eval")
    assert code == 0 and "best_checkpoint" not in document and not best_of(tmp_path / "plain.pt").exists()
    seeds = tmp_path / "seeds.pt"
    code, document, _ = run(*common, "--steps", 2, "--out", seeds, "--seeds", "0,1")
    assert code == 0 and all(Path(one["best_checkpoint"]).is_file() for one in document["runs"])


def test_a_run_killed_outright_keeps_the_best_of_the_uninterrupted_one(hopper_folder, tiny_world_path, tmp_path):
    killed, whole = tmp_path / "killed.pt", tmp_path / "whole.pt"
    common = ("train", "bc", "--dataset", hopper_folder, "--world", tiny_world_path, "--steps", 40, "--eval-every", 10,
              "--device", "cpu")  # fmt: skip
    kill_when(best_of(killed), *common, "--out", killed)
    assert load_agent(killed).updates < 40
    _, resumed, _ = run(*common, "--out", killed, "--resume", "--json")
    _, document, _ = run(*common, "--out", whole, "--json")
    assert [at for at, _ in resumed["dream_returns"]] == [at for at, _ in document["dream_returns"]] == [10, 20, 30, 40]
    np.testing.assert_allclose(resumed["dream_returns"], document["dream_returns"], rtol=1e-3)
    assert_same_agents(best_of(killed), best_of(whole), document["best_updates"])


def test_a_loop_keeps_its_best_round(hopper_dataset, tiny_world, tmp_path):
    config = LoopConfig(rounds=3, updates=4, batch=8, horizon=4)
    document = loop(BC(hopper_dataset.spec), tiny_world, hopper_dataset, tmp_path, config)
    returns = [row["dream_return"] for row in document["rounds"]]
    assert document["best_round"] == 1 + int(np.argmax(returns))
    assert load_agent(document["best_checkpoint"]).updates == 4 * document["best_round"]


def test_a_world_of_other_spaces_is_refused(hopper_dataset, hopper_folder, tmp_path):
    with pytest.raises(DyDiffError, match="observation space"):
        Judge.of(World.load(embedded.WORLD), hopper_dataset)
    code, _, error = run("train", "bc", "--dataset", hopper_folder, "--world", embedded.WORLD, "--out", tmp_path / "a.pt")
    assert code == 2 and "observation space" in error and not list(tmp_path.iterdir())


def test_without_an_environments_limit_a_dream_lasts_as_long_as_the_longest_episode(hopper_dataset, tiny_world):
    limit = gym.spec("Hopper-v5").max_episode_steps
    assert Judge.of(tiny_world, hopper_dataset).horizon == limit
    bare = replace(hopper_dataset, spec=replace(hopper_dataset.spec, env_spec=None))
    assert Judge.of(tiny_world, bare).horizon == hopper_dataset.lengths.max() < limit
