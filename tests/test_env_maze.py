"""Dict observations keep their structure in the dream, and mazes and MuJoCo states are drawn as they are."""

from __future__ import annotations

import dataclasses
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import dydiff_env.envs
from dydiff_env.data.dataset import Dataset, DatasetSpec
from dydiff_env.data.recorder import record
from dydiff_env.data.simulator import make_env
from dydiff_env.envs.rendering import MazeRenderer, MujocoRenderer, NumbersRenderer, make_renderer
from dydiff_env.world.presets import TINY
from dydiff_env.world.world import World

pytest.importorskip("gymnasium_robotics")
dydiff_env.envs.register()


@pytest.fixture(scope="module")
def maze_world() -> World:
    """A world of the real PointMaze, hardly trained: what it dreams does not matter here."""
    rng = np.random.default_rng(0)
    episodes = list(
        record("PointMaze_UMaze-v3", lambda x: rng.uniform(-1, 1, (len(x), 2)), steps=1200, num_envs=4)
    )
    with make_env("PointMaze_UMaze-v3") as env:
        spec = DatasetSpec(env.observation_space, env.action_space, env.spec.to_json(), "tests/umaze-v0")
    hasty = {
        name: dataclasses.replace(value, steps=20)
        for name, value in vars(TINY).items()
        if name.endswith("_training")
    }
    return World.fit(Dataset.from_episodes(spec, episodes), preset=dataclasses.replace(TINY, **hasty))


def test_dict_observations_are_the_sources(maze_world: World) -> None:
    env = gym.make("DyDiffDream-v0", world=maze_world, policy="random", horizon=6)
    observation, _ = env.reset(seed=0)
    assert observation in env.observation_space and set(observation) == {
        "observation",
        "achieved_goal",
        "desired_goal",
    }
    given, _ = env.reset(options={"observation": observation})
    for key, value in observation.items():
        np.testing.assert_allclose(given[key], value, atol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*(minimum|maximum) value is -?infinity.*")
        check_env(env.unwrapped)


def test_batched_dict_observations_and_final_ones(maze_world: World) -> None:
    env = gym.make_vec("DyDiffDream-v0", num_envs=3, world=maze_world, horizon=2, autoreset_mode="SameStep")
    observations, _ = env.reset(seed=0)
    for _ in range(4):
        assert observations in env.observation_space
        observations, *_, infos = env.step(env.action_space.sample())
        for row in np.flatnonzero(infos.get("_final_obs", [])):
            assert infos["final_obs"][row] in env.single_observation_space


def test_a_maze_is_drawn_from_above(maze_world: World) -> None:
    renderer = make_renderer(maze_world)
    assert isinstance(renderer, MazeRenderer)
    space = maze_world.spec.observation_space
    state = {"achieved_goal": [1.0, 1.0], "desired_goal": [-1.0, -1.0], "observation": [1.0, 1.0, 0.0, 0.0]}
    renderer.begin(gym.spaces.flatten(space, {key: np.array(value) for key, value in state.items()}))
    picture = renderer.frame()
    middle = renderer.cell // 2
    cells = picture[middle :: renderer.cell, middle :: renderer.cell]  # a 5 × 5 maze, one pixel a cell
    assert (cells[0] == 90).all() and (cells[2, 1] == 90).all()  # walls
    assert (cells[1, 2] == 245).all() and (cells[2, 3] == 245).all()  # ways
    assert tuple(cells[1, 3]) == (30, 80, 200) and tuple(cells[3, 1]) == (
        222,
        60,
        50,
    )  # the point and its goal


def test_a_mujoco_state_is_drawn_by_its_own_environment(tiny_world: World) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Drawing numbers")
        renderer = make_renderer(tiny_world)
    if isinstance(renderer, NumbersRenderer):
        pytest.skip("OpenGL does not work here")
    assert isinstance(renderer, MujocoRenderer)
    base = renderer.env.unwrapped
    state = np.linspace(0.1, 0.6, 11).astype(np.float32)
    state[0] = 1.2
    renderer.begin(state)
    renderer.frame()
    np.testing.assert_allclose(np.r_[base.data.qpos[1:], base.data.qvel], state, atol=1e-6)
    renderer.advance(state)
    renderer.frame()
    assert base.data.qpos[0] == pytest.approx(state[5] * base.dt)  # x, which the observation leaves out
    renderer.close()


def test_numbers_are_drawn_where_nothing_else_can_be(tiny_world: World) -> None:
    nameless = dataclasses.replace(tiny_world, spec=dataclasses.replace(tiny_world.spec, env_spec=None))
    with pytest.warns(UserWarning, match="Drawing numbers"):
        renderer = make_renderer(nameless)
    renderer.begin(tiny_world.sample_starts(1)[0])
    before = renderer.frame()
    for _ in range(200):
        renderer.advance(tiny_world.sample_starts(1, seed=1)[0])
    after = renderer.frame()
    assert before.shape == after.shape and after.dtype == np.uint8 and not np.array_equal(before, after)
