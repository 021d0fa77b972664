"""Goals that are replaced within an episode, as in D4RL's mazes: each stretch with one goal becomes an episode of its own.

Where the next goal comes from nothing foretells. A model that is asked to would put it in the middle of all places, and a
policy would follow it there. So a world learns stretches with one goal, and that they end where the goal is reached.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dydiff_env.data.dataset import Dataset
from dydiff_env.data.flattening import columns_of

OFTEN = 0.1  # share of the transitions: a goal that moves more often than this is not replaced, it moves


def one_goal_each(dataset: Dataset) -> Dataset:
    """The dataset with an episode for each goal; itself where no goal is replaced, or where goals move all the time.

    A stretch ends, as terminal, with the transition that reached its goal, and the next one starts where it ended. Environments differ in
    when they show the next goal: one transition after the old one was reached (Gymnasium-Robotics), or in the very observation that reached
    it. Rewards tell which, being higher where a goal is reached than a transition before or after.
    """
    columns = columns_of(dataset.spec.observation_space, "desired_goal")
    if columns is None:
        return dataset
    goals = np.asarray(dataset.observations[:, columns])
    final = dataset.offsets[1:] + np.arange(len(dataset))  # row of each episode's last observation
    changed = (goals[1:] != goals[:-1]).any(1)  # from a row to the next
    changed[final[:-1]] = False  # between episodes
    at = np.flatnonzero(changed)  # the last rows that show their goal
    if not len(at) or len(at) > OFTEN * dataset.transitions:
        return dataset
    observations, rewards, terminations = np.array(dataset.observations, np.float32), dataset.rewards, np.array(dataset.terminations)
    step = at - np.searchsorted(final, at)  # the transitions that start there
    led = ~np.isin(step, dataset.offsets)  # to which another transition has led
    late = led.any() and rewards[step[led]].mean() > rewards[step[led] - 1].mean()
    if not late:  # what is reached at an episode's start was no goal, or that of the episode before, which was cut there (Minari's mazes)
        before = at[~led & (at > 0)]
        cut = before[(observations[before] == observations[before - 1]).all(1)]
        terminations[np.searchsorted(final, cut) - 1] = True
        observations[at[~led], columns] = goals[at[~led] + 1]
        at, step = at[led], step[led]
    # The row that reached a goal is there twice: once with the old goal, once with the next.
    twice = observations[at + late]
    twice[:, columns] = goals[at + (not late)]
    observations = np.insert(observations, at + 1, twice, 0)
    reached = step + late  # how many transitions come before each end
    nothing_follows = np.isin(reached, dataset.offsets[1:])
    observations = np.delete(observations, (at + 2 + np.arange(len(at)))[nothing_follows], 0)
    ends = np.union1d(dataset.offsets[1:], reached)
    own = np.searchsorted(dataset.offsets[1:], ends)  # the episode each stretch is of
    terminations = np.isin(ends, reached) | (terminations[own] & (ends == dataset.offsets[1:][own]))
    offsets = np.concatenate([[0], ends]).astype(np.int64)
    spec = replace(dataset.spec, ref_min_score=None, ref_max_score=None)  # those are of whole episodes, with many goals
    return replace(dataset, spec=spec, observations=observations, terminations=terminations, offsets=offsets)
