"""Edges: where an observation ends, as a velocity that is cut off does, a cosine, or a sensor's reading.

A model that predicts beyond them is where nothing can be observed and nothing was learned, and its errors grow from there.
"""

from __future__ import annotations

import numpy as np
from gymnasium.spaces import Box
from gymnasium.spaces.utils import flatten_space

from dydiff_env.data.dataset import Dataset

OFTEN = 1e-3  # of all observations are that near an edge,
NEAR = 1e-2  # standard deviations
BLOCK = 65536


def bounds(data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest observations, (O,) each, that the space allows, as far as the log keeps to them; ∓∞ elsewhere."""
    low, high = reach(data)
    box = flatten_space(data.spec.observation_space)
    assert isinstance(box, Box)
    least, most = (bound.astype(np.float32) for bound in (box.low, box.high))
    return np.where(low >= least, least, -np.inf), np.where(high <= most, most, np.inf)


def edges(data: Dataset, std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest observations, (O,) each, where the log often touches them and never goes beyond; ∓∞ elsewhere.

    First observations do not count: many episodes begin in nearly the same state, which is no edge.

    Args:
        data: the log.
        std: (O,), standard deviations of its observations.
    """
    low, high = reach(data)
    firsts = np.asarray(data.observations[data.offsets[:-1] + np.arange(len(data))])
    at_low, at_high = -_at(firsts, low, high, std)
    for begin in range(0, len(data.observations), BLOCK):
        found = _at(np.asarray(data.observations[begin : begin + BLOCK]), low, high, std)
        at_low, at_high = at_low + found[0], at_high + found[1]
    often = max(10.0, OFTEN * len(data.observations))
    return np.where(at_low >= often, low, -np.inf), np.where(at_high >= often, high, np.inf)


def reach(data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest of the log, (O,) each; a block at a time, so that a memory-mapped array stays on disk."""
    blocks = [np.asarray(data.observations[begin : begin + BLOCK]) for begin in range(0, len(data.observations), BLOCK)]
    return np.min([block.min(0) for block in blocks], 0), np.max([block.max(0) for block in blocks], 0)


def _at(rows: np.ndarray, low: np.ndarray, high: np.ndarray, std: np.ndarray) -> np.ndarray:
    """How many rows (N, O) are at the lowest, and how many at the highest, (2, O)."""
    return np.stack([(rows <= low + NEAR * std).sum(0), (rows >= high - NEAR * std).sum(0)])
