"""Dreams stay where observations can be."""

from __future__ import annotations

from dataclasses import replace

import gymnasium as gym
import numpy as np
import torch
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from dydiff_env import World
from dydiff_env.data.dataset import Dataset, DatasetSpec, Episode
from dydiff_env.data.normalizer import Normalizer
from dydiff_env.policies.loader import as_policy
from dydiff_env.world.edges import edges


def log(observations: np.ndarray, space: gym.spaces.Box | None = None) -> Dataset:
    """Episodes (N, L+1, O) whose actions and rewards do not matter."""
    spec = DatasetSpec(space or gym.spaces.Box(-np.inf, np.inf, observations.shape[2:]), gym.spaces.Box(-1, 1, (1,)))
    steps = observations.shape[1] - 1
    nothing = np.zeros((steps, 1), np.float32)
    return Dataset.from_episodes(spec, [Episode(rows.astype(np.float32), nothing, nothing[:, 0], False) for rows in observations])


def test_an_edge_is_touched_often_and_never_crossed():
    rng = np.random.default_rng(0)
    free = rng.normal(size=(20, 501))
    angle = np.cumsum(rng.normal(size=(20, 501)), 1)
    begins = np.abs(rng.normal(size=(20, 501))) + 5
    begins[:, 0] = 0.0  # every episode's first state, which is no edge
    columns = [free, free.clip(-1.5, 2), np.cos(angle), begins, (free > 2).astype(float)]
    data = log(np.stack(columns, -1))
    low, high = edges(data, data.observations.std(0))
    np.testing.assert_allclose(low, [-np.inf, -1.5, -1, -np.inf, 0], atol=1e-3)
    np.testing.assert_allclose(high, [np.inf, 2, 1, np.inf, 1], atol=1e-3)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), width=st.floats(0.01, 3), episodes=st.integers(1, 5))
def test_no_logged_observation_is_beyond_an_edge(seed, width, episodes):
    rng = np.random.default_rng(seed)
    data = log(rng.normal(size=(episodes, 40, 3)).clip(-width, width) * rng.uniform(0.1, 10, 3))
    low, high = edges(data, data.observations.std(0))
    assert (data.observations >= low.astype(np.float32)).all() and (data.observations <= high.astype(np.float32)).all()


def test_bounds_that_the_log_does_not_keep_to_do_not_count():
    space = gym.spaces.Box(np.array([-1, -1], np.float32), np.array([1, 1], np.float32))
    rows = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 30, 2))
    rows[0, 3] = [0.5, 1.25]
    data = log(rows, space)
    low, high = edges(data, data.observations.std(0))
    assert low.tolist() == [-1, -1] and high.tolist() == [1, np.inf]


def test_a_goal_may_be_asked_for_anywhere():
    rows = np.random.default_rng(0).normal(size=(40, 30, 2))
    rows[:, :, 1] = np.arange(40)[:, None] % 4
    data = log(rows)
    assert np.isinf(edges(data, data.observations.std(0))).all()


def test_what_is_dreamt_is_an_observation(tiny_world, tmp_path):
    """However wild the single-step model: in memory, and read again from disk."""
    size = tiny_world.spec.observation_size
    space = gym.spaces.Box(-0.5, 0.75, (size,))
    bounded = Normalizer(tiny_world.normalizer.mean, tiny_world.normalizer.std, torch.full((size,), -0.5), torch.full((size,), 0.75))
    world = replace(tiny_world, spec=replace(tiny_world.spec, observation_space=space), normalizer=bounded)
    world.save(tmp_path / "bounded")
    policy = as_policy(lambda rows: torch.ones(len(rows), tiny_world.spec.action_size), world.spec)
    starts = tiny_world.sample_starts(16, seed=0).clip(-0.5, 0.75)
    for one in (world, World.load(tmp_path / "bounded")):
        for iterations in (0, 1):
            dream = one.dream(policy, starts, 30, iterations)
            assert (dream.observations >= -0.5).all() and (dream.observations <= 0.75).all()
    unbounded = tiny_world.dream(policy, starts, 30)
    assert (unbounded.observations > 0.75).any()
    env = gym.make("DyDiffDream-v0", world=tmp_path / "bounded", policy=policy)
    check_env(env.unwrapped, skip_render_check=True)
    env.close()


def test_a_fit_finds_the_edges(tiny_world_path, tmp_path):
    tiny = World.load(tiny_world_path)
    low, high = tiny.normalizer.low, tiny.normalizer.high
    assert (low < tiny.normalizer.mean).all() and (high > tiny.normalizer.mean).all()
    far = torch.full((1, len(low)), 1e6)
    torch.testing.assert_close(tiny.normalizer.denormalize(tiny.normalizer.within(far)), tiny.normalizer.denormalize(far))
