"""Goals that are replaced within an episode: what a world is taught of them."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dydiff_env.data.dataset import Dataset, DatasetSpec, Episode
from dydiff_env.data.flattening import columns_of
from dydiff_env.data.goals import one_goal_each


def box(size: int) -> gym.spaces.Box:
    return gym.spaces.Box(-np.inf, np.inf, (size,), np.float32)


SPEC = DatasetSpec(
    gym.spaces.Dict({"achieved_goal": box(2), "desired_goal": box(2), "observation": box(3)}),
    gym.spaces.Box(-1, 1, (1,), np.float32),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=8), min_size=1, max_size=5), st.data())
def test_each_goal_gets_an_episode_and_nothing_else_changes(jumps: list[list[bool]], data: st.DataObject) -> None:
    """``jumps``: for each transition of each episode, whether it replaces the goal."""
    terminated = data.draw(st.lists(st.booleans(), min_size=len(jumps), max_size=len(jumps)))
    rng, episodes = np.random.default_rng(0), []
    for jump, ended in zip(jumps, terminated, strict=True):
        rows = rng.normal(size=(len(jump) + 1, 7)).astype(np.float32)
        rows[:, 2:4] = np.concatenate([[0], np.cumsum(jump)])[:, None]
        episodes.append(Episode(rows, rows[1:, :1], rows[1:, 0], ended))
    before = Dataset.from_episodes(SPEC, episodes)
    after = one_goal_each(before)
    assert columns_of(SPEC.observation_space, "desired_goal") == slice(2, 4)
    old, new = before.flat(), after.flat()
    replaced = np.concatenate(jumps)
    assert np.array_equal(new.observations, old.observations) and np.array_equal(new.rewards, old.rewards)
    kept = [0, 1, 4, 5, 6]
    assert np.array_equal(new.next_observations[:, kept], old.next_observations[:, kept])
    assert np.array_equal(new.next_observations[:, 2:4], new.observations[:, 2:4])  # no goal ever moves
    assert np.array_equal(new.terminated, np.maximum(old.terminated, replaced))
    assert np.array_equal(new.ends, old.ends | replaced)
    assert len(after.observations) == after.transitions + len(after)
    if not replaced.any():
        assert after is before


def test_a_space_without_goals_is_left_alone() -> None:
    spec = DatasetSpec(box(3), SPEC.action_space)
    rows = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    dataset = Dataset.from_episodes(spec, [Episode(rows, rows[1:, :1], rows[1:, 0], False)])
    assert one_goal_each(dataset) is dataset
