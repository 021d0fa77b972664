"""How an export was made: what goes into its metadata, and whether two exports are the same."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dydiff_env.errors import DyDiffError
from dydiff_env.synthesis.methods import get_method
from dydiff_env.synthesis.rounds import RoundOptions
from dydiff_env.synthesis.workers import Opened


def algorithm(options: RoundOptions) -> str:
    """The method's name for Minari's metadata; unrefined rollouts are called what they are."""
    plain = options.method == "dydiff" and options.iterations == 0
    return get_method("single-step" if plain else options.method).algorithm


def description(opened: Opened) -> str:
    """One line for Minari's metadata."""
    source = opened.world.spec.dataset_id
    if opened.policy is None:
        return f"Synthetic data in the likeness of {source}."
    return f"A {opened.policy.kind} policy in a world learned from {source}."


def versions() -> dict[str, str]:
    """Of what made the data."""
    return {name: version(name) for name in ("dydiff-env", "torch", "numpy", "gymnasium", "minari")}


def totals(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Sums over the rounds, and means over the kept rollouts (of the uncertainty: over their transitions)."""
    counted = ("kept", "transitions", "terminated", "diverged", "cut", "actions_proposed", "actions_clipped")
    sums = {key: sum(r[key] for r in rounds) for key in counted}
    returns = [(r["returns_kept"]["mean"], r["kept"]) for r in rounds if r["returns_kept"]]
    doubts = [(r["uncertainty"], r["transitions"]) for r in rounds if r["uncertainty"] is not None]
    means = {"return_mean": _weighted(returns), "uncertainty": _weighted(doubts)}
    return {"trajectories": sums.pop("kept"), **sums, **means}


def check_same(where: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to go on with rounds that were made otherwise.

    Raises:
        DyDiffError: naming what differs.
    """
    other = _differences(before, now)
    if other:
        raise DyDiffError(
            f"{where} was begun otherwise: {'; '.join(other)}.",
            "Resume with the same world, policy and options, or start anew with --overwrite.",
            usage=True,
        )


def finished_rounds(out: Path, recipe: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The rounds of an export of this recipe, if that is what the folder ``out`` holds: one that was killed after its
    publication is found whole when it is resumed."""
    try:
        made = json.loads(json.loads((out / "metadata.json").read_text())["dydiff_env"])
        rounds: list[dict[str, Any]] = made["rounds"]
        if _differences(made, recipe):
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    shutil.rmtree(out / "parts", ignore_errors=True)
    return rounds


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    before, now = ({**recipe, **recipe["options"], "options": None} for recipe in (before, now))
    return [f"{key} was {before.get(key)!r}" for key in now if before.get(key) != now[key]]


def _weighted(values: list[tuple[float, int]]) -> float | None:
    weight = sum(count for _, count in values)
    return sum(value * count for value, count in values) / weight if weight else None
