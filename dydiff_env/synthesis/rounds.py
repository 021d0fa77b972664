"""One round of an export: starts, rollouts, filter. It owns its seed: where it runs changes nothing."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dydiff_env.data.trajectories import Trajectories
from dydiff_env.errors import DyDiffError, unknown
from dydiff_env.synthesis.filters import check_temperature, find_filter, finite_rows, kept_count, select
from dydiff_env.synthesis.methods import Synthesizer, get_method


@dataclass(frozen=True)
class RoundOptions:
    """What decides an export's data, together with the world and the policy.

    Args:
        trajectories: how many are kept in all.
        method: one of METHODS.
        horizon: most steps of a rollout.
        iterations: refinements M of Eqs. 7–9; 0 is the plain single-step rollout.
        filter: hardmax, softmax, none or a package's own.
        keep: share η of a round's rollouts that is kept.
        temperature: of the softmax filter.
        batch: rollouts of a round, B_r.
        deterministic: the policy's mode instead of its samples.
        start: "dataset" draws starts from all logged states, "initial" from episodes' first ones.
        max_uncertainty: cut a rollout before its first transition more uncertain than this; None never cuts.
        seed: of everything drawn.
    """

    trajectories: int
    method: str = "dydiff"
    horizon: int = 100
    iterations: int = 2
    filter: str = "softmax"
    keep: float = 0.8
    temperature: float = 0.05
    batch: int = 2048
    deterministic: bool = True
    start: Literal["dataset", "initial"] = "dataset"
    max_uncertainty: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """NumPy's numbers become Python's: JSON knows no others."""
        for name in ("trajectories", "horizon", "iterations", "batch", "seed"):
            object.__setattr__(self, name, operator.index(getattr(self, name)))
        for name in ("keep", "temperature", "max_uncertainty"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else float(value))

    def check(self) -> None:
        """Raise DyDiffError for a value out of range, or one that the method has no use for."""
        method = get_method(self.method)
        if self.horizon != 1 and method.horizon == 1:
            raise DyDiffError(
                f"--horizon is {self.horizon}, but {self.method} makes single transitions.",
                "Leave --horizon out.",
                usage=True,
            )
        if self.method != "dydiff" and self.iterations > 0:
            raise DyDiffError(
                f"--iterations is {self.iterations}, but {self.method} refines nothing.",
                "Leave --iterations out, or use --method dydiff.",
                usage=True,
            )
        if method.model is not None and self.max_uncertainty is not None:
            raise DyDiffError(f"Rollouts of {self.method} have no uncertainties.", "Leave --max-uncertainty out.", usage=True)
        if self.method == "synther" and self.filter != "none":
            raise DyDiffError(
                f"--filter is {self.filter!r}, but SynthER keeps every transition.",
                "Use --method synther-filtered.",
                usage=True,
            )
        find_filter(self.filter)
        if self.filter == "softmax":
            check_temperature(self.temperature)
        for name, low in (("horizon", 1), ("iterations", 0), ("batch", 1), ("seed", 0)):
            if getattr(self, name) < low:
                raise DyDiffError(f"--{name} is {getattr(self, name)}.", f"Give {low} or more.", usage=True)
        if self.start not in ("dataset", "initial"):
            raise unknown("kind of start", self.start, ("dataset", "initial"))
        if kept_count(self.keep, self.batch) == 0:
            raise DyDiffError(
                f"--keep {self.keep} of --batch {self.batch} keeps nothing.", "Raise either.", usage=True
            )
        if self.trajectories < 1:
            raise DyDiffError(f"--trajectories is {self.trajectories}.", "Give 1 or more.", usage=True)

    def batches(self) -> list[int]:
        """Rollouts of each round: B_r, and in the last one just as many as give what is still missing."""
        per_round = kept_count(self.keep, self.batch)
        full, missing = divmod(self.trajectories, per_round)
        return [self.batch] * full + ([math.ceil(missing / self.keep - 1e-9)] if missing else [])


def run_round(
    synthesizer: Synthesizer, options: RoundOptions, index: int
) -> tuple[Trajectories, dict[str, Any]]:
    """Make round number `index`, filter it, and say how it went.

    Returns:
        The kept rollouts, ⌊η · B⌋ of them, and the round's statistics.
    """
    batch = options.batches()[index]
    starts, noise, draw = (int(s) for s in np.random.SeedSequence((options.seed, index)).generate_state(3))
    rollouts, proposed, clipped = synthesizer.synthesize(batch, options, (starts, noise))
    cut = 0
    if options.max_uncertainty is not None:
        rollouts, cut = cut_uncertain(rollouts, options.max_uncertainty)
    chosen = select(options.filter, rollouts, options.keep, temperature=options.temperature, seed=draw)
    kept = rollouts.select(chosen)
    sound = finite_rows(rollouts)
    statistics = {
        "round": index,
        "starts": batch,
        "kept": len(kept),
        "diverged": int((~sound).sum()),
        "cut": cut,
        "terminated": int(kept.terminations.sum()),
        "transitions": int(kept.lengths.sum()),
        "returns_all": _summary(rollouts.returns[sound]),
        "returns_kept": _summary(kept.returns),
        "actions_proposed": proposed,
        "actions_clipped": clipped,
        "uncertainty": None if kept.uncertainties is None else _mean(kept.uncertainties[kept.mask]),
    }
    return kept, statistics


def cut_uncertain(rollouts: Trajectories, limit: float) -> tuple[Trajectories, int]:
    """Cut each rollout before its first transition above `limit`; drop what loses all its steps.

    A cut rollout ends by truncation: its value still bootstraps.

    Returns:
        The rollouts that keep a step, and how many were cut or dropped.
    """
    if rollouts.uncertainties is None:
        raise DyDiffError("These rollouts have no uncertainties.", "Leave --max-uncertainty out.", usage=True)
    doubtful = (rollouts.uncertainties > limit) & rollouts.mask
    hit = doubtful.any(1)
    lengths = np.where(hit, doubtful.argmax(1), rollouts.lengths)
    cut = Trajectories(
        rollouts.observations,
        rollouts.actions,
        rollouts.rewards,
        rollouts.terminations & ~hit,
        lengths,
        rollouts.uncertainties,
    )
    return cut.select(lengths > 0), int(hit.sum())


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _summary(returns: np.ndarray) -> dict[str, float] | None:
    if len(returns) == 0:
        return None
    values = returns.astype(np.float64)
    return {
        "mean": float(values.mean()),
        "std": float(values.std()),
        "min": float(values.min()),
        "max": float(values.max()),
    }
