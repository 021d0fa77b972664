"""How good a world is by held-out logs alone, without a simulator, and the refinement that this asks for.

Open loop (the paper's Fig. 4): the logged actions, error of the states against the log. Closed loop (Fig. 7): the residual-feedback
policies of held-out windows (see anchors.py), which would have met exactly the logged states in the real environment, are dreamt
for M = 0 … 5 with both updates.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dydiff_env.world.batches import Batches
from dydiff_env.world.feedback import closed_loop, feedback_windows
from dydiff_env.world.refine import RefinementConfig, refine
from dydiff_env.world.rollout import follow

if TYPE_CHECKING:
    from dydiff_env.world.world import World

HORIZONS = (1, 5, 10, 25, 50, 75, 100)


def error_curve(states: Tensor, truth: Tensor, real: Tensor) -> Tensor:
    """Mean squared error (L,) at each step, over the steps that were taken; states and truth (B, L, O), real (B, L)."""
    return ((states - truth).square().mean(-1) * real).sum(0) / real.sum(0).clamp(min=1)


def summary(curve: Tensor, real: Tensor) -> dict[str, float]:
    """Errors at a few horizons, and their mean over the steps that some window reached."""
    reached = real.sum(0) > 0
    at = {f"h{h}": float(curve[h - 1]) for h in HORIZONS if h <= len(curve) and reached[h - 1]}
    return {**at, "mean": float(curve[reached].mean())}


@torch.no_grad()
def held_out_fidelity(
    world: World, batches: Batches, held_out: np.ndarray, windows: int = 512, seed: int = 0
) -> dict[str, Any]:
    """Errors on held-out windows, in standardised units.

    Returns:
        ``open_loop``: single_step and denoiser; ``closed_loop``: M0 and, for both updates, M1 … M5 (for an anchored world).
    """
    rng = np.random.default_rng(seed)
    starts = rng.choice(held_out, min(windows, len(held_out)), replace=False)
    length, models = world.horizon, world.models
    states, actions, real, _ = batches.windows(starts, length)
    generator = torch.Generator().manual_seed(seed)
    rolled = follow(models.dynamics, models.termination, states[:, 0], actions)
    sampled, _ = world.sample_states(rolled, actions, generator)
    result: dict[str, Any] = {
        "windows": len(starts),
        "open_loop": {
            "single_step": summary(error_curve(rolled.states[:, 1:], states[:, 1:], real), real),
            "denoiser": summary(error_curve(sampled, states[:, 1:], real), real),
        },
    }
    if models.behavior is None:
        return result
    closed: dict[str, list[Tensor]] = {}
    clones = models.behavior.config.clones
    masks = []
    for clone in range(clones):
        part = starts[clone::clones]
        if not len(part):
            continue
        feedback, real, _ = feedback_windows(
            batches, models, part, length, clone, torch.ones(len(part), device=world.device)
        )
        rolled = closed_loop(feedback, models)
        masks.append(real)
        for update in ("replace", "average"):
            for m in range(6):
                dreamt, _, _ = refine(
                    rolled, lambda r, a: world.sample_states(r, a, generator), feedback.relabel, m, update
                )
                error = (dreamt[:, 1:] - feedback.states[:, 1:]).square().mean(-1)
                closed.setdefault("M0" if m == 0 else f"{update} M{m}", []).append(error)
                if m == 0 and update == "average":
                    closed["M0"].pop()
    real = torch.cat(masks)
    result["closed_loop"] = {}
    for name, errors in closed.items():
        curve = (torch.cat(errors) * real).sum(0) / real.sum(0).clamp(min=1)
        result["closed_loop"][name] = summary(curve, real)
    return result


def choose_refinement(
    config: RefinementConfig, fidelity: dict[str, Any]
) -> tuple[RefinementConfig, dict[str, Any]]:
    """The update and M with the least held-out closed-loop error; of those within 2 % of it, the smallest M."""
    means = {name: values["mean"] for name, values in fidelity["closed_loop"].items()}
    best = min(means.values())
    name = min((n for n in means if means[n] <= 1.02 * best), key=lambda n: (int(n[-1]), means[n]))
    iterations = int(name[-1])
    update = name.split()[0] if iterations else config.update
    chosen = dataclasses.replace(config, iterations=iterations, update=update)
    reason = (
        f"Held-out closed-loop error {means[name]:.4g} against {means['M0']:.4g} without refinement; "
        f"the least of M = 0 … 5 was {best:.4g}."
    )
    return chosen, {"iterations": iterations, "update": update, "reason": reason}
