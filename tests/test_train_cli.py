"""``train`` and ``evaluate`` as a person runs them."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from dydiff_env.agents import BC, Replay, Run, Schedule, load_agent, train, train_seeds
from dydiff_env.agents.trainer import evaluation
from dydiff_env.cli.app import app
from dydiff_env.cli.summary import summary
from dydiff_env.data.dataset import DatasetSpec
from dydiff_env.errors import DyDiffError
from dydiff_env.evaluation.scores import evaluate_returns
from dydiff_env.evaluation.statistics import bootstrap_interval, interquartile_mean, normalized_scores
from dydiff_env.policies import load_policy


def run(*arguments: object) -> tuple[int, dict, str]:
    """Exit code, JSON document and stderr of a command."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, json.loads(result.stdout) if result.exit_code == 0 else {}, result.stderr


class Still:
    """Stands still and counts how often it is asked."""

    calls = 0

    def act(self, observations, deterministic=True):
        self.calls += 1
        return torch.zeros(len(observations), 3)


def test_train_writes_a_checkpoint_a_log_and_the_promised_document(hopper_folder, tmp_path):
    out = tmp_path / "run" / "ckpt.pt"
    code, document, _ = run(
        "train",
        "td3bc",
        "--dataset",
        hopper_folder,
        "--synthetic",
        hopper_folder,
        "--steps",
        20,
        "--out",
        out,
        "--env-eval",
        "--eval-episodes",
        2,
        "--json",
        "--device",
        "cpu",
    )
    assert code == 0
    assert document["updates"] == 20 and document["updates_per_second"] > 0
    [[updates, mean]] = document["returns"]
    assert updates == 20 and np.isfinite(mean) and np.isfinite(document["normalized_score"])
    with out.with_suffix(".csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["return_mean"]) == pytest.approx(mean) and float(rows[-1]["critic_loss"]) > 0
    assert load_agent(out).updates == 20

    code, document, _ = run("evaluate", "--policy", out, "--episodes", 3, "--json")
    assert code == 0 and document["episodes"] == 3
    assert document["return_ci"][0] <= document["return_mean"] <= document["return_ci"][1]
    assert document["length_mean"] > 0


def test_a_policy_is_evaluated_in_a_dream(tiny_world_path, hopper_dataset, tmp_path):
    out = BC(hopper_dataset.spec).save(tmp_path / "bc.pt")
    code, document, _ = run(
        "evaluate",
        "--policy",
        out,
        "--world",
        tiny_world_path,
        "--episodes",
        4,
        "--horizon",
        9,
        "--json",
        "--device",
        "cpu",
    )
    assert code == 0 and document["episodes"] == 4 and 1 <= document["length_mean"] <= 9


def test_an_output_is_not_replaced_unless_asked(hopper_folder, tmp_path):
    out = tmp_path / "ckpt.pt"
    out.write_text("mine")
    code, _, error = run("train", "bc", "--dataset", hopper_folder, "--steps", 1, "--out", out)
    assert code == 2 and "--overwrite" in error and out.read_text() == "mine"


@pytest.mark.parametrize(("arguments", "code", "words"), [
    (("train", "sac", "--dataset", "DATA", "--out", "OUT"), 2, "td3bc"),
    (("train", "bc", "--dataset", "no/such-v0", "--out", "OUT"), 1, "no/such-v0"),
    (("train", "bc", "--dataset", "DATA", "--out", "OUT", "--world", "no-world"), 1, "no-world"),
    (("train", "bc", "--dataset", "DATA", "--out", "OUT", "--synthetic", "DATA", "--real-ratio", 2), 2, "ratio"),
    (("evaluate", "--policy", "OUT"), 1, "no policy file"),
    (("evaluate", "--policy", "random"), 2, "--env"),
    (("evaluate", "--policy", "random", "--env", "Hoper-v5"), 1, "Hoper"),
    (("evaluate", "--policy", "random", "--env", "Hopper-v5", "--plot", "ope.png"), 2, "--world"),
])  # fmt: skip
def test_mistakes_end_in_one_line_and_its_fix(arguments, code, words, hopper_folder, tmp_path):
    names = {"DATA": hopper_folder, "OUT": tmp_path / "ckpt.pt"}
    found, _, error = run(*(names.get(argument, argument) for argument in arguments))
    assert found == code and words in error and "fix:" in error and "Traceback" not in error
    assert not list(tmp_path.iterdir())


def kill_when(there: Path, *arguments: object) -> None:
    """Run a command in a process of its own and kill it, for good, as soon as a file is there."""
    program = [sys.executable, "-c", "from dydiff_env.cli.app import main; main()"]
    process = subprocess.Popen([*program, *map(str, arguments)], env={**os.environ, "OMP_NUM_THREADS": "1"})
    while not there.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()


def assert_same_agents(one: Path, other: Path, updates: int) -> None:
    left, right = load_agent(one), load_agent(other)
    assert left.updates == right.updates == updates
    for name, value in right.state_dict().items():
        torch.testing.assert_close(left.state_dict()[name], value, atol=1e-6, rtol=0, equal_nan=True)


def test_a_killed_run_resumes_to_the_result_of_the_uninterrupted_one(hopper_folder, tmp_path):
    killed, whole = tmp_path / "killed.pt", tmp_path / "whole.pt"
    command = ("train", "bc", "--dataset", hopper_folder, "--steps", 300, "--checkpoint-every", 50, "--device", "cpu")
    kill_when(killed, *command, "--out", killed)
    assert 0 < load_agent(killed).updates < 300
    assert run(*command, "--out", killed, "--resume", "--json")[0] == 0
    assert run(*command, "--out", whole, "--json")[0] == 0
    assert_same_agents(killed, whole, 300)
    updates = [
        [row["updates"] for row in csv.DictReader(path.with_suffix(".csv").open())]
        for path in (killed, whole)
    ]
    assert updates[0] == updates[1]


def test_seeds_are_trained_side_by_side_as_each_would_be_alone(hopper_folder, tmp_path):
    out, alone = tmp_path / "ckpt.pt", tmp_path / "alone.pt"
    common = ("train", "bc", "--dataset", hopper_folder, "--device", "cpu", "--env-eval", "--eval-episodes", 1, "--json")
    code, document, _ = run(*common, "--out", out, "--steps", 4, "--seeds", "0,7")
    assert code == 0 and document["seeds"] == [0, 7] and document["updates"] == 4
    assert json.loads(out.with_suffix(".json").read_text())["returns"] == document["returns"]
    means = [one["returns"][-1][1] for one in document["runs"]]
    assert document["returns"] == [[4, pytest.approx(np.mean(means)), pytest.approx(np.std(means, ddof=1))]]
    assert run(*common, "--out", alone, "--steps", 4, "--seed", 7)[0] == 0
    assert_same_agents(tmp_path / "ckpt-seed7.pt", alone, 4)
    assert load_agent(tmp_path / "ckpt-seed0.pt").seed == 0 and (tmp_path / "ckpt-seed0.csv").is_file()

    code, _, error = run(*common, "--out", out, "--steps", 6, "--seeds", "7")
    assert code == 2 and "ckpt-seed7.pt exists" in error
    code, document, _ = run(*common, "--out", out, "--steps", 6, "--seeds", "7", "--resume")
    assert code == 0 and [updates for updates, *_ in document["returns"]] == [4, 6]
    for words in ("0,0", "a"):
        code, _, error = run(*common, "--out", tmp_path / "other.pt", "--seeds", words)
        assert code == 2 and "seeds" in error


def test_a_replaced_run_cannot_be_resumed_by_mistake(hopper_folder, tmp_path, monkeypatch):
    out = tmp_path / "ckpt.pt"
    first = Run("bc", str(hopper_folder), out, steps=2)
    first.carry_out()
    with pytest.raises(DyDiffError, match="ratio"):
        replace(first, synthetic=(str(hopper_folder),), real_ratio=2.0).carry_out()
    assert load_agent(out).updates == 2  # a mistake costs nothing
    monkeypatch.setattr("dydiff_env.agents.seeds.train", lambda *arguments, **options: {})
    first.carry_out()  # as if killed before its first checkpoint
    assert not out.exists() and not out.with_suffix(".csv").exists()


def test_a_run_in_the_home_folder_is_gone_on_with(hopper_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    Run("bc", str(hopper_folder), Path("~/ckpt.pt"), steps=2).carry_out()
    assert load_agent(tmp_path / "ckpt.pt").updates == 2
    assert Run("bc", str(hopper_folder), Path("~/ckpt.pt"), steps=3, resume=True).carry_out()["updates"] == 3
    assert [row.split(",")[0] for row in (tmp_path / "ckpt.csv").read_text().split()][1:] == ["2", "3"]


@pytest.mark.parametrize("name", ["td3bc-0.6", "log.csv", "."])
def test_a_checkpoint_is_called_pt(name, hopper_folder, tmp_path, monkeypatch):
    """A number after a dot would pass for an ending: td3bc-0.6 and td3bc-0.8 would share a log."""
    monkeypatch.chdir(tmp_path)
    code, _, error = run("train", "bc", "--dataset", hopper_folder, "--out", name, "--steps", 1)
    assert code == 2 and "does not end in .pt" in error and not list(tmp_path.iterdir())


def test_a_score_is_of_the_datas_own_environment(hopper_dataset):
    agent = BC(hopper_dataset.spec)
    assert "normalized_score" in evaluation(agent, "Hopper-v5", 1)
    assert "normalized_score" not in evaluation(agent, "Hopper-v4", 1)


def test_tensorboard_gets_what_the_log_gets(hopper_dataset, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    schedule = Schedule(log_every=2, eval_every=4, eval_episodes=1)
    train(BC(hopper_dataset.spec), Replay(hopper_dataset), 4, tmp_path / "bc.pt", schedule=schedule,
          env="Hopper-v5", tensorboard=tmp_path / "events")  # fmt: skip
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    with (tmp_path / "bc.csv").open() as file:
        rows = list(csv.DictReader(file))
    losses = [(event.step, event.value) for event in events.Scalars("actor_loss")]
    assert losses == [(int(row["updates"]), pytest.approx(float(row["actor_loss"]))) for row in rows]
    assert events.Scalars("return_mean")[0].value == pytest.approx(float(rows[-1]["return_mean"]))


def test_a_missing_tensorboard_costs_no_checkpoint(hopper_folder, tmp_path, monkeypatch):
    out = tmp_path / "ckpt.pt"
    Run("bc", str(hopper_folder), out, steps=2).carry_out()
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(DyDiffError, match="TensorBoard is not installed"):
        Run("bc", str(hopper_folder), out, steps=4, tensorboard=tmp_path / "events").carry_out()
    assert load_agent(out).updates == 2


def test_resuming_as_another_run_is_refused(hopper_folder, tmp_path):
    out = tmp_path / "ckpt.pt"
    common = ("train", "bc", "--dataset", hopper_folder, "--out", out, "--steps")
    assert run(*common, 2, "--json")[0] == 0
    code, _, error = run(*common, 4, "--resume", "--seed", 1)
    assert code == 2 and "another run" in error


def test_evaluation_falls_on_schedule_and_at_the_end(hopper_dataset, tmp_path):
    agent, schedule = BC(hopper_dataset.spec), Schedule(eval_every=4, eval_episodes=1)
    document = train(
        agent, Replay(hopper_dataset), 10, tmp_path / "bc.pt", schedule=schedule, env="Hopper-v5"
    )
    assert [updates for updates, _ in document["returns"]] == [4, 8, 10]


def test_each_episode_counts_once_with_its_own_steps():
    still = Still()
    found = evaluate_returns(still, "Hopper-v5", 5, seed=3, num_envs=2)
    alone = evaluate_returns(still, "Hopper-v5", 1, seed=3)
    assert len(found.returns) == len(found.lengths) == 5
    assert found.returns[0] == pytest.approx(alone.returns[0]) and found.lengths[0] == alone.lengths[0]
    # A hopper that stands still earns about 1 a step: no step of a reset is counted, none is lost.
    assert np.abs(found.returns / found.lengths - 1).max() < 0.3


def test_a_policy_may_answer_in_numpy_and_learns_nothing_from_being_evaluated():
    weight, learning = torch.zeros(1, requires_grad=True), []

    class Learner(Still):
        def act(self, observations, deterministic=True):
            actions = super().act(observations) + weight
            learning.append(actions.requires_grad)
            return actions

    class ByNumpy(Still):
        def act(self, observations, deterministic=True):
            return super().act(observations).numpy()

    found = [evaluate_returns(policy, "Hopper-v5", 2, seed=np.int64(1), horizon=20).returns for policy in (Still(), Learner(), ByNumpy())]
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])
    assert learning and not any(learning)


class Strict(gym.Env):
    """Takes no action outside its space, whose bounds no float32 hits."""

    observation_space = gym.spaces.Box(-1, 1, (1,))
    action_space = gym.spaces.Box(-0.1, 0.1, (2, 2), np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action)
        return np.zeros(1, np.float32), 1.0, False, False, {}


def test_actions_at_a_bound_lie_in_the_environments_space(monkeypatch):
    entry = gym.envs.registration.EnvSpec("Strict-v0", f"{__name__}:Strict", max_episode_steps=3, disable_env_checker=True)
    monkeypatch.setitem(gym.registry, "Strict-v0", entry)
    spec = DatasetSpec(Strict.observation_space, Strict.action_space)
    policy = load_policy(lambda rows: torch.full((len(rows), 4), 5.0), spec)
    assert (evaluate_returns(policy, "Strict-v0", 2).returns == 3).all()
    with pytest.raises(DyDiffError, match=r"takes actions of Discrete"):
        evaluate_returns(policy, "CartPole-v1", 2)


def test_an_environment_that_may_never_end_is_not_waited_for():
    gym.register("Endless-v0", lambda: gym.make("Hopper-v5", terminate_when_unhealthy=False).unwrapped)
    try:
        with pytest.raises(DyDiffError, match="no time limit"):
            evaluate_returns(Still(), "Endless-v0", 1)
    finally:
        del gym.registry["Endless-v0"]


def test_a_policy_of_the_wrong_width_is_one_clear_error():
    with pytest.raises(DyDiffError, match="Walker2d-v5 takes"):
        evaluate_returns(Still(), "Walker2d-v5", 2)


def test_scores_and_means_are_what_they_are_called():
    assert interquartile_mean([0, 1, 2, 100]) == pytest.approx(1.5)
    assert interquartile_mean([0, 1, 2, 3, 100]) == pytest.approx((0.75 * 1 + 2 + 0.75 * 3) / 2.5)
    spec = DatasetSpec(None, None, ref_min_score=10.0, ref_max_score=110.0)  # type: ignore[arg-type]
    np.testing.assert_allclose(normalized_scores(np.array([10, 60, 110]), spec), [0, 50, 100])
    low, high = bootstrap_interval(np.arange(100.0))
    assert low < 49.5 < high and high - low == pytest.approx(4 * 28.9 / 10, rel=0.15)


def test_resuming_with_other_synthetic_data_is_refused(hopper_folder, tmp_path):
    out = tmp_path / "ckpt.pt"
    common = ("train", "bc", "--dataset", hopper_folder, "--synthetic", hopper_folder, "--out", out, "--steps")
    assert run(*common, 2, "--json")[0] == 0
    code, _, error = run(*common, 4, "--resume", "--real-ratio", 0.1)
    assert code == 2 and "other synthetic data" in error
    assert run(*common, 4, "--resume", "--json")[0] == 0


def test_files_beside_the_checkpoint_are_not_replaced_unless_asked(hopper_folder, tmp_path):
    mine = tmp_path / "hopper.csv"
    mine.write_text("my own log")
    code, _, error = run("train", "bc", "--dataset", hopper_folder, "--steps", 2, "--out", tmp_path / "hopper.pt")
    assert code == 2 and "hopper.csv exists" in error and mine.read_text() == "my own log"


def test_what_comes_next_can_be_done_without_an_environment(hopper_dataset, tmp_path):
    for spec, words in ((hopper_dataset.spec, []), (replace(hopper_dataset.spec, env_spec=None), ["--world", "w"])):
        BC(spec, world="w").save(tmp_path / "a.pt")
        said = summary("inspect", {"path": str(tmp_path / "a.pt"), "kind": "policy", "format": "agent"})[1][0]
        assert said.split() == ["dydiff-env", "evaluate", "--policy", str(tmp_path / "a.pt"), *words]


def test_an_environment_of_other_sizes_costs_nothing(hopper_folder, tiny_world_path, tmp_path):
    out = tmp_path / "ckpt.pt"
    code, _, error = run("train", "bc", "--dataset", hopper_folder, "--steps", 2, "--out", out, "--env", "Pendulum-v1")
    assert code == 2 and "Pendulum-v1 has observations and actions of sizes (3, 1), these are of (11, 3)" in error and not out.exists()
    asked = ("evaluate", "--policy", "random", "--world", tiny_world_path, "--env", "Pendulum-v1", "--horizon", 5)
    assert run(*asked)[0] == 2


def test_an_environment_that_cannot_be_made_costs_nothing(hopper_folder, tmp_path):
    out = tmp_path / "ckpt.pt"
    common = ("train", "bc", "--dataset", hopper_folder, "--steps", 2, "--out", out)
    assert run(*common, "--json")[0] == 0
    before = out.read_bytes()
    code, _, error = run(*common, "--overwrite", "--env", "Hoper-v5")
    assert code == 1 and "Hoper-v5" in error and out.read_bytes() == before


def test_an_evaluation_that_fails_costs_no_updates_and_is_made_up_for(hopper_dataset, tmp_path, monkeypatch):
    def fails(*arguments: object, **options: object) -> None:
        raise DyDiffError("the simulator is gone")

    how = {"schedule": Schedule(log_every=2, eval_every=4, eval_episodes=1), "env": "Hopper-v5"}
    whole = train(BC(hopper_dataset.spec), Replay(hopper_dataset), 8, tmp_path / "whole.pt", **how)
    out = tmp_path / "broken.pt"
    with monkeypatch.context() as broken, pytest.raises(DyDiffError, match="gone"):
        broken.setattr("dydiff_env.agents.trainer.evaluate_returns", fails)
        train(BC(hopper_dataset.spec), Replay(hopper_dataset), 8, out, **how)
    assert load_agent(out).updates == 4
    resumed = train(load_agent(out), Replay(hopper_dataset), 8, out, **how)
    assert resumed["returns"] == whole["returns"] and [updates for updates, _ in whole["returns"]] == [4, 8]
    with out.with_suffix(".csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["updates"] for row in rows] == ["2", "4", "6", "8"] and all(row["actor_loss"] for row in rows)


def test_the_seed_decides_what_a_policy_draws(hopper_dataset):
    policy = load_policy("random", hopper_dataset.spec)
    one, same, other = (evaluate_returns(policy, "Hopper-v5", 2, seed=seed).returns for seed in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


@pytest.mark.parametrize("low, high", [(0.0, 0.0), (5.0, 1.0)])
def test_scores_need_an_expert_better_than_random(low, high, hopper_dataset):
    spec = replace(hopper_dataset.spec, ref_min_score=low, ref_max_score=high)
    assert normalized_scores(np.ones(3), spec) is None


def test_old_seeds_make_room_before_the_first_begins_and_for_no_run_that_cannot(hopper_folder, tmp_path, monkeypatch):
    run = Run("bc", str(hopper_folder), tmp_path / "a.pt", steps=1)
    olds = [one.out for one in map(run.under, (0, 1, 2))]
    for old in olds:
        old.write_text("old")
    with pytest.raises(DyDiffError):
        train_seeds(replace(run, dataset=str(tmp_path / "nowhere")), [0, 1, 2])
    assert all(old.exists() for old in olds)

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dydiff_env.agents.seeds.ProcessPoolExecutor", killed)
    with pytest.raises(KeyboardInterrupt):
        train_seeds(run, [0, 1, 2])
    assert not any(old.exists() for old in olds)  # --resume would have gone on with them
