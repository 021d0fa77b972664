"""How long a fit will take, found out by a rehearsal: every stage for a few steps, its time scaled to the whole."""

from __future__ import annotations

import copy
import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from dydiff_env.policies.draws import own_draws
from dydiff_env.progress import announce
from dydiff_env.world.fit import fit_stages
from dydiff_env.world.fit_denoiser import CHUNK
from dydiff_env.world.fitting import Fitting
from dydiff_env.world.presets import Preset
from dydiff_env.world.sight import SMALL, TRIAL, WAVES, trials, untrained
from dydiff_env.world.training import TrainingConfig, load_checkpoint

STEPS = 8  # of each stage
LARGE = 20_000_000  # parameters; a step of so large a denoiser is timed on a few windows
FEW = 2
FIDELITY = 90  # the look at held-out data costs as much as so many steps of an anchored denoiser

STAGES = ("reward", "termination", "dynamics", "behavior", "denoiser")


def estimate(fit: Fitting) -> float:
    """Seconds that are left of a fit that is about to train; it goes on as if nothing had happened.

    Stages that a stopped fit has behind it are not counted. Where training may stop early, this is the most it takes.
    """
    began, counted = time.monotonic(), 0.0
    preset, small, scale = fit.preset, *_miniature(fit.preset, fit.models.denoiser)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch, own_draws(fit.device):
        trial = copy.copy(fit)  # the data are shared
        trial.models, trial.preset, trial.folder = copy.deepcopy(fit.models), small, Path(scratch)
        trial.progress, trial.log, trial.checkpoints = False, None, False
        trial.models.dynamics = untrained(trial)  # of the size it may come to
        training, _ = fit_stages(trial)
    left = 0.0
    if not (fit.folder / "sight.json").exists():
        tried = trials(preset.dynamics) * min(TRIAL, preset.dynamics_training.steps)  # steps of a small ensemble
        left += tried * SMALL["members"] / preset.dynamics.members * training["dynamics"]["step_seconds"]
    for stage in STAGES:
        done = training.get(stage)
        if done is None or not done["steps"]:
            continue
        counted += done["seconds"]
        pace = done["step_seconds"] * (scale if stage == "denoiser" else 1.0)
        left += pace * _steps_left(fit, stage, getattr(preset, f"{stage}_training"))
        if stage == "denoiser" and preset.anchors is not None:
            left += FIDELITY * pace
    if preset.anchors is not None and not (fit.folder / "denoiser.pt").exists():
        windows = min(preset.anchors.windows, len(fit.split.train))
        counted += training["anchors"]["seconds"]
        left += training["anchors"]["seconds"] * windows / training["anchors"]["windows"]
    besides = time.monotonic() - began - counted  # thresholds, elites, scales: the same in the real fit
    return left + max(0.0, besides)


def announce_fit(fit: Fitting) -> None:
    """Say how long the fit will take."""
    early = any(getattr(fit.preset, f"{stage}_training").patience for stage in STAGES)
    announce("fit, at most" if early else "fit", estimate(fit))


def _miniature(preset: Preset, denoiser: torch.nn.Module) -> tuple[Preset, float]:
    """The same for a few steps, and how much larger a real step of the denoiser is."""
    where = next(denoiser.parameters()).device  # a GPU takes hardly longer for many rows than for a few
    large = where.type == "cpu" and sum(p.numel() for p in denoiser.parameters()) > LARGE
    most = WAVES[-1] if preset.dynamics.frequencies is None else preset.dynamics.frequencies
    changes: dict[str, Any] = {
        "dynamics": dataclasses.replace(preset.dynamics, memory=bool(preset.dynamics.memory), frequencies=most),
        "reward": dataclasses.replace(preset.reward, next_state=bool(preset.reward.next_state)),
        "termination": dataclasses.replace(preset.termination, drawn=bool(preset.termination.drawn)),
    }
    for stage in STAGES:
        config: TrainingConfig = getattr(preset, f"{stage}_training")
        few: dict[str, Any] = (
            {"batch": FEW, "steps": 3} if large and stage == "denoiser" else {"steps": STEPS}
        )
        changes[f"{stage}_training"] = dataclasses.replace(config, **few, evaluate_every=STEPS, patience=0)
    if preset.anchors is not None:
        changes["anchors"] = dataclasses.replace(preset.anchors, windows=min(CHUNK, preset.anchors.windows))
    return dataclasses.replace(preset, **changes), preset.denoiser_training.batch / FEW if large else 1.0


def _steps_left(fit: Fitting, stage: str, config: TrainingConfig) -> int:
    found = load_checkpoint(fit.folder / f"{stage}.pt")
    return config.steps if found is None else 0 if found["done"] else config.steps - int(found["step"])
