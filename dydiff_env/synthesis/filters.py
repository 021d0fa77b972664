"""Which rollouts of a round are kept: by return, sharply (hardmax) or softly (softmax), or regardless."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points

import numpy as np

from dydiff_env.data.trajectories import Trajectories
from dydiff_env.errors import DyDiffError, unknown

Filter = Callable[[Trajectories, int, float, np.random.Generator], np.ndarray]
"""(rollouts, how many to keep, temperature, random generator) -> that many different row numbers."""

ENTRY_POINTS = "dydiff_env.filters"


def hardmax(rollouts: Trajectories, count: int, temperature: float, rng: np.random.Generator) -> np.ndarray:
    """The `count` rollouts of highest return; among equals the earlier row."""
    return np.argsort(-rollouts.returns, kind="stable")[:count]


def softmax(rollouts: Trajectories, count: int, temperature: float, rng: np.random.Generator) -> np.ndarray:
    """`count` rollouts drawn without replacement, P ∝ exp(z / temperature), z the standardised return.

    The paper's text takes the softmax of the raw return, which depends on the reward's unit; standardising,
    as the authors' code does, makes one temperature fit every task. Drawing without replacement is the Gumbel
    top-k trick (Kool et al. 2019).
    """
    check_temperature(temperature)
    returns = rollouts.returns.astype(np.float64)
    logits = (returns - returns.mean()) / max(returns.std(), 1e-8) / temperature
    return np.argsort(-(logits + rng.gumbel(size=len(logits))), kind="stable")[:count]


def none(rollouts: Trajectories, count: int, temperature: float, rng: np.random.Generator) -> np.ndarray:
    """The first `count` rollouts: as random as their starts, whatever their returns."""
    return np.arange(count)


FILTERS: dict[str, Filter] = {"hardmax": hardmax, "softmax": softmax, "none": none}


def find_filter(name: str) -> Filter:
    """The filter called `name`: one of FILTERS, or a package's, offered as entry point `dydiff_env.filters`.

    Raises:
        DyDiffError: where there is none of that name.
    """
    if name in FILTERS:
        return FILTERS[name]
    offered = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name not in offered:
        raise unknown("filter", name, [*FILTERS, *offered])
    chosen: Filter = offered[name].load()
    return chosen


def share_kept(filter: str, keep: float | None) -> float:
    """η: what was asked for, else .8, or all without a filter."""
    return keep if keep is not None else 1.0 if filter == "none" else 0.8


def check_temperature(temperature: float) -> None:
    """Raise DyDiffError for one that is not above 0."""
    if not temperature > 0:
        raise DyDiffError(f"--temperature is {temperature}.", "Give one above 0.", usage=True)


def kept_count(keep: float, rows: int) -> int:
    """⌊keep · rows⌋, free of float dust (.29 · 100 is 29)."""
    if not 0 < keep <= 1:
        raise DyDiffError(f"The share to keep is {keep}.", "Give --keep above 0 and at most 1.", usage=True)
    return int(np.floor(keep * rows + 1e-9))


def select(
    name: str, rollouts: Trajectories, keep: float = 0.8, *, temperature: float = 0.05, seed: int = 0
) -> np.ndarray:
    """Rows of `rollouts` to keep, ascending: exactly ⌊keep · N⌋ (fewer only where rollouts diverged).

    Args:
        name: hardmax, softmax, none, or a filter of an installed package.
        rollouts: N rollouts; one with a value that is not finite is never kept.
        keep: share to keep, η of Section 3.4, in (0, 1].
        temperature: of the softmax, in standard deviations of the returns.
        seed: of the softmax's draw.

    Returns:
        (K,) int64 row numbers.

    Raises:
        DyDiffError: for an unknown filter, a share out of range, or a filter that breaks its contract.
    """
    chosen, wanted = find_filter(name), kept_count(keep, len(rollouts))
    sound = np.flatnonzero(finite_rows(rollouts))
    count = min(wanted, len(sound))
    if count == 0:
        return np.empty(0, np.int64)
    whole = rollouts if len(sound) == len(rollouts) else rollouts.select(sound)
    picked = np.asarray(chosen(whole, count, temperature, np.random.default_rng(seed)))
    if picked.shape != (count,) or len(np.unique(picked)) != count:
        raise DyDiffError(
            f"Filter {name!r} was asked for {count} different rows and gave {picked.shape}.",
            "Return an int array of that many row numbers.",
        )
    return np.sort(sound[picked])


def finite_rows(rollouts: Trajectories) -> np.ndarray:
    """(N,) bool, True where every observation, action and reward of the row is a finite number."""
    mask, states = rollouts.mask, rollouts.state_mask
    return (
        (np.isfinite(rollouts.observations).all(-1) | ~states).all(1)
        & (np.isfinite(rollouts.actions).all(-1) | ~mask).all(1)
        & (np.isfinite(rollouts.rewards) | ~mask).all(1)
    )
