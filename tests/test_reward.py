"""What rewards are told by is found out, where a preset leaves it open."""

from __future__ import annotations

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch

from dydiff_env.data.dataset import Dataset, DatasetSpec, Episode
from dydiff_env.world.fit_single_step import fit_reward
from dydiff_env.world.fitting import Fitting
from dydiff_env.world.presets import FAST, PAPER, QUICK, TINY


def walk(by_the_next: bool) -> Dataset:
    """A random walk, rewarded for where it goes, or for where it is and what is done there."""
    rng, found = np.random.default_rng(0), []
    for _ in range(40):
        actions = rng.uniform(-1, 1, (60, 1)).astype(np.float32)
        states = rng.normal(size=(61, 1)).astype(np.float32)
        states[1:] += 0.3 * actions
        rewards = (states[1:, 0] > 0.5) if by_the_next else np.sin(states[:-1, 0]) - actions[:, 0] ** 2
        found.append(Episode(states, actions, rewards.astype(np.float32), False))
    box = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32), gym.spaces.Box(-1, 1, (1,), np.float32)
    return Dataset.from_episodes(DatasetSpec(*box, None, "tests/walk-v0"), found)


@pytest.mark.parametrize("by_the_next", [True, False])
def test_the_next_state_is_asked_where_it_tells(by_the_next, tmp_path):
    preset = replace(TINY, reward=replace(TINY.reward, next_state=None))
    fitting = Fitting(walk(by_the_next), preset, 0, tmp_path, torch.device("cpu"))
    found = fit_reward(fitting)
    assert fitting.preset.reward.next_state is by_the_next
    assert fitting.models.reward.config.next_state or not by_the_next
    assert found["r2"] > (0.6 if by_the_next else 0.95)
    states, actions, following = torch.zeros(3, 1), torch.zeros(3, 1), torch.tensor([[-1.0], [0.0], [2.0]])
    told = fitting.models.reward(states, actions, following)
    assert (told.std() > 0.3) == by_the_next
    if by_the_next:
        assert found["next_state"]["kept"] and found["next_state"]["without"] < 0.3
    again = Fitting(walk(by_the_next), preset, 0, tmp_path, torch.device("cpu"))  # a fit that was stopped goes on with the same choice
    assert fit_reward(again)["r2"] == pytest.approx(found["r2"], abs=1e-6)
    assert again.preset == fitting.preset


def test_an_end_that_is_never_shown_is_not_told(tmp_path):
    """The last part of each of a few long episodes is held out, and with it every end."""
    data = walk(True)
    episodes = [data.episode(i)._replace(terminated=True) for i in range(2)]
    few = {"reward_training": replace(TINY.reward_training, steps=50), "reward": replace(TINY.reward, next_state=None)}
    fitting = Fitting(Dataset.from_episodes(data.spec, episodes), replace(TINY, horizon=8, **few), 0, tmp_path, torch.device("cpu"))
    assert not np.isin(fitting.batches.terminal_steps, fitting.split.train).any()
    fit_reward(fitting)
    assert not fitting.models.reward.config.ends


def test_the_papers_reward_is_of_state_and_action():
    assert PAPER.reward.next_state is False and FAST.reward.next_state is QUICK.reward.next_state is None
