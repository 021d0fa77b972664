"""How good a world is by held-out logs alone, without a simulator, and the refinement that this asks for.

Open loop (the paper's Fig. 4): the logged actions, error of the states against the log. Closed loop (Fig. 7): the residual-feedback
policies of held-out windows (see feedback.py), which would have met exactly the logged states in the real environment, are dreamt
for M = 0 … 5. Calibration: the error the world expects of a rollout against the error it makes.
"""

from __future__ import annotations

import dataclasses
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dydiff_env.world.batches import Batches
from dydiff_env.world.feedback import closed_loop, feedback_windows
from dydiff_env.world.memory import remembered
from dydiff_env.world.nudge import nudger
from dydiff_env.world.refine import RefinementConfig, in_place, refinements
from dydiff_env.world.rollout import follow, rollout

if TYPE_CHECKING:
    from dydiff_env.world.world import World

HORIZONS = (1, 5, 10, 25, 50, 75, 100)
SHARES = (0.5, 0.9, 0.99)  # of steps, whose highest uncertainty is told
ALIKE = 3.0  # reality may be this many times (squared) as far from the ensemble's mean as its members are, to be like one;
SHARED = 0.5  # where it is farther, this share of a correction is applied


def error_curve(states: Tensor, truth: Tensor, real: Tensor) -> Tensor:
    """Mean squared error (L,) at each step, over the steps that were taken; states and truth (B, L, O), real (B, L)."""
    return ((states - truth).square().mean(-1) * real).sum(0) / real.sum(0).clamp(min=1)


def summary(curve: Tensor, real: Tensor) -> dict[str, float]:
    """Errors at a few horizons, and their mean over the steps that some window reached."""
    reached = real.sum(0) > 0
    at = {f"h{h}": float(curve[h - 1]) for h in HORIZONS if h <= len(curve) and reached[h - 1]}
    return {**at, "mean": float(curve[reached].mean())}


def return_bounds(one_step: Tensor, accumulated: Tensor, reward: float, discount: float = 0.99) -> dict[str, float]:
    """Lemma 1 and Theorem 1: how far a dreamt return can be from the real one, 2Rγε_m / (1−γ)² and 2Rε_d / (1−γ).

    The theorems' ε are total variation distances, which samples do not give; as in the paper's Fig. 4, root mean squared errors of
    the standardised states stand for them, at most 1. Read the two bounds against each other, not as guarantees.

    Args:
        one_step: (L,) mean squared error of the single-step model from logged states.
        accumulated: (L,) mean squared error of the denoiser's whole windows.
        reward: R, the largest absolute reward.
        discount: γ.
    """
    epsilon_m, epsilon_d = (float(curve.max().sqrt().clamp(max=1)) for curve in (one_step, accumulated))
    return {
        "epsilon_m": epsilon_m,
        "epsilon_d": epsilon_d,
        "lemma_1": 2 * reward * discount * epsilon_m / (1 - discount) ** 2,
        "theorem_1": 2 * reward * epsilon_d / (1 - discount),
    }


def calibration(expected: Tensor, error: Tensor, real: Tensor, bins: int = 10) -> dict[str, Any]:
    """How well the expected error of rollouts tells their error.

    Args:
        expected: (B, L, O), standardised.
        error: (B, L, O).
        real: (B, L), 1 where the error is known.

    Returns:
        ``rank_correlation`` (Spearman's) of the two over all steps; ``within_1`` and ``within_2``, shares of errors smaller than once
        and twice the expected one; ``bins``: mean expected and mean actual error (root of the mean square) of equally many steps
        each, from the smallest expectation to the largest.
    """
    known = real > 0
    inside = (error.abs() / expected)[known]
    said, was = (x.square().mean(-1)[known] for x in (expected, error))
    order = said.argsort()
    ranks = torch.stack([x.argsort().argsort().double() for x in (said, was)])
    return {
        "rank_correlation": float(torch.corrcoef(ranks)[0, 1]),
        "within_1": float((inside <= 1).float().mean()),
        "within_2": float((inside <= 2).float().mean()),
        "bins": [[float(x[part].mean().sqrt()) for x in (said, was)] for part in order.chunk(bins)],
    }


@torch.no_grad()
def held_out_fidelity(
    world: World, batches: Batches, held_out: np.ndarray, windows: int = 512, seed: int = 0
) -> dict[str, Any]:
    """Errors on held-out windows, in standardised units.

    Returns:
        ``open_loop``: single_step and denoiser; ``bounds``, see :func:`return_bounds`; ``uncertainty``, what it is at most in so large
        a share of the single-step rollout's steps; for an anchored world also ``closed_loop``: M0 … M5;
        ``apart``, the mean squared distance of reality and of the single members from these rollouts; and their ``calibration``, see
        :func:`calibration`.
    """
    rng = np.random.default_rng(seed)
    starts = rng.choice(held_out, min(windows, len(held_out)), replace=False)
    length, models = world.horizon, world.models
    states, actions, real, _ = batches.windows(starts, length)
    generator = torch.Generator().manual_seed(seed)
    memory = remembered(models.dynamics, batches, starts)
    rolled = follow(models.dynamics, models.termination, states[:, 0], actions, memory)
    sampled, _ = world.sample_states(rolled, actions, generator)
    denoised = error_curve(sampled, states[:, 1:], real)
    recalled = models.dynamics.recall(states[:, :-2], actions[:, :-1], states[:, 1:-1])
    logged = states[:, :-1], actions, torch.cat([memory[:, None], recalled], 1)
    ahead = models.dynamics.predict(*(x.flatten(0, 1) for x in logged)).mean.reshape(sampled.shape)
    rewards = batches.steps(held_out[:20_000]).rewards
    doubt = rolled.disagreement[real > 0]
    result: dict[str, Any] = {
        "windows": len(starts),
        "open_loop": {
            "single_step": summary(error_curve(rolled.states[:, 1:], states[:, 1:], real), real),
            "denoiser": summary(denoised, real),
        },
        "bounds": return_bounds(error_curve(ahead, states[:, 1:], real), denoised, float(rewards.abs().max())),
        "uncertainty": {str(share): float(torch.quantile(doubt, share)) for share in SHARES},
    }
    if models.behavior is None or world.error_scale is None:
        return result
    closed: dict[str, list[Tensor]] = {}
    clones = models.behavior.config.clones
    masks, expected, made, apart = [], [], [], []
    for clone in range(clones):
        part = starts[clone::clones]
        if not len(part):
            continue
        feedback, real, _ = feedback_windows(
            batches, models, part, length, clone, torch.ones(len(part), device=world.device)
        )
        memory = remembered(models.dynamics, batches, part)
        rolled = closed_loop(feedback, models, memory)
        masks.append(real)
        expected.append(world.error_scale(rolled.disagreement))
        made.append(rolled.states[:, 1:] - feedback.states[:, 1:])
        alone = [models.dynamics.only([m]) for m in range(models.dynamics.config.members)]
        by_member = [
            rollout(one, models.termination, feedback.act, feedback.states[:, 0], length, memory) for one in alone
        ]
        apart.append(
            torch.stack([(one.states - rolled.states)[:, 1:].square().mean(-1) for one in by_member]).mean(0)
        )
        nudge, starting = world.preset.refinement.nudge, feedback.states[:, 0]
        rounds = refinements(
            rolled,
            lambda r, a: world.sample_states(r, a, generator),
            nudger(models.dynamics, rolled, feedback.act, nudge) if nudge < 1 else in_place(starting, feedback.relabel),
            world.preset.refinement.update,
        )
        for m, (dreamt, _, _) in enumerate(islice(rounds, 6)):
            error = (dreamt[:, 1:] - feedback.states[:, 1:]).square().mean(-1)
            closed.setdefault(f"M{m}", []).append(error)
    real = torch.cat(masks)
    result["closed_loop"] = {}
    for name, errors in closed.items():
        curve = (torch.cat(errors) * real).sum(0) / real.sum(0).clamp(min=1)
        result["closed_loop"][name] = summary(curve, real)
    steps = real.sum().clamp(min=1)
    result["apart"] = {
        "reality": float((torch.cat(made).square().mean(-1) * real).sum() / steps),
        "members": float((torch.cat(apart) * real).sum() / steps),
    }
    result["calibration"] = calibration(torch.cat(expected), torch.cat(made), real)
    return result


def choose_refinement(
    config: RefinementConfig, fidelity: dict[str, Any]
) -> tuple[RefinementConfig, dict[str, Any]]:
    """The smallest M within 5 % of the least held-out closed-loop error; and whom to ask for trust.

    The ensemble's members are asked (:mod:`dydiff_env.world.trust`) unless reality is much farther from their mean than they are: then
    they share an error that they know nothing of, and half of a correction is applied. A number in ``config`` stays.
    """
    means = [fidelity["closed_loop"][f"M{m}"]["mean"] for m in range(6)]
    best = min(means)
    iterations = next(m for m in range(6) if means[m] <= 1.05 * best)
    apart = fidelity["apart"]
    alike = apart["reality"] <= ALIKE * apart["members"]
    trust = config.trust if config.trust is not None or alike else SHARED
    chosen = dataclasses.replace(config, iterations=iterations, trust=trust)
    reason = (
        f"Held-out closed-loop error {means[iterations]:.4g} against {means[0]:.4g} without refinement; "
        f"the least of M = 0 … 5 was {best:.4g}. Reality is {apart['reality']:.2g} from the rollouts, a member {apart['members']:.2g}: "
        + ("each policy's trust is asked of the members." if trust is None else f"{trust:.0%} of a correction is applied.")
    )
    return chosen, {"iterations": iterations, "reason": reason}
