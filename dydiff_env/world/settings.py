"""Whether settings read from a file are ones that a model can be built and run with."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from dydiff_env.errors import DyDiffError
from dydiff_env.world.refine import UPDATES
from dydiff_env.world.unet import GROUPS

OPTIMIZERS = ("adamw", "soap")
SCHEDULES = ("cosine", "constant")
BOUNDS: dict[str, tuple[float, float]] = {
    "horizon": (1, 100_000),
    "width": (1, 65_536),
    "depth": (1, 1_000),
    "blocks": (0, 1_000),
    "heads": (1, 1_000),
    "patch": (1, 100_000),
    "kernel": (1, 1_000),
    "multipliers": (1, 1_000),
    "members": (1, 1_000),
    "elites": (1, 1_000),
    "clones": (1, 1_000),
    "iterations": (0, 1_000),
    "nudge": (0.0, 1.0),
    "hard": (0.0, 1.0),
    "unroll": (1, 1_000),
    "unrolled": (0.0, 1.0),
    "beta2": (0.0, 0.9999999),
    "evaluate_every": (1, 10**9),
    "batch": (1, 10**9),
    "steps": (0, 10**9),  # of training; a sampler's are bounded below
    "rho": (1e-3, 1e3),
    "sigma_data": (1e-6, 1e6),
    "sigma_min": (1e-9, 1e6),
    "sigma_max": (1e-9, 1e6),
}
"""Least and most of what decides how much is computed or what is divided by; other numbers need only be finite."""


def check_settings(config: Any, where: str = "the settings") -> None:
    """Walk a configuration: numbers finite and within BOUNDS, of the kind their field has by default.

    Raises:
        DyDiffError: naming the first setting that is not.
    """
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), f"{where}.{field.name}"
        if dataclasses.is_dataclass(value):
            check_settings(value, name)
            continue
        default = _default(field)
        low, high = BOUNDS.get(field.name, (-math.inf, math.inf))
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, bool) or not isinstance(number, (int, float)):
                continue
            if not math.isfinite(number) or not low <= number <= high:
                raise DyDiffError(f"{name} is {number}, not between {low} and {high}.", "Correct it, or restore the file.")
        if value is not None and default is not None and not _alike(value, default):
            raise DyDiffError(f"{name} is {value!r}, not of the kind of {default!r}.", "Correct it, or restore the file.")
    names = {field.name for field in dataclasses.fields(config)}
    if {"sigma_min", "sigma_max", "rho"} <= names and not (
        config.sigma_min < config.sigma_max and 1 <= config.steps <= 10_000
    ):
        raise DyDiffError(f"{where} are no noise levels.", "Correct it, or restore the file.")
    if {"width", "heads"} <= names and config.width % config.heads:
        raise DyDiffError(f"{where}.width is not a multiple of its heads.", "Correct it, or restore the file.")
    if {"kernel", "multipliers"} <= names and (config.width % GROUPS or not config.kernel % 2 or not config.multipliers):
        raise DyDiffError(
            f"{where} has width {config.width}, kernel {config.kernel} and {len(config.multipliers)} multipliers.",
            f"Use a width that is a multiple of {GROUPS}, an odd kernel, and one multiplier at least.",
        )
    if {"members", "elites"} <= names and config.elites > config.members:
        raise DyDiffError(f"{where} has more elites than members.", "Correct it, or restore the file.")
    if "optimizer" in names and config.optimizer not in OPTIMIZERS:
        raise DyDiffError(f"{where}.optimizer is {config.optimizer!r}.", f"Use one of {', '.join(OPTIMIZERS)}.")
    if "schedule" in names and config.schedule not in SCHEDULES:
        raise DyDiffError(f"{where}.schedule is {config.schedule!r}.", f"Use one of {', '.join(SCHEDULES)}.")
    if "update" in names and config.update not in UPDATES:
        raise DyDiffError(f"{where}.update is {config.update!r}.", f"Use one of {', '.join(UPDATES)}.")


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else None


def _alike(value: Any, default: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, (int, float))
    if dataclasses.is_dataclass(default):
        return dataclasses.is_dataclass(value)
    return isinstance(value, type(default))
