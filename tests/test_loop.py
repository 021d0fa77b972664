"""Algorithm 1: what a loop leaves behind, and that a kill loses nothing but time."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_train_cli import assert_same_agents, kill_when, run

from dydiff_env import embedded
from dydiff_env.agents import TD3BC, TD3BCConfig, load_agent
from dydiff_env.agents.loop import LoopConfig, loop
from dydiff_env.agents.synthetic_buffer import SyntheticBuffer
from dydiff_env.data.trajectories import Trajectories
from dydiff_env.errors import DyDiffError
from dydiff_env.world.world import World

CONFIG = LoopConfig(rounds=3, updates=6, batch=20, horizon=6, keep=0.8, eval_episodes=1)


def new_agent(dataset, seed=0):
    return TD3BC(dataset.spec, TD3BCConfig(hidden=(32, 32), batch_size=32), seed=seed)


class Killed(Exception):
    pass


def test_a_loop_trains_dreams_filters_and_mixes(hopper_dataset, tiny_world, tmp_path):
    document = loop(new_agent(hopper_dataset), tiny_world, hopper_dataset, tmp_path, CONFIG, env="Hopper-v5")
    rows = document["rounds"]
    assert [row["updates"] for row in rows] == [6, 12, 18] and document["updates"] == 18
    assert [row["kept"] for row in rows] == [16, 16, 16]  # ⌊.8 · 20⌋
    assert rows[0]["synthetic_rows"] == 0  # nothing has been dreamt yet
    assert rows[2]["synthetic_rows"] == rows[0]["transitions"] + rows[1]["transitions"]
    assert all(np.isfinite(row["return_mean"]) for row in rows)
    assert load_agent(tmp_path / "agent.pt").updates == 18
    assert len(json.loads((tmp_path / "loop.json").read_text())["rounds"]) == 3


@pytest.mark.parametrize("moment", ["training", "before the checkpoint"])
def test_a_killed_loop_ends_with_the_result_of_the_uninterrupted_one(
    moment, hopper_dataset, tiny_world, tmp_path, monkeypatch
):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    config = LoopConfig(**{**vars(CONFIG), "capacity": 100})  # rounds leave the buffer on the way
    loop(new_agent(hopper_dataset), tiny_world, hopper_dataset, whole, config)

    agent = new_agent(hopper_dataset)
    method = "update" if moment == "training" else "save"
    original = getattr(agent, method)

    def dies(*arguments):
        if agent.updates >= 14:
            raise Killed
        return original(*arguments)

    monkeypatch.setattr(agent, method, dies)
    with pytest.raises(Killed):
        loop(agent, tiny_world, hopper_dataset, killed, config)
    resumed = load_agent(killed / "agent.pt")
    assert resumed.updates == 12
    loop(resumed, tiny_world, hopper_dataset, killed, config)
    for name, value in load_agent(whole / "agent.pt").state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, atol=1e-6, rtol=0)
    returns = [
        [row["dream_return"] for row in json.loads((folder / "loop.json").read_text())["rounds"]]
        for folder in (whole, killed)
    ]
    np.testing.assert_allclose(*returns, rtol=1e-5)


def test_resuming_with_other_numbers_is_refused(hopper_dataset, tiny_world, tmp_path):
    loop(
        new_agent(hopper_dataset),
        tiny_world,
        hopper_dataset,
        tmp_path,
        LoopConfig(**{**vars(CONFIG), "rounds": 1}),
    )
    agent = load_agent(tmp_path / "agent.pt")
    with pytest.raises(DyDiffError, match=r"keep 0\.8, not 0\.5"):
        loop(agent, tiny_world, hopper_dataset, tmp_path, LoopConfig(**{**vars(CONFIG), "keep": 0.5}))
    with pytest.raises(DyDiffError, match="never saves"):
        loop(agent, tiny_world, hopper_dataset, tmp_path, LoopConfig(**{**vars(CONFIG), "updates": 4}))
    loop(agent, tiny_world, hopper_dataset, tmp_path, CONFIG)
    assert agent.updates == 18


@pytest.mark.parametrize("damage", ["gone", "cut short"])
def test_a_loop_without_its_rollouts_is_not_resumed(hopper_dataset, tiny_world, tmp_path, damage):
    loop(new_agent(hopper_dataset), tiny_world, hopper_dataset, tmp_path, replace(CONFIG, rounds=2))
    file = tmp_path / "rollouts" / "round-0001.npz"
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(DyDiffError, match="lacks round 1" if damage == "gone" else "is damaged"):
        loop(load_agent(tmp_path / "agent.pt"), tiny_world, hopper_dataset, tmp_path, CONFIG)


def test_a_loop_without_its_table_is_not_resumed(hopper_dataset, tiny_world, tmp_path):
    config = LoopConfig(**{**vars(CONFIG), "rounds": 1})
    loop(new_agent(hopper_dataset), tiny_world, hopper_dataset, tmp_path, config)
    (tmp_path / "loop.json").unlink()
    with pytest.raises(DyDiffError, match="1 rounds"):
        loop(load_agent(tmp_path / "agent.pt"), tiny_world, hopper_dataset, tmp_path, config)


def test_the_buffer_keeps_the_newest_rounds_within_its_bound(tmp_path):
    def round_of(steps):
        return Trajectories(
            np.zeros((1, steps + 1, 2)),
            np.zeros((1, steps, 1)),
            np.zeros((1, steps)),
            np.zeros(1, bool),
            np.array([steps]),
        )

    buffer = SyntheticBuffer(tmp_path, 10)
    for index in range(1, 6):
        buffer.add(index, round_of(4))
        held = list(buffer.rounds)
        again = SyntheticBuffer(tmp_path, 10)
        again.restore(index)
        assert list(again.rounds) == held
        before = SyntheticBuffer(
            tmp_path, 10
        )  # had the round been killed just after its rollouts were written
        before.restore(index - 1)
        assert list(before.rounds) == [n for n in (index - 2, index - 1) if n > 0]
    assert held == [4, 5] and len(list(tmp_path.glob("*.npz"))) == 3


def test_the_command_runs_algorithm_1(hopper_folder, tiny_world_path, tmp_path):
    out = tmp_path / "run"
    common = (
        "loop",
        "bc",
        "--dataset",
        hopper_folder,
        "--world",
        tiny_world_path,
        "--out",
        out,
        "--updates",
        3,
        "--batch",
        8,
        "--horizon",
        4,
        "--device",
        "cpu",
        "--json",
    )
    code, document, _ = run(*common, "--rounds", 1)
    assert code == 0 and document["updates"] == 3
    assert load_agent(out / "agent.pt").world == str(tiny_world_path.resolve())
    code, _, error = run(*common, "--rounds", 2)
    assert code == 2 and "--resume" in error
    code, document, _ = run(*common, "--rounds", 2, "--resume")
    assert code == 0 and [row["round"] for row in document["rounds"]] == [1, 2]


def test_a_loop_killed_outright_goes_on_to_the_same_agent(hopper_folder, tiny_world_path, tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    common = ("loop", "bc", "--dataset", hopper_folder, "--world", tiny_world_path, "--updates", 100, "--rounds", 4,
              "--batch", 8, "--horizon", 4, "--device", "cpu")  # fmt: skip
    kill_when(killed / "agent.pt", *common, "--out", killed)
    assert 0 < load_agent(killed / "agent.pt").updates < 400
    assert run(*common, "--out", killed, "--resume", "--json")[0] == 0
    assert run(*common, "--out", whole, "--json")[0] == 0
    assert_same_agents(killed / "agent.pt", whole / "agent.pt", 400)


def test_a_loop_does_not_go_on_in_another_world(hopper_dataset, tiny_world, tiny_world_path, tmp_path):
    first = LoopConfig(**{**vars(CONFIG), "rounds": 1})
    loop(new_agent(hopper_dataset), tiny_world, hopper_dataset, tmp_path, first)
    other = World.load(tiny_world_path)
    other.start_bank = other.start_bank + 1
    with pytest.raises(DyDiffError, match="another world"):
        loop(load_agent(tmp_path / "agent.pt"), other, hopper_dataset, tmp_path, CONFIG)


@pytest.mark.parametrize(
    "options, words",
    [
        (["--filter", "sofmax"], "softmax"),
        (["--real-ratio", "2"], "real ratio"),
        (["--env", "Hoper-v5"], "Hoper"),
        (["--world", str(embedded.WORLD)], "size"),
    ],
)
def test_wrong_options_leave_an_older_loop_alone(options, words, hopper_folder, tiny_world_path, tmp_path):
    (tmp_path / "agent.pt").write_text("older")
    world = [] if "--world" in options else ["--world", tiny_world_path]
    code, _, error = run("loop", "bc", "--dataset", hopper_folder, "--out", tmp_path, "--overwrite", *world, *options)
    assert code and words in error and (tmp_path / "agent.pt").read_text() == "older"


def test_a_failed_evaluation_of_a_round_is_made_up_for(hopper_dataset, tiny_world, tmp_path, monkeypatch):
    def fails(*arguments, **options):
        raise DyDiffError("the simulator is gone")

    one = LoopConfig(**{**vars(CONFIG), "rounds": 1, "eval_episodes": 1})
    whole = loop(new_agent(hopper_dataset), tiny_world, hopper_dataset, tmp_path / "whole", one, env="Hopper-v5")
    with monkeypatch.context() as broken, pytest.raises(DyDiffError, match="gone"):
        broken.setattr("dydiff_env.agents.trainer.evaluate_returns", fails)
        loop(new_agent(hopper_dataset), tiny_world, hopper_dataset, tmp_path / "broken", one, env="Hopper-v5")
    agent = load_agent(tmp_path / "broken" / "agent.pt")
    assert agent.updates == one.updates
    resumed = loop(agent, tiny_world, hopper_dataset, tmp_path / "broken", one, env="Hopper-v5")
    assert resumed["rounds"][0]["return_mean"] == whole["rounds"][0]["return_mean"]
