"""S(τ): windows of L steps out of logged episodes (Eq. 2 of the paper)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from dydiff_env.data.dataset import Dataset


class Windows(NamedTuple):
    """B windows of L steps in environment units."""

    observations: np.ndarray  # (B, L+1, O) float32
    actions: np.ndarray  # (B, L, A) float32, zero where padded
    mask: np.ndarray  # (B, L) bool, True where a step was really taken


def window_starts(dataset: Dataset, horizon: int, through_termination: bool) -> np.ndarray:
    """Transitions at which a window of ``horizon`` steps may start.

    Args:
        dataset: the episodes.
        horizon: L.
        through_termination: True lets a window start anywhere and run past its episode's end, where it is
            padded: a model that never sees an ending dreams of trajectories that never end. False follows
            Eq. 2: whole slices of an episode that is long enough, one padded window from the start of each
            other.

    Returns:
        (K,) int64 transition indices, ascending.
    """
    if through_termination:
        return np.arange(dataset.transitions)
    counts = np.maximum(dataset.lengths - horizon, 0) + 1  # windows of each episode
    first = np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(dataset.offsets[:-1], counts) + np.arange(counts.sum()) - first


def gather(dataset: Dataset, starts: np.ndarray, horizon: int,
           pad: Literal["last", "zero"] = "last") -> Windows:
    """The windows of ``horizon`` steps at ``starts``.

    Args:
        dataset: the episodes.
        starts: (B,) transition indices.
        horizon: L.
        pad: what stands for observations after the episode's end: its last one, or zeros (Eq. 2).
    """
    starts = np.asarray(starts, np.int64)
    episode = dataset.episode_of(starts)
    stop = dataset.offsets[episode + 1][:, None]  # (B, 1)
    steps = starts[:, None] + np.arange(horizon + 1)  # (B, L+1)
    mask = steps[:, :-1] < stop
    observations = dataset.observations[np.minimum(steps, stop) + episode[:, None]]  # (B, L+1, O)
    actions = dataset.actions[np.minimum(steps[:, :-1], stop - 1)]  # (B, L, A)
    actions[~mask] = 0.0
    if pad == "zero":
        observations[:, 1:][~mask] = 0.0
    return Windows(observations, actions, mask)
