"""What a user reads of a world's truth: held-out figures, the simulator, an exact rule of termination."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dydiff_env.embedded import WORLD
from dydiff_env.evaluation.fidelity import closed_loop
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


def test_mazes_tell_the_legal_share_and_one_call_has_no_spread():
    world = World.load(WORLD)
    simulator = Simulator(world.spec)
    policy = load_policy("demo", world.spec)
    result = closed_loop(world, simulator, policy, world.sample_starts(8), horizon=20, iterations=(0, 1))
    simulator.close()
    assert result["real"]["legal"] == 1  # nobody walks through real walls
    assert 0 <= result["M1"]["legal"] <= 1 and result["M1"]["spread"] == 0


def test_an_exact_rule_ends_dreams_where_it_says(tiny_world, tiny_world_path):
    world = World.load(tiny_world_path)
    world.use_termination(lambda observations: observations[..., 0] < 1.1)
    for m in (0, 1):
        dream = world.dream(load_policy("random", world.spec), world.sample_starts(32, 1), 20, m)
        height = dream.observations[..., 0]
        for i, steps in enumerate(dream.lengths):
            assert (height[i, 1:steps] >= 1.1 - 1e-4).all()
            assert not dream.terminations[i] or height[i, steps] < 1.1 + 1e-4
    assert dream.terminations.any()
    world.use_termination(None)
    assert world.models.termination.rule is None
