"""Learning when episodes end: behind a border between states, or, where an observation does not tell, as often as they do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dydiff_env.policies.draws import own_draws
from dydiff_env.world.batches import Step
from dydiff_env.world.fitting import HELD_OUT_ROWS, Fitting
from dydiff_env.world.memory import remembered
from dydiff_env.world.rollout import BOUND
from dydiff_env.world.termination import TerminationModel
from dydiff_env.world.training import train

CLEAR = 0.9  # F1: a border that finds so many ends is not asked for more
ENOUGH = 10  # ends held out, to tell by them how clear a border is and how likely ends are; else training ones tell
NEAR = 5  # steps before an end that teach where the border runs


class Ends(NamedTuple):
    """Transitions, by what they teach of ends."""

    pool: np.ndarray  # all to learn from
    terminal: np.ndarray  # those of them that end an episode
    near: np.ndarray  # those shortly before
    held_out: np.ndarray | None  # to judge by, all that end and some that do not; None where all ends are needed to learn from
    weight: float  # how many each of these stands for that do not end

    @staticmethod
    def of(fitting: Fitting) -> Ends:
        """Of the data that are fitted."""
        ends = fitting.batches.terminal_steps
        pool, held_out = fitting.split
        spared = len(np.intersect1d(ends, pool)) >= 2
        if not spared:  # a few long episodes, the last part of each held out: every end is learned from
            pool = np.arange(fitting.data.transitions)
        terminal = np.intersect1d(ends, pool)
        near = np.setdiff1d(np.intersect1d(pool, (terminal[:, None] - np.arange(1, NEAR + 1)).reshape(-1)), ends)
        rows, weight = _true_share(held_out, ends, fitting.seed)
        return Ends(pool, terminal, near if len(near) else ends, rows if spared else None, weight)

    def draw(self, generator: torch.Generator, rows: int) -> np.ndarray:
        """Two fifths that end, two fifths shortly before, one fifth any."""

        def some(of: np.ndarray, n: int) -> np.ndarray:
            return of[torch.randint(len(of), (n,), generator=generator).numpy()]

        fifth = rows // 5
        return np.concatenate([some(self.terminal, 2 * fifth), some(self.pool, fifth), some(self.near, 2 * fifth)])


def _true_share(of: np.ndarray, ends: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    """All transitions that end and some that do not, and how many each of these stands for."""
    ordinary = np.setdiff1d(of, ends)
    some = np.random.default_rng(seed).choice(ordinary, min(10 * HELD_OUT_ROWS, len(ordinary)), replace=False)
    return np.union1d(some, np.intersect1d(of, ends)), len(ordinary) / max(1, len(some))


def fit_termination(fitting: Fitting) -> dict[str, Any]:
    """A border between terminal states and others, or none where no episode terminates."""
    count = len(fitting.batches.terminal_steps)
    if count < 2:
        none = "No episode of the data ends in a terminal state: this world never terminates."
        one = "One episode of the data ends in a terminal state, too few to learn from: this world never terminates."
        return {"steps": 0, "note": one if count else none}
    ends, model = Ends.of(fitting), fitting.models.termination
    done = _learn(fitting, ends, "termination", lambda step, _: step.next_states)
    # The threshold wants many terminal states and their true share, so it is set on training states...
    rows, weight = _true_share(ends.pool, ends.terminal, fitting.seed)
    step = fitting.batches.steps(rows)
    done["train"] = model.calibrate(step.next_states, step.terminal, weight)
    if ends.held_out is None:
        return {**done, "held_out": None}
    # ... and judged on held-out ones alone.
    step = fitting.batches.steps(ends.held_out)
    called, real = model.terminal(step.next_states), step.terminal.bool()
    hits, alarms = float((called & real).sum()), ends.weight * float((called & ~real).sum())
    done["held_out"] = {
        "precision": hits / max(1.0, hits + alarms),
        "recall": hits / max(1.0, float(real.sum())),
        "terminal_states": int(real.sum()),
    }
    return done


def fit_drawn_ends(fitting: Fitting, found: dict[str, Any]) -> dict[str, Any]:
    """Where the border misses ends, or calls others so: how likely the next state that the dynamics predict is terminal.

    A crash shows in the state that was logged after it; in the one that is predicted, a mean over crashing and not, it shows less or not
    at all. So the model learns from predicted states here, and dreams draw their ends.

    Args:
        fitting: with its dynamics trained.
        found: what :func:`fit_termination` said; the return value, with what was found out here.
    """
    given = fitting.preset.termination.drawn
    judged = found.get("held_out")
    if judged is None or judged["terminal_states"] < ENOUGH:
        judged = found.get("train")
    f1 = 1.0 if judged is None else _f1(judged)
    drawn = judged is not None and (f1 < CLEAR if given is None else given)
    termination = dataclasses.replace(fitting.preset.termination, drawn=drawn)
    fitting.preset = dataclasses.replace(fitting.preset, termination=termination)
    if not drawn:
        return found
    dynamics = fitting.models.dynamics

    @torch.no_grad()
    def predicted(step: Step, rows: np.ndarray) -> Tensor:
        memory = remembered(dynamics, fitting.batches, rows)
        return dynamics.predict(step.states, step.actions, memory).mean.clamp(-BOUND, BOUND)

    with own_draws(torch.device("cpu"), fitting.seed):
        model = TerminationModel(fitting.data.spec.observation_size, termination).to(fitting.device)
    fitting.models.termination = model
    ends = Ends.of(fitting)
    done = _learn(fitting, ends, "ends", predicted)
    # The dynamics know by heart how some logged episodes ended: how likely an end is, held-out ones tell better, where there are enough.
    rows, weight = _true_share(ends.pool, ends.terminal, fitting.seed)
    if ends.held_out is not None and len(np.intersect1d(ends.held_out, fitting.batches.terminal_steps)) >= ENOUGH:
        rows, weight = ends.held_out, ends.weight
    step = fitting.batches.steps(rows)
    model.draw_ends(predicted(step, rows), step.terminal, weight)
    reason = f"Ends: no border between states tells them (F1 {f1:.2f}), so dreams draw them, by how likely they are."
    return {**found, "drawn": {**done, "f1": f1, "reason": reason}}


def _learn(fitting: Fitting, ends: Ends, stage: str, seen: Callable[[Step, np.ndarray], Tensor]) -> dict[str, Any]:
    """Train the termination model that is there on what is ``seen`` of transitions; its checkpoint is named after the stage."""
    model, config = fitting.models.termination, fitting.share(fitting.preset.termination_training)

    def loss(generator: torch.Generator, _: int) -> Tensor:
        rows = ends.draw(generator, config.batch)
        step = fitting.batches.steps(rows)
        return model.loss(seen(step, rows), step.terminal)

    return train(stage, model, loss, config, seed=fitting.seed, **fitting.files(stage))


def _f1(found: dict[str, float]) -> float:
    return 2 * found["precision"] * found["recall"] / max(1e-9, found["precision"] + found["recall"])
