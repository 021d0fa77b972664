"""Training the single-step models: reward, dynamics, and the behaviour clones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dydiff_env.policies.draws import own_draws
from dydiff_env.world.batches import Step
from dydiff_env.world.dynamics import keep_members
from dydiff_env.world.fitting import WORTH, Fitting
from dydiff_env.world.hard_examples import HardExamples
from dydiff_env.world.memory import remembered
from dydiff_env.world.reward import RewardModel
from dydiff_env.world.sight import choose_sight
from dydiff_env.world.training import train

LOOK_ROWS = 2**13  # transitions that the dynamics look at in one call
EXPLAINED = 0.99  # of the variance of rewards held out: r(s, a) that explains so much is not asked for more
FARTHEST = 30.0  # standard deviations: what is farther from the mean sets the scale of its dimension itself


def spread(fitting: Fitting, of: Callable[[Step], Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and scale of what is learned, over all training transitions.

    The scale is the standard deviation, but of a number that hardly ever changes (a mode, a gear) that would be next to nothing: its few
    changes would be thousands of times as large as all other targets, and be all that is learned.
    """
    total, squares, lowest, highest = torch.zeros(()), torch.zeros(()), torch.tensor(torch.inf), torch.tensor(-torch.inf)
    rows = fitting.split.train
    for some in np.array_split(rows, -(-len(rows) // LOOK_ROWS)):
        values = of(fitting.batches.steps(some)).cpu().double()
        total, squares = total + values.sum(0), squares + values.square().sum(0)
        lowest, highest = torch.minimum(lowest, values.amin(0)), torch.maximum(highest, values.amax(0))
    mean = total / len(rows)
    std = (squares / len(rows) - mean.square()).clamp(min=0).sqrt()
    farthest = torch.maximum(highest - mean, mean - lowest)
    return mean.float(), torch.maximum(std, farthest / FARTHEST).clamp(min=1e-6).float()


def fit_reward(fitting: Fitting) -> dict[str, Any]:
    """r_ψ(s, a) (Eq. 10); or one that is told the next state, and whether it ends the episode, where that is to be found out and pays."""
    done, config = _fit_reward(fitting, "reward"), fitting.preset.reward
    if config.next_state is not None:
        return done
    plain, without = fitting.models.reward, done["r2"]
    chosen = dataclasses.replace(config, next_state=False)
    if without is not None and without < EXPLAINED:
        ends = len(np.intersect1d(fitting.batches.terminal_steps, fitting.split.train)) > 1  # what is not shown cannot be learned
        more = dataclasses.replace(config, next_state=True, ends=ends)
        with own_draws(torch.device("cpu"), fitting.seed):
            spec = fitting.data.spec
            fitting.models.reward = fitting.fresh(RewardModel(spec.observation_size, spec.action_size, more))
        other = _fit_reward(fitting, "reward_next")
        kept = 1 - other["r2"] < WORTH * (1 - without)
        told = "the next state and the end" if more.ends else "the next state"
        reason = f"Rewards: r(s, a) explains {without:.3f} of the variance held out, told {told} it explains {other['r2']:.3f}: " + (
            "so the world rewards." if kept else "not much more, so the world rewards by r(s, a)."
        )
        choice = {"kept": kept, "ends": kept and more.ends, "without": without, "with": other["r2"], "reason": reason}
        done, chosen = {**(other if kept else done), "next_state": choice}, more if kept else chosen
        if not kept:
            fitting.models.reward = plain
    fitting.preset = dataclasses.replace(fitting.preset, reward=chosen)
    return done


def _fit_reward(fitting: Fitting, stage: str) -> dict[str, Any]:
    """Train the reward model that is there; its checkpoint is named after the stage."""
    model, config, held = (
        fitting.models.reward,
        fitting.share(fitting.preset.reward_training),
        fitting.held_out,
    )
    mean, std = spread(fitting, lambda step: step.rewards)
    model.mean.copy_(mean)
    model.std.copy_(std)

    def loss(generator: torch.Generator, _: int) -> Tensor:
        step = fitting.batches.steps(fitting.draw(generator, config.batch))
        return model.loss(step.states, step.actions, step.next_states, step.rewards, step.terminal)

    def holdout() -> Tensor:
        return model.loss(held.states, held.actions, held.next_states, held.rewards, held.terminal)

    done = train(
        stage,
        model,
        loss,
        config,
        seed=fitting.seed,
        holdout=torch.no_grad()(holdout),
        **fitting.files(stage),
    )
    variance = float((held.rewards / model.std).var())
    r2 = float(1 - holdout().detach() / variance) if variance > 1e-9 else None  # nothing to explain in a constant
    return {**done, "r2": r2}


def fit_dynamics(fitting: Fitting) -> dict[str, Any]:
    """T_φ (Eq. 5): members on draws of their own, the best weights of each kept, elites chosen on held-out data."""
    tried = choose_sight(fitting, fit_dynamics)
    model, config = fitting.models.dynamics, fitting.share(fitting.preset.dynamics_training)
    mean, std = spread(fitting, lambda step: step.next_states - step.states)
    model.delta_mean.copy_(mean)
    model.delta_std.copy_(std)

    def misses(rows: np.ndarray) -> Tensor:
        parts = []
        for some in np.array_split(rows, max(1, len(rows) // LOOK_ROWS)):
            step = fitting.batches.steps(some)
            memory = remembered(model, fitting.batches, some)
            parts.append(model.distances(step.states, step.actions, step.next_states, memory))
        return torch.cat(parts)

    draw = HardExamples(fitting.split.train, misses, model.config.hard, config.evaluate_every)

    alone = round((1 - model.config.unrolled) * config.steps)  # steps about single steps

    def loss(generator: torch.Generator, step: int) -> Tensor:
        length = 1 if step < alone else model.config.unroll
        starts, weights = draw(generator, model.config.members, max(1, config.batch // length))
        states, actions, real, _ = fitting.batches.windows(starts.reshape(-1), length)
        memory = remembered(model, fitting.batches, starts.reshape(-1), generator)
        states, actions, real, memory = (x.unflatten(0, starts.shape) for x in (states, actions, real, memory))
        weights = weights.to(real.device)[..., None] * real
        return model.loss(states[:, :, 0], actions, states[:, :, 1:], weights, memory)

    states, actions, real, _ = fitting.batches.windows(fitting.held_out_rows, model.config.unroll)
    held = states[:, 0], actions, states[:, 1:], real, remembered(model, fitting.batches, fitting.held_out_rows)

    def holdout() -> Tensor:
        return model.errors(*(x[::4] for x in held))

    done = train(
        "dynamics",
        model,
        loss,
        config,
        seed=fitting.seed,
        holdout=holdout,
        keep_best=keep_members,
        **fitting.files("dynamics"),
    )
    model.choose_elites(model.errors(*held))
    return {**done, **tried}


def fit_behavior(fitting: Fitting) -> dict[str, Any]:
    """β_j, each on one quantile of the episodes by return."""
    model, config = fitting.models.behavior, fitting.share(fitting.preset.behavior_training)
    assert model is not None
    rank = fitting.data.returns.argsort().argsort() * model.config.clones // len(fitting.data)
    of_step = rank[fitting.data.episode_of(fitting.split.train)]
    slices = [fitting.split.train[of_step == j] for j in range(model.config.clones)]
    slices = [rows if len(rows) else fitting.split.train for rows in slices]

    def loss(generator: torch.Generator, _: int) -> Tensor:
        total = torch.zeros((), device=fitting.device)
        for j, rows in enumerate(slices):
            step = fitting.batches.steps(
                rows[torch.randint(len(rows), (config.batch,), generator=generator).numpy()]
            )
            total = total + model.loss(j, step.states, step.actions)
        return total

    return train("behaviour", model, loss, config, seed=fitting.seed, **fitting.files("behavior"))
