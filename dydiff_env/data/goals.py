"""Goals that are replaced within an episode, as in D4RL's mazes: each stretch with one goal becomes an episode of its own.

Where the next goal comes from nothing foretells. A model that is asked to would put it in the middle of all places, and a
policy would follow it there. So a world learns stretches with one goal, and that they end where the goal is reached.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dydiff_env.data.dataset import Dataset
from dydiff_env.data.flattening import columns_of


def one_goal_each(dataset: Dataset) -> Dataset:
    """The dataset with an episode for each goal; itself where no goal is replaced.

    A stretch ends with the transition that replaced its goal, as terminal; the state it led to is told with the old goal.
    """
    columns = columns_of(dataset.spec.observation_space, "desired_goal")
    if columns is None:
        return dataset
    goals = np.asarray(dataset.observations[:, columns])
    final = dataset.offsets[1:] + np.arange(len(dataset))  # row of each episode's last observation
    changed = (goals[1:] != goals[:-1]).any(1)  # from a row to the next
    changed[final[:-1]] = False  # between episodes
    before = np.flatnonzero(changed)
    if not len(before):
        return dataset
    replaced = before - np.searchsorted(final, before)  # the transitions that replaced a goal
    reached = np.array(dataset.observations[before + 1], np.float32)
    reached[:, columns] = goals[before]
    observations = np.insert(dataset.observations, before + 1, reached, 0)
    last = np.isin(replaced + 1, dataset.offsets[1:])  # nothing follows: no stretch begins there
    observations = np.delete(observations, (before + 2 + np.arange(len(before)))[last], 0)
    ends = np.union1d(dataset.offsets[1:], replaced + 1)
    own = np.searchsorted(dataset.offsets[1:], ends)  # the episode each stretch is of
    terminations = np.isin(ends, replaced + 1) | (dataset.terminations[own] & (ends == dataset.offsets[1:][own]))
    offsets = np.concatenate([[0], ends]).astype(np.int64)
    return replace(dataset, observations=observations, terminations=terminations, offsets=offsets)
