"""What a user reads of a world's truth: held-out figures, the simulator, an exact rule of termination."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium.spaces.utils import flatten
from typer.testing import CliRunner

from dydiff_env.cli.app import app
from dydiff_env.data.dataset import DatasetSpec
from dydiff_env.data.simulator import make_env
from dydiff_env.data.trajectories import Trajectories
from dydiff_env.embedded import WORLD
from dydiff_env.errors import DyDiffError
from dydiff_env.evaluation.fidelity import closed_loop, errors, ratio_to
from dydiff_env.evaluation.simulator import Simulator
from dydiff_env.policies import load_policy
from dydiff_env.world.heldout import calibration, return_bounds
from dydiff_env.world.world import World


def test_bounds_are_the_theorems():
    bounds = return_bounds(torch.tensor([0.01, 0.04]), torch.tensor([0.09, 0.01]), reward=2.0, discount=0.9)
    assert bounds["epsilon_m"] == pytest.approx(0.2) and bounds["epsilon_d"] == pytest.approx(0.3)
    assert bounds["lemma_1"] == pytest.approx(2 * 2 * 0.9 * 0.2 / 0.01)  # Eq. 12
    assert bounds["theorem_1"] == pytest.approx(2 * 2 * 0.3 / 0.1)  # Eq. 13


def test_a_right_scale_is_called_calibrated_and_a_wrong_one_not():
    generator = torch.Generator().manual_seed(0)
    expected = torch.rand(200, 20, 3, generator=generator) + 0.1
    error = expected * torch.randn(200, 20, 3, generator=generator)
    mask = torch.ones(200, 20)
    mask[:, 15:] = 0
    error[:, 15:] = torch.nan  # beyond an end there is no error to count
    right, wrong = calibration(expected, error, mask), calibration(expected / 3, error, mask)
    assert right["within_1"] == pytest.approx(0.683, abs=0.02) and right["within_2"] == pytest.approx(0.954, abs=0.02)
    assert wrong["within_1"] < 0.4
    assert right["rank_correlation"] > 0.3
    said, was = np.array(right["bins"]).T
    assert np.all(np.diff(said) >= 0) and np.allclose(said, was, rtol=0.2)


def test_held_out_record_names_bounds_and_calibration(tiny_world):
    record = tiny_world.record["fidelity"]
    assert {"epsilon_m", "epsilon_d", "lemma_1", "theorem_1"} == set(record["bounds"])
    assert 0 <= record["calibration"]["within_1"] <= record["calibration"]["within_2"] <= 1


def test_the_record_tells_what_uncertainty_is_usual(tiny_world):
    usual = tiny_world.record["fidelity"]["uncertainty"]
    assert list(usual) == ["0.5", "0.9", "0.99"] and 0 < usual["0.5"] < usual["0.9"] < usual["0.99"]
    dreamt = tiny_world.dream(load_policy("random", tiny_world.spec), tiny_world.sample_starts(64), iterations=0)
    along = np.concatenate([row[:length] for row, length in zip(dreamt.uncertainties, dreamt.lengths, strict=True)])
    assert usual["0.5"] / 30 < np.median(along) < usual["0.5"] * 30  # in the units that dreams tell theirs in


def test_mazes_tell_the_legal_share_and_one_call_has_no_spread():
    world = World.load(WORLD)
    simulator = Simulator(world.spec)
    policy = load_policy("demo", world.spec)
    result = closed_loop(world, simulator, policy, world.sample_starts(8), horizon=20, iterations=(0, 1))
    simulator.close()
    assert result["real"]["legal"] == 1  # nobody walks through real walls
    assert 0 <= result["M1"]["legal"] <= 1 and result["M1"]["spread"] == 0
    assert result["M0"]["ratio"] == result["M0"]["ratio_high"] == 1
    assert result["M1"]["ratio"] == pytest.approx(result["M1"]["mean"] / result["M0"]["mean"], rel=1e-4)


def test_a_ratio_of_errors_has_an_interval_that_narrows_with_the_starts():
    rng, widths = np.random.default_rng(0), []
    for starts in (16, 1024):
        baseline = rng.exponential(size=(starts, 5))
        mask = np.arange(5) < rng.integers(1, 6, (starts, 1))
        found = ratio_to(0.8 * rng.uniform(0.5, 1.5, baseline.shape) * baseline, baseline, mask)
        assert found["ratio_low"] < found["ratio"] < found["ratio_high"]
        widths.append(found["ratio_high"] - found["ratio_low"])
    assert abs(found["ratio"] - 0.8) < 0.05 and widths[1] < widths[0] / 3
    never = ratio_to(baseline, baseline, np.zeros_like(mask))
    assert never["ratio"] == 0  # no step is known


def test_an_exact_rule_ends_dreams_where_it_says(tiny_world, tiny_world_path):
    world = World.load(tiny_world_path)
    world.use_termination(lambda observations: observations[..., 0] < 1.2)
    for m in (0, 1):
        dream = world.dream(load_policy("random", world.spec), world.sample_starts(32, 1), 20, m)
        height = dream.observations[..., 0]
        for i, steps in enumerate(dream.lengths):
            assert (height[i, 1:steps] >= 1.2 - 1e-4).all()
            assert not dream.terminations[i] or height[i, steps] < 1.2 + 1e-4
    assert dream.terminations.any()
    world.use_termination(None)
    assert world.models.termination.rule is None


def test_a_rule_is_exact_in_refined_dreams_too():
    world = World.load(WORLD)
    goal, place = slice(2, 4), slice(0, 2)  # of the embedded maze's observation

    def near(observations: torch.Tensor) -> torch.Tensor:
        return (observations[..., place] - observations[..., goal]).norm(dim=-1) <= 0.45

    world.use_termination(near)
    for m in (1, 2):
        dream = world.dream(load_policy("demo", world.spec), world.sample_starts(256), 60, m)
        says = near(torch.from_numpy(dream.observations[:, 1:])).numpy()
        first = np.where(says.any(1), says.argmax(1) + 1, 60)
        assert dream.terminations.any() and np.array_equal(dream.terminations, says[np.arange(256), dream.lengths - 1])
        assert (dream.lengths[dream.terminations] == first[dream.terminations]).all()


def test_policies_that_draw_and_simulators_that_cannot_be_set_are_refused(tiny_world):
    simulator = Simulator(tiny_world.spec)
    with pytest.raises(DyDiffError, match="draws its actions"):
        closed_loop(tiny_world, simulator, load_policy("random", tiny_world.spec), tiny_world.sample_starts(4), horizon=4)
    reacher = make_env("Reacher-v5")
    spec = DatasetSpec(reacher.observation_space, reacher.action_space, reacher.spec.to_json())
    with pytest.raises(DyDiffError, match="cannot be set"):
        Simulator(spec)


def test_reality_starts_only_where_the_observation_tells_the_whole_state():
    """Walker2d shows velocities within ±10: what is beyond cannot be set, and what cannot be set is not compared with."""
    with make_env("Walker2d-v5", terminate_when_unhealthy=False) as env:
        spec = DatasetSpec(env.observation_space, env.action_space, env.spec.to_json())
        env.action_space.seed(0)
        seen, actions = [env.reset(seed=0)[0]], []
        for _ in range(200):
            actions.append(env.action_space.sample())
            seen.append(env.step(actions[-1])[0])
    observations, simulator = np.array(seen, np.float32), Simulator(spec)
    known = simulator.known(observations[:-1])
    missed = np.abs(simulator.one_step(observations[:-1], np.array(actions)) - observations[1:]).max(1)
    assert 20 < known.sum() < 180
    assert missed[known].max() < 1e-3 < np.median(missed[~known])
    assert np.array_equal(known, (np.abs(observations[:-1, -9:]) < 10).all(1))
    beyond = observations[:1] + np.eye(1, 17, 16, dtype=np.float32) * 11  # a model may dream of more than is ever seen
    assert not simulator.known(beyond).any()


def test_a_maze_whose_goals_jump_ends_at_the_first_goal_as_its_world_does():
    with make_env("PointMaze_UMaze-v3", continuing_task=True, reset_target=True) as env:
        spec = DatasetSpec(env.observation_space, env.action_space, env.spec.to_json())
        start = flatten(env.observation_space, env.reset(seed=0)[0]).astype(np.float32)
    start[2:4] = start[:2]  # the goal is where the agent is
    simulator = Simulator(spec)
    real = simulator.run(lambda t, o: np.zeros((1, 2)), start[None], 5)
    assert real.terminations[0] and real.lengths[0] == 1
    assert np.array_equal(real.observations[0, 1, 2:4], start[2:4])


def test_a_dream_that_ended_stays_where_it_ended(tiny_world):
    states = np.arange(8, dtype=np.float32)[None, :, None].repeat(11, 2)
    zeros = [np.zeros((1, 7, 3), np.float32), np.zeros((1, 7), np.float32)]
    dream = Trajectories(states, *zeros, np.array([True]), np.array([2]))
    real = Trajectories(np.full_like(states, 2), *zeros, np.array([False]), np.array([7]))
    gap, _ = errors(tiny_world, dream, real)
    assert gap[0, 0] > 0 and (gap[0, 1:] == 0).all()


def test_the_command_compares_the_best_clone_unless_told_otherwise(tiny_world_path):
    arguments = ["fidelity", "--world", str(tiny_world_path), "--starts", "4", "--iterations", "1", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert list(json.loads(result.stdout)["policies"]) == ["a clone of the best episodes"]
    result = CliRunner().invoke(app, [*arguments, "--no-simulator", "--policy", "random"])
    assert result.exit_code == 2 and "simulator" in result.output
    result = CliRunner().invoke(app, [*arguments, "--plot", "nowhere/x.png"])
    assert result.exit_code == 2 and result.stdout == ""  # before the work


def test_without_a_simulator_the_command_says_what_held_out_data_say(tiny_world, tmp_path):
    replace(tiny_world, spec=replace(tiny_world.spec, env_spec=None)).save(tmp_path / "world")
    arguments = ["fidelity", "--world", str(tmp_path / "world"), "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0 and "which environment" in result.stderr
    document = json.loads(result.stdout)
    assert document["policies"] == {} and document["held_out"]["windows"] > 0
    for asked in (["--simulator"], ["--policy", "random"]):
        result = CliRunner().invoke(app, [*arguments, *asked])
        assert result.exit_code == 1 and "which environment" in result.stderr
