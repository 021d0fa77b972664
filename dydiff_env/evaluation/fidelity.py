"""How true a world's dreams are, against the source environment (the paper's Figs. 7 and 9)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from dydiff_env.data.trajectories import Trajectories
from dydiff_env.errors import DyDiffError
from dydiff_env.evaluation.mazes import free_of_walls, position_columns
from dydiff_env.evaluation.picture import picture
from dydiff_env.evaluation.simulator import Simulator
from dydiff_env.evaluation.statistics import bootstrap_interval
from dydiff_env.policies.draws import draws_always
from dydiff_env.policies.policy import Policy
from dydiff_env.world.heldout import HORIZONS
from dydiff_env.world.trust import Trust
from dydiff_env.world.world import World


def errors(world: World, dream: Trajectories, real: Trajectories) -> tuple[np.ndarray, np.ndarray]:
    """Squared error (N, L) of the dreamt states s_1 … s_L in standardised units, and the mask (N, L) of steps really taken."""
    # A dream that ended sooner stays where it ended.
    steps = np.minimum(np.arange(1, dream.observations.shape[1]), dream.lengths[:, None])
    dreamt = np.take_along_axis(dream.observations, steps[..., None], 1)
    gap = (dreamt - real.observations[:, 1:]) / world.normalizer.std.cpu().numpy()
    return np.square(gap).mean(-1), real.mask


def ratio_to(error: np.ndarray, baseline: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """How large errors (B, L) are beside others' from the same starts, and a 95 % bootstrap interval over these starts.

    Both count over the steps of the mask (B, L), as the mean over steps of the mean over starts.
    """
    rows = np.stack([error * mask, baseline * mask, mask], 1)

    def ratio(some: np.ndarray) -> float:
        errors, others, known = some.sum(0)
        known = np.maximum(known, 1)
        return float((errors / known).sum() / max((others / known).sum(), 1e-12))

    low, high = bootstrap_interval(rows, statistic=ratio, samples=500)
    return {"ratio": ratio(rows), "ratio_low": low, "ratio_high": high}


def common_starts(world: World, simulator: Simulator, n: int, seed: int = 0) -> np.ndarray:
    """Up to n start states (n, O) of the data, environment units, from which reality can be run as well as a dream.

    Raises:
        DyDiffError: where no observation tells the simulator's state.
    """
    drawn = world.sample_starts(min(8 * n, len(world.start_bank)), seed)
    starts = drawn[simulator.known(drawn)][:n]
    if not len(starts):
        raise DyDiffError(
            "No logged observation tells the simulator's whole state: all are cut off at some bound.",
            "Leave the simulator out.",
        )
    return starts


def closed_loop(
    world: World,
    simulator: Simulator,
    policy: Policy,
    starts: np.ndarray,
    *,
    horizon: int | None = None,
    iterations: tuple[int, ...] = (0, 1, 2, 3, 4, 5),
) -> dict[str, Any]:
    """Dream a deterministic policy and run it for real from the same starts (Fig. 7).

    Each start tells the whole state, so a world with memory is told of no step before it.

    Args:
        world: the world.
        simulator: the truth.
        policy: acts in both.
        starts: (B, O), environment units; of :func:`common_starts`.
        horizon: steps; default: the world's window.
        iterations: the M's to dream with; what comes after the first is compared with it.

    Returns:
        ``real``: survival and return; and for each M: mean squared error at a few horizons and over all steps really taken, its
        ``ratio`` to that of the first M (:func:`ratio_to`), survival, return, their differences to the real ones, ``residual``: the
        mean squared distance of dreamt transitions from what the simulator makes of the same state and action (realism), ``spread``:
        the standard deviation over samples of the same dream (0 where a sample is one network call); and in a maze ``legal``: the
        share of rollouts that stay out of the walls (Fig. 9).

    Raises:
        DyDiffError: for a policy that draws its actions.
    """
    horizon = world.horizon if horizon is None else horizon
    refuse_draws(policy, world)
    real = simulator.follow(policy, starts, horizon)
    result: dict[str, Any] = {
        "real": {"survival": float(1 - real.terminations.mean()), "return": float(real.returns.mean())}
    }
    trust, baseline = world.trust_in(policy), None
    for m in iterations:
        dream = world.dream(policy, starts, horizon, m, trust=trust)
        error, mask = errors(world, dream, real)
        # The error is counted until the real episode ends, also where the dream ended sooner.
        baseline = error if baseline is None else baseline
        curve = (error * mask).sum(0) / np.maximum(mask.sum(0), 1)
        reached = np.asarray(mask.any(0))
        at = {f"h{h}": float(curve[h - 1]) for h in HORIZONS if h <= horizon and reached[h - 1]}
        survival, value = float(1 - dream.terminations.mean()), float(dream.returns.mean())
        result[f"M{m}"] = {
            **at,
            "mean": float(curve[reached].mean()),
            **ratio_to(error, baseline, mask),
            "survival": survival,
            "return": value,
            "survival_gap": survival - result["real"]["survival"],
            "return_gap": value - result["real"]["return"],
            "residual": residual(world, simulator, dream),
            "spread": spread(world, policy, starts[:32], horizon, m, trust=trust),
        }
        if simulator.maze:
            result[f"M{m}"]["legal"] = legal(simulator, dream)
    if simulator.maze:
        result["real"]["legal"] = legal(simulator, real)
    return result


def refuse_draws(policy: Policy, world: World, name: str = "This policy") -> None:
    """Make sure that a policy is a function of the observation.

    Raises:
        DyDiffError: where it draws its actions.
    """
    if draws_always(policy, torch.from_numpy(world.sample_starts(8)).to(world.device)):
        raise DyDiffError(
            f"{name} draws its actions: the dream and the simulator would follow different ones.",
            "Compare a policy whose actions depend on the observation alone.",
            usage=True,
        )


def legal(simulator: Simulator, rollouts: Trajectories) -> float:
    """The share of rollouts that stay out of the maze's walls (Fig. 9)."""
    columns = position_columns(simulator.spec.observation_space)
    positions = rollouts.observations[..., columns]
    return float(free_of_walls(positions, rollouts.state_mask, simulator.base.maze).mean())


def spread(
    world: World,
    policy: Policy,
    starts: np.ndarray,
    horizon: int,
    iterations: int,
    samples: int = 4,
    trust: Trust | float | None = None,
) -> float:
    """Standard deviation of the dreamt states over samples of the same dreams, root mean square in standardised units."""
    dreams = [world.dream(policy, starts, horizon, iterations, seed=seed, trust=trust) for seed in range(samples)]
    mask = np.all([dream.mask for dream in dreams], 0)
    states = np.stack([dream.observations[:, 1:] for dream in dreams]) / world.normalizer.std.cpu().numpy()
    return float(np.sqrt(states.var(0)[mask].mean())) if mask.any() else 0.0


def residual(
    world: World, simulator: Simulator, dream: Trajectories, transitions: int = 500, seed: int = 0
) -> float:
    """Realism: mean squared distance, in standardised units, of some dreamt next states from the simulator's.

    Only transitions from states that tell all are asked about; nan where there is none.
    """
    rows, steps = np.nonzero(dream.mask)
    some = np.random.default_rng(seed).choice(len(rows), min(transitions, len(rows)), replace=False)
    some = some[simulator.known(dream.observations[rows[some], steps[some]])]
    if not len(some):
        return float("nan")
    rows, steps = rows[some], steps[some]
    real = simulator.one_step(dream.observations[rows, steps], dream.actions[rows, steps])
    gap = (dream.observations[rows, steps + 1] - real) / world.normalizer.std.cpu().numpy()
    return float(np.square(gap).mean())


def plot_closed_loop(policies: dict[str, dict[str, Any]], path: str | Path) -> None:
    """Draw each policy's error against M (Fig. 7) as a PNG.

    Raises:
        DyDiffError: without matplotlib.
    """
    figure, axes = picture(6, 4)
    for name, result in policies.items():
        ms = [int(key[1:]) for key in result if key != "real"]
        axes.plot(ms, [result[f"M{m}"]["mean"] for m in ms], marker="o", label=Path(name).stem)
    axes.set(xlabel="refinements M", ylabel="mean squared error (standardised)", yscale="log", title="Dream against reality")
    axes.legend(frameon=False)
    figure.savefig(Path(path).expanduser(), dpi=150)
