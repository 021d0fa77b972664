"""Keeping the best checkpoint of a run by its dreams."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from test_train_cli import assert_same_agents, kill_when, run

from dydiff_env import embedded
from dydiff_env.agents import BC, Judge, Replay, Schedule, load_agent, train
from dydiff_env.agents.checkpoint import best_path
from dydiff_env.agents.log import best_row
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
    assert document["best_return"] == returns[document["best_updates"]] == max(returns.values())
    assert document["best_by"] == "dream_return"
    best = load_agent(document["best_checkpoint"])
    assert best.updates == document["best_updates"] and load_agent(out).updates == 8
    again = dream_returns(tiny_world, as_policy(best, tiny_world.spec), 4, horizon=20).returns.mean()
    assert again == pytest.approx(document["best_return"], rel=1e-4)
    assert [float(row["dream_return"]) for row in log_of(out)] == list(returns.values())


class Told:
    """A judge that says what it was told to."""

    fingerprint = "told"

    def __init__(self, *returns: float) -> None:
        self.returns = list(returns)

    def __call__(self, agent: BC) -> dict[str, float]:
        return {"dream_return": self.returns.pop(0), "dream_length": 1.0}


@pytest.mark.parametrize(("returns", "best"), [((1, 5, 3), 4), ((7, 5, 3), 2), ((2, 2, 9), 6), ((2, 2, 1), 2), ((np.nan, 2, 1), 4)])
def test_the_best_is_the_first_with_the_highest_return_also_across_a_stop(returns, best, hopper_dataset, tmp_path):
    out, replay = tmp_path / "bc.pt", Replay(hopper_dataset)
    train(BC(hopper_dataset.spec), replay, 4, out, schedule=SCHEDULE, judge=Told(*returns[:2]))
    document = train(load_agent(out), replay, 6, out, schedule=SCHEDULE, judge=Told(returns[2]))
    assert document["best_updates"] == load_agent(best_path(out)).updates == best


def test_a_kill_while_the_best_is_saved_is_made_up_for(hopper_dataset, tmp_path, monkeypatch):
    out, replay = tmp_path / "bc.pt", Replay(hopper_dataset)
    agent = BC(hopper_dataset.spec)
    save = agent.save

    def dies(path: Path) -> Path:
        if path == best_path(out) and agent.updates == 4:
            raise KeyboardInterrupt
        return save(path)

    monkeypatch.setattr(agent, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        train(agent, replay, 6, out, schedule=SCHEDULE, judge=Told(1, 9))
    assert load_agent(out).updates == 4
    document = train(load_agent(out), replay, 6, out, schedule=SCHEDULE, judge=Told(9, 3))
    assert document["best_updates"] == load_agent(best_path(out)).updates == 4


def test_without_a_judge_the_best_is_the_environments(hopper_dataset, tmp_path):
    schedule = Schedule(log_every=2, eval_every=2, eval_episodes=1)
    document = train(BC(hopper_dataset.spec), Replay(hopper_dataset), 6, tmp_path / "bc.pt", schedule=schedule, env="Hopper-v5")
    returns = dict(map(tuple, document["returns"]))
    assert document["best_by"] == "return_mean" and document["best_return"] == max(returns.values())
    assert load_agent(document["best_checkpoint"]).updates == document["best_updates"]


def test_what_dreams_chose_stays_where_a_run_goes_on_without_them(hopper_dataset, tmp_path):
    out, replay = tmp_path / "bc.pt", Replay(hopper_dataset)
    schedule = Schedule(log_every=2, eval_every=2, eval_episodes=1)
    train(BC(hopper_dataset.spec), replay, 4, out, schedule=schedule, env="Hopper-v5", judge=Told(9, 5))
    spent = float(log_of(out)[-1]["seconds"])
    document = train(load_agent(out), replay, 8, out, schedule=schedule, env="Hopper-v5")
    assert (document["best_by"], document["best_updates"]) == ("dream_return", 2)
    assert load_agent(best_path(out)).updates == 2
    assert [float(row["seconds"]) >= spent for row in log_of(out)[2:]] == [True, True]  # they go on counting


def test_rows_without_a_number_are_never_the_best():
    assert best_row([{}, {"x": ""}, {"x": float("nan")}], "x") is None
    assert best_row([{"x": "nan"}, {"x": "2.5"}, {"x": 1.0}], "x") == {"x": "2.5"}


def test_train_dreams_in_the_world_it_is_given(hopper_folder, tiny_world_path, tmp_path):
    out = tmp_path / "ckpt.pt"
    common = ("train", "bc", "--dataset", hopper_folder, "--world", tiny_world_path, "--device", "cpu", "--json")
    code, document, _ = run(*common, "--steps", 4, "--eval-every", 2, "--out", out)
    assert code == 0 and len(document["dream_returns"]) == 2 and Path(document["best_checkpoint"]).is_file()
    code, _, error = run(*common, "--steps", 4, "--out", out)
    assert code == 2 and "--overwrite" in error
    code, document, _ = run(*common, "--steps", 2, "--out", tmp_path / "plain.pt", "--no-dream-eval")
    assert code == 0 and "best_checkpoint" not in document and not best_path(tmp_path / "plain.pt").exists()
    seeds = tmp_path / "seeds.pt"
    code, document, _ = run(*common, "--steps", 2, "--out", seeds, "--seeds", "0,1")
    assert code == 0 and all(Path(one["best_checkpoint"]).is_file() for one in document["runs"])
    assert document["best_return"] == max(one["best_return"] for one in document["runs"])
    [[updates, mean, _]] = document["dream_returns"]
    assert updates == 2 and mean == pytest.approx(np.mean([one["best_return"] for one in document["runs"]]))


def test_the_best_checkpoint_is_not_replaced_unless_asked(hopper_folder, tmp_path):
    out = tmp_path / "ckpt.pt"
    best_path(out).write_text("mine")
    common = ("train", "bc", "--dataset", hopper_folder, "--steps", 1, "--out", out, "--device", "cpu")
    code, _, error = run(*common)
    assert code == 2 and "ckpt-best.pt exists" in error and best_path(out).read_text() == "mine"
    assert run(*common, "--overwrite", "--json")[0] == 0
    assert not best_path(out).exists()  # it was of the run that is replaced


def test_a_resumed_run_goes_on_dreaming_in_its_world_and_in_no_other(
    hopper_folder, tiny_world, tiny_world_path, tmp_path
):
    out, other = tmp_path / "ckpt.pt", tmp_path / "other"
    replace(tiny_world, initial_bank=tiny_world.initial_bank[:1]).save(other)
    common = ("train", "bc", "--dataset", hopper_folder, "--out", out, "--device", "cpu", "--eval-every", 2, "--steps")
    assert run(*common, 2, "--world", tiny_world_path, "--json")[0] == 0
    code, document, _ = run(*common, 4, "--resume", "--json")
    assert code == 0 and [at for at, _ in document["dream_returns"]] == [2, 4]
    code, _, error = run(*common, 6, "--resume", "--world", other)
    assert code == 2 and "another world" in error and load_agent(out).updates == 4


def test_a_run_killed_outright_keeps_the_best_of_the_uninterrupted_one(hopper_folder, tiny_world_path, tmp_path):
    killed, whole = tmp_path / "killed.pt", tmp_path / "whole.pt"
    common = ("train", "bc", "--dataset", hopper_folder, "--world", tiny_world_path, "--steps", 40, "--eval-every", 10,
              "--device", "cpu")  # fmt: skip
    kill_when(best_path(killed), *common, "--out", killed)
    assert load_agent(killed).updates < 40
    _, resumed, _ = run(*common, "--out", killed, "--resume", "--json")
    _, document, _ = run(*common, "--out", whole, "--json")
    assert [at for at, _ in resumed["dream_returns"]] == [at for at, _ in document["dream_returns"]] == [10, 20, 30, 40]
    np.testing.assert_allclose(resumed["dream_returns"], document["dream_returns"], rtol=1e-3)
    assert_same_agents(best_path(killed), best_path(whole), document["best_updates"])


def test_a_loop_keeps_its_best_round(hopper_dataset, tiny_world, tmp_path):
    config = LoopConfig(rounds=3, updates=4, batch=8, horizon=4)
    document = loop(BC(hopper_dataset.spec), tiny_world, hopper_dataset, tmp_path, config)
    returns = [row["dream_return"] for row in document["rounds"]]
    assert document["best_round"] == 1 + int(np.argmax(returns))
    assert load_agent(document["best_checkpoint"]).updates == 4 * document["best_round"]


def test_a_world_of_other_sizes_is_refused(hopper_dataset, hopper_folder, tmp_path):
    with pytest.raises(DyDiffError, match="has the observation space"):
        Judge.of(World.load(embedded.WORLD), hopper_dataset)
    code, _, error = run("train", "bc", "--dataset", hopper_folder, "--world", embedded.WORLD, "--out", tmp_path / "a.pt")
    assert code == 2 and "has the observation space" in error and not list(tmp_path.iterdir())


def test_without_an_environments_limit_a_dream_lasts_as_long_as_the_longest_episode(hopper_dataset, tiny_world):
    limit = gym.spec("Hopper-v5").max_episode_steps
    assert Judge.of(tiny_world, hopper_dataset).horizon == limit
    bare = replace(hopper_dataset, spec=replace(hopper_dataset.spec, env_spec=None))
    assert Judge.of(tiny_world, bare).horizon == hopper_dataset.lengths.max() < limit
    endless = json.dumps(json.loads(str(hopper_dataset.spec.env_spec)) | {"max_episode_steps": 1_000_000})
    assert Judge.of(tiny_world, replace(bare, spec=replace(bare.spec, env_spec=endless))).horizon == 1000
