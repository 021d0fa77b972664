"""Goals that are replaced within an episode: what a world is taught of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import gymnasium as gym
import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dydiff_env.data import goals
from dydiff_env.data.collect import CollectConfig, collect_maze
from dydiff_env.data.dataset import Dataset, DatasetSpec, Episode
from dydiff_env.data.goals import one_goal_each
from dydiff_env.data.minari_io import load_dataset
from dydiff_env.data.registry import Destination


def box(size: int) -> gym.spaces.Box:
    return gym.spaces.Box(-np.inf, np.inf, (size,), np.float32)


SPEC = DatasetSpec(
    gym.spaces.Dict({"achieved_goal": box(2), "desired_goal": box(2), "observation": box(3)}),
    gym.spaces.Box(-1, 1, (1,), np.float32),
)


JUMPS = st.lists(st.lists(st.booleans(), min_size=1, max_size=8), min_size=1, max_size=5)
"""For each transition of each episode, whether the goal is another one after it."""


def log(jumps: list[list[bool]], rewards: list[np.ndarray], terminated: list[bool]) -> Dataset:
    rng, episodes = np.random.default_rng(0), []
    for jump, reward, ended in zip(jumps, rewards, terminated, strict=True):
        rows = rng.normal(size=(len(jump) + 1, 7)).astype(np.float32)
        rows[:, 2:4] = np.concatenate([[0], np.cumsum(jump)])[:, None]
        episodes.append(Episode(rows, rows[1:, :1], reward.astype(np.float32), ended))
    return Dataset.from_episodes(SPEC, episodes)


def check_stretches(before: Dataset, after: Dataset, reached: np.ndarray) -> None:
    """``reached`` (T,): the transitions that reached a goal which was then replaced."""
    old, new, kept = before.flat(), after.flat(), [0, 1, 4, 5, 6]
    assert np.array_equal(new.rewards, old.rewards) and np.array_equal(new.actions, old.actions)
    assert np.array_equal(new.observations[:, kept], old.observations[:, kept])
    assert np.array_equal(new.next_observations[:, kept], old.next_observations[:, kept])
    assert np.array_equal(new.next_observations[:, 2:4], new.observations[:, 2:4])  # no goal ever moves
    assert np.array_equal(new.terminated, np.maximum(old.terminated, reached))
    assert np.array_equal(new.ends, old.ends | reached)
    assert len(after.observations) == after.transitions + len(after)


@settings(max_examples=50, deadline=None)
@given(JUMPS, st.data())
def test_the_next_goal_is_shown_where_the_old_one_is_reached(jumps: list[list[bool]], data: st.DataObject) -> None:
    terminated = data.draw(st.lists(st.booleans(), min_size=len(jumps), max_size=len(jumps)))
    reached = np.concatenate(jumps)
    # A goal that was reached by an episode's only transition leaves nothing to compare its reward with.
    assume(not reached.any() or any(True in jump[1:] for jump in jumps))
    before = log(jumps, [np.array(jump) * 2.0 ** np.arange(len(jump)) for jump in jumps], terminated)
    with patch.object(goals, "OFTEN", 1.0):
        after = one_goal_each(before)
    check_stretches(before, after, reached)
    assert np.array_equal(after.flat().observations, before.flat().observations)
    if not reached.any():
        assert after is before


@settings(max_examples=50, deadline=None)
@given(JUMPS, st.data())
def test_the_next_goal_is_shown_a_transition_later(jumps: list[list[bool]], data: st.DataObject) -> None:
    """As Gymnasium-Robotics' mazes do: the reward of the transition that shows the next goal is already that goal's."""
    terminated = data.draw(st.lists(st.booleans(), min_size=len(jumps), max_size=len(jumps)))
    each = [np.array([*jump[1:], False]) for jump in jumps]
    before = log(jumps, [reached / 2.0 ** np.arange(len(reached)) for reached in each], terminated)
    with patch.object(goals, "OFTEN", 1.0):
        after = one_goal_each(before)
    check_stretches(before, after, np.concatenate(each))
    shown = before.flat().next_observations[:, 2:4]
    assert np.array_equal(after.flat().observations[:, 2:4], shown)  # whose goal the reward is about


def test_a_log_that_was_cut_at_its_goals_ends_there() -> None:
    """As Minari's own logs of mazes are: a time-out where the goal is reached, and the next episode begins in the same observation."""
    rows = np.random.default_rng(0).normal(size=(40, 7)).astype(np.float32)
    rows[:20, 2:4], rows[20:, 2:4] = 1, 2
    rows[20] = rows[19]  # once more, the old goal included
    first, second = (Episode(part, part[1:, :1], np.zeros(len(part) - 1, np.float32), False) for part in (rows[:20], rows[20:]))
    found = one_goal_each(Dataset.from_episodes(replace(SPEC, ref_min_score=0.0, ref_max_score=9.0), [first, second]))
    assert found.terminations.tolist() == [True, False] and (found.observations[20:, 2:4] == 2).all()
    assert found.spec.ref_max_score is None  # it is of episodes with many goals


def test_the_mazes_of_gymnasium_robotics_end_where_the_ball_is_at_the_goal(tmp_path: Path) -> None:
    """Every stretch's last reward is the one that reaching a goal earns."""
    collect_maze("PointMaze_UMaze-v3", Destination(out=tmp_path / "log.minari"), CollectConfig(steps=2_000))
    stretches = one_goal_each(load_dataset(tmp_path / "log.minari")).flat()
    assert stretches.terminated.sum() >= 3
    assert (stretches.rewards[stretches.terminated > 0] == 1).all() and (stretches.rewards[stretches.terminated == 0] == 0).all()


def test_goals_that_move_all_the_time_are_left_alone() -> None:
    jumps = [[True] * 8] * 3
    tracking = log(jumps, [np.zeros(8)] * 3, [False] * 3)
    assert one_goal_each(tracking) is tracking


def test_a_space_without_goals_is_left_alone() -> None:
    spec = DatasetSpec(box(3), SPEC.action_space)
    rows = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    dataset = Dataset.from_episodes(spec, [Episode(rows, rows[1:, :1], rows[1:, 0], False)])
    assert one_goal_each(dataset) is dataset
