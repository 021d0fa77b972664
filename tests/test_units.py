"""A log may have its numbers in any unit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

from dydiff_env.data.dataset import Dataset, DatasetSpec, Episode
from dydiff_env.data.normalizer import Normalizer
from dydiff_env.errors import DyDiffError
from dydiff_env.policies.behavior import clone
from dydiff_env.world.presets import TINY
from dydiff_env.world.training import TrainingConfig, train
from dydiff_env.world.world import World


def log(scale: float, offset: float = 0.0) -> Dataset:
    """s' = .9 s + .3 a, with actions in a unit of their own; a step is paid s + a."""
    rng, found = np.random.default_rng(0), []
    for _ in range(60):
        actions, states = rng.uniform(-1, 1, 40), [rng.normal()]
        for action in actions:
            states.append(0.9 * states[-1] + 0.3 * action)
        rewards = np.array(states[:-1]) + actions
        parts = np.array(states)[:, None], scale * actions[:, None] + offset, rewards
        found.append(Episode(*(part.astype(np.float32) for part in parts), False))
    bounds = gym.spaces.Box(offset - scale, offset + scale, (1,), np.float32)
    return Dataset.from_episodes(DatasetSpec(gym.spaces.Box(-np.inf, np.inf, (1,), np.float32), bounds), found)


SHORT = {name: replace(getattr(TINY, name), steps=100) for name in ("denoiser_training", "behavior_training", "termination_training")}


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1e-3, 0.0), (1e3, 0.0), (100.0, 101_325.0)])
def test_a_world_is_as_good_in_any_unit_of_actions(scale: float, offset: float, tmp_path) -> None:
    World.fit(log(scale, offset), preset=replace(TINY, **SHORT), out=tmp_path / "world")
    world = World.load(tmp_path / "world")
    assert (float(world.models.dynamics.units.scale) == 1.0) == (scale == 1.0)  # what is of order one is left as it is
    starts = world.sample_starts(200)
    low, high = (
        world.dream(None, starts, 1, first_actions=np.full((200, 1), offset + sign * scale, np.float32)) for sign in (-1, 1)
    )
    np.testing.assert_allclose((high.observations - low.observations)[:, 1].mean(), 0.6, atol=0.02)
    np.testing.assert_allclose((high.rewards - low.rewards).mean(), 2.0, atol=0.2)
    clone = world.models.behavior(0, torch.zeros(1, 1))
    assert abs(float(clone.detach()) - offset) < 0.3 * scale  # actions are drawn around the offset
    assert world.record["training"]["reward"]["r2"] > 0.98


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1e-3, 0.0), (100.0, 101_325.0)])
def test_a_clone_of_the_log_draws_in_its_unit(scale: float, offset: float) -> None:
    policy = clone(log(scale, offset), updates=800)
    drawn = policy.act(torch.zeros(4000, 1), deterministic=False)
    assert float(drawn.std()) == pytest.approx(scale / 3**0.5, rel=0.1)  # a uniform distribution's
    assert abs(float(drawn.mean()) - offset) < 0.2 * scale


def test_a_training_that_diverges_says_so_and_leaves_no_checkpoint(tmp_path: Path) -> None:
    module, file = torch.nn.Linear(1, 1), tmp_path / "model.pt"

    def loss(generator: torch.Generator, step: int) -> torch.Tensor:
        return module(torch.ones(1, 1)).sum() * float("nan" if step > 5 else 1)

    with pytest.raises(DyDiffError, match="training of it has diverged"):
        train("it", module, loss, TrainingConfig(steps=20, evaluate_every=4), seed=0, checkpoint=file)
    assert not file.exists()


def test_a_checkpoint_of_another_version_is_not_gone_on_with(tmp_path: Path) -> None:
    module, file = torch.nn.Linear(1, 1), tmp_path / "model.pt"

    def go_on(steps: int) -> None:
        train("it", module, lambda *_: module(torch.ones(1, 1)).square().sum(), TrainingConfig(steps=steps), seed=0, checkpoint=file)

    go_on(5)
    state = torch.load(file, weights_only=True)
    del state["module"]["bias"]
    torch.save(state, file)
    with pytest.raises(DyDiffError, match="another version's"):
        go_on(9)


def test_what_lies_far_from_zero_is_told_of() -> None:
    degrees = 47.1234567 + 3e-4 * np.random.default_rng(0).normal(size=(1000, 1))
    with pytest.warns(UserWarning, match="varies by 0.0003 around 47.1"):
        Normalizer.fit(degrees.astype(np.float32))


def test_what_hardly_varies_is_told_of_and_counts_as_constant() -> None:
    rng = np.random.default_rng(0)
    rows = np.stack([1e-7 * rng.normal(size=500), rng.normal(size=500), np.full(500, 0.1)], 1).astype(np.float32)
    with pytest.warns(UserWarning, match=r"Number 0 .* varies by 1e-07 only"):
        found = Normalizer.fit(rows)
    assert found.std[0] == found.std[2] == 1.0 != found.std[1]
