"""Edges: where an observation ends, as a velocity that is cut off does, a cosine, or a sensor's reading.

The networks predict a little more or less. They may go on with that, for it tells how far beyond the edge the hidden truth is; but a policy
is shown, and a dream is told, what can be observed.
"""

from __future__ import annotations

import numpy as np
from gymnasium.spaces import Box
from gymnasium.spaces.utils import flatten_space

from dydiff_env.data.dataset import Dataset

OFTEN = 1e-3  # of all observations are that near an edge,
NEAR = 1e-2  # standard deviations
BLOCK = 65536


def edges(data: Dataset, std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest values of what is observed, (O,) each; ∓∞ where there is no end to see.

    They are the bounds of the space, where the log keeps to them, and values that the log often touches and never goes beyond. For the
    latter, first observations do not count (many episodes begin in nearly the same state, which is no edge), nor does what never changes
    within an episode: a goal may be asked for anywhere.

    Args:
        data: the log.
        std: (O,), standard deviations of its observations.
    """
    firsts = data.offsets[:-1] + np.arange(len(data))
    blocks = [slice(begin, begin + BLOCK) for begin in range(0, len(data.observations), BLOCK)]
    rows = (np.asarray(data.observations[block]) for block in blocks)  # a block at a time: a memory-mapped array stays on disk
    ends = [(block.min(0), block.max(0)) for block in rows]
    low, high = np.min([least for least, _ in ends], 0), np.max([most for _, most in ends], 0)
    at_low, at_high, changes = (np.zeros(len(low), np.int64) for _ in range(3))
    for block in blocks:
        some = np.asarray(data.observations[block.start : block.stop + 1])
        later = np.ones(len(some), bool)
        here = slice(*np.searchsorted(firsts, [block.start, block.start + len(some)]))
        later[firsts[here] - block.start] = False
        changes += ((some[1:] != some[:-1]) & later[1:, None]).sum(0)
        counted = some[:BLOCK][later[:BLOCK]]
        at_low += (counted <= low + NEAR * std).sum(0)
        at_high += (counted >= high - NEAR * std).sum(0)
    often = max(10.0, OFTEN * len(data.observations))
    box = flatten_space(data.spec.observation_space)
    assert isinstance(box, Box)
    least, most = (bound.astype(np.float32) for bound in (box.low, box.high))
    touched = (changes > 0) & (at_low >= often), (changes > 0) & (at_high >= often)
    return (
        np.maximum(np.where(low >= least, least, -np.inf), np.where(touched[0], low, -np.inf)),
        np.minimum(np.where(high <= most, most, np.inf), np.where(touched[1], high, np.inf)),
    )
