"""Batches of Dict or Box values as flat float32 rows and back, in ``gymnasium.spaces.flatten``'s order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces.utils import flatdim

from dydiff_env.errors import DyDiffError


def check_spaces(observation_space: gym.Space, action_space: gym.Space, name: str) -> None:
    """Make sure that this package can model the observations and actions of ``name``.

    Raises:
        DyDiffError: for images, discrete actions and everything else that is not a Box of floats or a Dict of such.
    """
    if not isinstance(action_space, gym.spaces.Box) or not np.issubdtype(action_space.dtype, np.floating):
        kind = action_space.dtype if isinstance(action_space, gym.spaces.Box) else type(action_space).__name__
        raise DyDiffError(f"{name} has {kind} actions; DyDiff models continuous ones.",
                          "Use data whose action space is a Box of floats.")
    for key, leaf in leaves(observation_space):
        where = f"observation {key!r} of {name}" if key else f"the observation of {name}"
        if not isinstance(leaf, gym.spaces.Box):
            raise DyDiffError(f"{where} is a {type(leaf).__name__}; DyDiff models real-valued states.",
                              "Use data whose observations are a Box or a Dict of Boxes.")
        if len(leaf.shape) >= 2 and leaf.dtype == np.uint8:
            raise DyDiffError(f"{where} is an image {leaf.shape}; DyDiff models states.",
                              "Use data with state observations.")
        if not np.issubdtype(leaf.dtype, np.floating):  # rounded, they would not be the ones the policy acted on
            raise DyDiffError(f"{where} is a Box of {leaf.dtype}; DyDiff models real-valued states.",
                              "Log it as floats: gymnasium.wrappers.DtypeObservation makes an environment show them.")


def leaves(space: gym.Space, prefix: str = "") -> Iterator[tuple[str, gym.Space]]:
    """The spaces inside a (nested) Dict with slash-joined keys; any other space is its own leaf, key ""."""
    if not isinstance(space, gym.spaces.Dict):
        yield prefix, space
        return
    for key, part in space.spaces.items():
        yield from leaves(part, f"{prefix}/{key}" if prefix else key)


def slashed(space: gym.Space) -> str | None:
    """The key of a (nested) Dict that has a slash in it, if one has."""
    for key, part in space.spaces.items() if isinstance(space, gym.spaces.Dict) else ():
        if "/" in key:
            return key
        if (inner := slashed(part)) is not None:
            return inner
    return None


def same_but_for_precision(one: gym.Space, other: gym.Space) -> bool:
    """Whether values of both spaces are the same float32 rows: some logs store float32 where the environment says float64."""
    if isinstance(one, gym.spaces.Box) and isinstance(other, gym.spaces.Box):
        return (
            one.shape == other.shape
            and all(np.issubdtype(space.dtype, np.floating) for space in (one, other))
            and np.array_equal(one.low.astype(np.float32), other.low.astype(np.float32))
            and np.array_equal(one.high.astype(np.float32), other.high.astype(np.float32))
        )
    if isinstance(one, gym.spaces.Dict) and isinstance(other, gym.spaces.Dict):
        return one.keys() == other.keys() and all(same_but_for_precision(one[key], other[key]) for key in one)
    return one == other


def columns_of(space: gym.Space, key: str) -> slice | None:
    """Where the part ``key`` of a Dict stands in the flattened observation; None where there is no such part."""
    begin = 0
    for name, part in space.spaces.items() if isinstance(space, gym.spaces.Dict) else ():
        if name == key:
            return slice(begin, begin + flatdim(part))
        begin += flatdim(part)
    return None


def canonical(space: gym.Space) -> gym.Space:
    """The space with the keys of every Dict in alphabetical order, which is how Minari reads a Dict back.

    Gymnasium sorts a Dict made from a mapping but not one made from keywords, and columns follow the keys.
    """
    if not isinstance(space, gym.spaces.Dict):
        return space
    return gym.spaces.Dict({key: canonical(space.spaces[key]) for key in sorted(space.spaces)})


def flatten_batch(space: gym.Space, values: Any) -> np.ndarray:
    """(B, …) arrays, or a (nested) dict of them, as (B, D) float32 rows."""
    if isinstance(space, gym.spaces.Dict):
        parts = [flatten_batch(part, values[key]) for key, part in space.spaces.items()]
        return np.concatenate(parts, axis=1)
    values = np.asarray(values)
    return values.reshape(len(values), int(np.prod(values.shape[1:]))).astype(np.float32, copy=False)


def flatten_one_or_many(space: gym.Space, observation: Any) -> tuple[np.ndarray, bool]:
    """One member of ``space``, or a batch of them, as (B, D) float32 rows; and whether it was one."""
    part, value = space, observation
    while isinstance(part, gym.spaces.Dict):
        key, part = next(iter(part.spaces.items()))
        value = value[key]
    assert part.shape is not None
    single = np.ndim(value) == len(part.shape)
    return flatten_batch(space, batch_of_one(observation) if single else observation), single


def batch_of_one(value: Any) -> Any:
    """One value, or a (nested) dict of them, as a batch."""
    return {key: batch_of_one(part) for key, part in value.items()} if isinstance(value, dict) else np.asarray(value)[None]


def unflatten_batch(space: gym.Space, rows: np.ndarray) -> Any:
    """(B, D) rows as (B, …) arrays, or a (nested) dict of them, in the space's own dtypes."""
    if isinstance(space, gym.spaces.Dict):
        ends = np.cumsum([flatdim(part) for part in space.spaces.values()])[:-1]
        return {key: unflatten_batch(part, columns) for (key, part), columns
                in zip(space.spaces.items(), np.split(rows, ends, axis=1), strict=True)}
    assert space.shape is not None
    return rows.reshape(len(rows), *space.shape).astype(space.dtype, copy=False)
