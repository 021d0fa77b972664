"""What the single-step model is shown besides the state: waves of it, and the step before. Short trials tell what a log calls for.

Waves (:func:`dydiff_env.world.networks.waves`) let a network see walls and contacts, but where the dynamics are smooth they blur: a pole
that a policy balances falls in the dreams of a model with waves, whose last digits are wrong. Memory (:mod:`dydiff_env.world.memory`)
tells what an observation leaves out, and does harm where nothing is: the model then leans on what policies other than the log's do not
do. So each has to be worth it: a small ensemble, shortly trained, must err less with it on held-out data, and not by a little.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch

from dydiff_env.policies.draws import own_draws
from dydiff_env.publish import replacing
from dydiff_env.world.dynamics import Dynamics, DynamicsConfig
from dydiff_env.world.fitting import WORTH, Fitting
from dydiff_env.world.presets import Preset

WAVES: tuple[tuple[float, ...], ...] = ((), (0.25, 0.5, 1.0), (0.25, 0.5, 1.0, 2.0, 4.0))  # frequencies that are tried, the fewest first
TRIAL = 600  # steps of a trial: with fewer, what speeds up learning looks like what can be learned
SMALL = {"members": 2, "elites": 1}
NEGLIGIBLE = 1e-4  # of the change's variance: so little error is none that being shown more could be worth it for

Train = Callable[[Fitting], dict[str, Any]]
"""Trains a fit's dynamics, and tells each member's held-out error as "holdout"."""


def trials(config: DynamicsConfig) -> int:
    """How many there will be."""
    open_to_waves, open_to_memory = config.frequencies is None, config.memory is None
    return (len(WAVES) if open_to_waves else int(open_to_memory)) + int(open_to_memory)


def choose_sight(fitting: Fitting, train: Train) -> dict[str, Any]:
    """Set what the preset leaves open (None), and say what was found; a fit that goes on does not try again."""
    given, found = fitting.preset.dynamics, fitting.folder / "sight.json"
    if not trials(given):
        return {}
    if found.exists():
        record: dict[str, Any] = json.loads(found.read_text())
    else:
        record = _try(fitting, train)
        if fitting.checkpoints and fitting.peers.main:
            with replacing(found) as partial:
                partial.write_text(json.dumps(record))
    chosen: dict[str, Any] = {}
    if "waves" in record:
        chosen["frequencies"] = tuple(record["waves"]["kept"])
    if "memory" in record:
        chosen["memory"] = record["memory"]["kept"]
    fitting.preset = _showing(fitting, **chosen)
    fitting.models.dynamics = untrained(fitting)
    return record


def _try(fitting: Fitting, train: Train) -> dict[str, Any]:
    @cache
    def error(frequencies: tuple[float, ...], memory: bool) -> float:
        return _error(fitting, train, frequencies=frequencies, memory=memory)

    record: dict[str, Any] = {}
    frequencies, memory = fitting.preset.dynamics.frequencies, fitting.preset.dynamics.memory
    if frequencies is None:
        errors = [error(some, bool(memory)) for some in WAVES]
        best = 0
        for more in range(1, len(WAVES)):
            if _pays(errors[more], errors[best]):
                best = more
        frequencies = WAVES[best]
        told = ", ".join(f"{e:.4g} with waves up to {some[-1]:g}" for some, e in zip(WAVES[1:], errors[1:], strict=True))
        reason = f"In a short trial the held-out error was {errors[0]:.4g} without waves of the state, {told}: " + (
            f"the world sees those up to {frequencies[-1]:g}." if frequencies else "the world sees none."
        )
        record["waves"] = {"kept": list(frequencies), "errors": errors, "reason": reason}
    if memory is None:
        without, with_it = error(frequencies, False), error(frequencies, True)
        kept = _pays(with_it, without)
        reason = f"In a short trial the held-out error was {with_it:.4g} with a step of memory and {without:.4g} without: " + (
            "the world has memory." if kept else "not worth it, so the world has none."
        )
        record["memory"] = {"kept": kept, "without": without, "with": with_it, "reason": reason}
    return record


def _pays(error: float, simpler: float) -> bool:
    return error < WORTH * simpler and simpler > NEGLIGIBLE


def _error(fitting: Fitting, train: Train, **shown: Any) -> float:
    """The held-out error of a small ensemble after a short training."""
    trial, training = copy.copy(fitting), fitting.preset.dynamics_training
    short = dataclasses.replace(training, steps=min(TRIAL, training.steps))
    trial.preset = dataclasses.replace(_showing(fitting, **shown, **SMALL), dynamics_training=short)
    trial.models = copy.deepcopy(fitting.models)
    trial.models.dynamics = untrained(trial)
    trial.log, trial.checkpoints = None, False
    return float(np.mean(train(trial)["holdout"]))


def _showing(fitting: Fitting, **shown: Any) -> Preset:
    preset = fitting.preset
    return dataclasses.replace(preset, dynamics=dataclasses.replace(preset.dynamics, **shown))


def untrained(fitting: Fitting) -> Dynamics:
    """The single-step model that the preset asks for, as it is before its training."""
    spec = fitting.data.spec
    with own_draws(torch.device("cpu"), fitting.seed):
        return fitting.fresh(Dynamics(spec.observation_size, spec.action_size, fitting.preset.dynamics))
