"""What a fit finds that the single-step model is to be shown."""

from __future__ import annotations

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch

from dydiff_env.data.dataset import Dataset, DatasetSpec, Episode
from dydiff_env.world.fit_single_step import fit_dynamics
from dydiff_env.world.fitting import Fitting
from dydiff_env.world.presets import TINY
from dydiff_env.world.sight import WAVES, choose_sight


def springs(seed: int = 0, episodes: int = 40, steps: int = 60) -> Dataset:
    """A damped weight on a spring whose strength is controlled: smooth everywhere."""
    return _dataset(lambda x, v, a: (0.98 * x + 0.1 * v, 0.9 * v - 0.05 * x + 0.3 * a * x), seed, episodes, steps)


def fences(seed: int = 0, episodes: int = 40, steps: int = 60) -> Dataset:
    """A ball that is thrown back at every fence it meets, half a unit from the next."""

    def step(x: float, v: float, a: float) -> tuple[float, float]:
        hit = np.floor(2 * (x + 0.2 * v)) != np.floor(2 * x)
        return (x, -v) if hit else (x + 0.2 * v, np.clip(0.9 * v + 0.5 * a, -1, 1))

    return _dataset(step, seed, episodes, steps)


def _dataset(step, seed, episodes, steps):
    rng, found = np.random.default_rng(seed), []
    for _ in range(episodes):
        state, states = tuple(rng.normal(size=2)), []
        actions = rng.uniform(-1, 1, (steps, 1)).astype(np.float32)
        for action in [*actions[:, 0], 0.0]:
            states.append(state)
            state = step(*state, action)
        found.append(Episode(np.array(states, np.float32), actions, np.zeros(steps, np.float32), False))
    box = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32), gym.spaces.Box(-1, 1, (1,), np.float32)
    return Dataset.from_episodes(DatasetSpec(*box, None, "tests/sight-v0"), found)


@pytest.mark.parametrize("data, sharp", [(springs(), False), (fences(), True)], ids=["smooth", "sharp"])
def test_waves_are_for_what_is_sharp(data, sharp, tmp_path):
    open_to = replace(TINY, dynamics=replace(TINY.dynamics, frequencies=None))
    fitting = Fitting(data, open_to, 0, tmp_path, torch.device("cpu"))
    found = choose_sight(fitting, fit_dynamics)["waves"]
    assert (len(found["kept"]) > 0) == sharp, found
    assert fitting.preset.dynamics.frequencies == fitting.models.dynamics.frequencies == tuple(found["kept"])
    assert found["kept"] == [] or found["errors"][WAVES.index(tuple(found["kept"]))] < 0.85 * found["errors"][0]
    assert f"up to {found['kept'][-1]:g}." in found["reason"] if sharp else "sees none" in found["reason"]


def test_what_a_preset_says_is_not_tried(tmp_path):
    fitting = Fitting(springs(episodes=4), TINY, 0, tmp_path, torch.device("cpu"))
    before = fitting.models.dynamics
    assert choose_sight(fitting, fit_dynamics) == {}
    assert fitting.models.dynamics is before and fitting.preset is TINY and not list(tmp_path.iterdir())
