"""Between a caller's spaces and the flat rows that worlds work with."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import InvalidAction

from dydiff_env.data.flattening import flatten_batch, leaves, unflatten_batch
from dydiff_env.errors import DyDiffError

ROUNDING = 1e-5  # how far outside the bounds an action may lie by arithmetic alone, as a share of a bound beyond 1


def flat_actions(space: gym.Space, actions: Any, rows: int) -> np.ndarray:
    """Check a batch of actions and flatten it to (rows, A) float32.

    Raises:
        InvalidAction: for a wrong shape, a NaN, or an action outside the space.
    """
    assert isinstance(space, gym.spaces.Box)
    try:
        array = np.asarray(actions, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidAction(
            f"The action {actions!r} is not an array of numbers, but the space is {space}."
        ) from error
    if array.shape != (rows, *space.shape):
        one = rows == 1 and array.shape[:1] == (1,)
        found, wanted = (array.shape[1:], space.shape) if one else (array.shape, (rows, *space.shape))
        raise InvalidAction(f"The action{'' if one else 's'} {'has' if one else 'have'} shape {found}, but {wanted} is needed.")
    if not np.isfinite(array).all():
        raise InvalidAction("The action holds NaN or infinity.")
    low, high = (side + way * ROUNDING * np.maximum(1, np.abs(side)) for side, way in ((space.low, -1), (space.high, 1)))
    if (outside := (array < low) | (array > high)).any():
        at = tuple(np.argwhere(outside)[0])
        raise InvalidAction(
            f"An action holds {array[at]:g} where the space goes from {space.low[at[1:]]:g} to {space.high[at[1:]]:g}; clip it first."
        )
    return np.clip(array, space.low, space.high).astype(np.float32).reshape(rows, -1)


def flat_starts(space: gym.Space, observations: Any, rows: int) -> np.ndarray:
    """Check a batch of start observations given by the caller and flatten it to (rows, O) float32.

    Raises:
        DyDiffError: for a wrong structure or shape, or a NaN.
    """
    try:
        flat = flatten_batch(space, observations)
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise DyDiffError(
            f"options['observation'] does not have the structure of {space}.", "Pass a member of it."
        ) from error
    if flat.shape != (rows, gym.spaces.flatdim(space)) or not np.isfinite(flat).all():
        raise DyDiffError(
            f"options['observation'] has shape {flat.shape} when flat, or holds NaN.",
            f"Pass finite numbers, flat shape {(rows, gym.spaces.flatdim(space))}.",
        )
    return flat


def one_of(batch: Any, index: int) -> Any:
    """One value of a batch of arrays, or of a (nested) dict of such."""
    return {key: one_of(part, index) for key, part in batch.items()} if isinstance(batch, dict) else batch[index]


def structured(space: gym.Space, flat: np.ndarray) -> Any:
    """Rows (B, O) as a batch of ``space``, in its dtypes and within its bounds; never an alias of ``flat``."""
    low, high = (
        np.concatenate([np.ravel(getattr(leaf, side)).astype(np.float64) for _, leaf in leaves(space)])
        for side in ("low", "high")
    )
    return unflatten_batch(space, np.clip(flat, low, high))  # in float64: a bound may not be a float32
