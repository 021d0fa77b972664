"""Means over seeds, as the tables of several benchmarks give them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def over_seeds(means: Sequence[float]) -> dict[str, Any]:
    """Mean and sample standard deviation (None of one seed) of a figure a seed, and the figures themselves."""
    return {
        "return_mean": float(np.mean(means)),
        "return_std": float(np.std(means, ddof=1)) if len(means) > 1 else None,
        "returns_of_seeds": list(means),
    }


def cells(row: dict[str, Any], digits: int) -> tuple[str, str]:
    """What ``over_seeds`` gave, as "mean ± deviation" and the figures in a row."""
    spread = "" if row["return_std"] is None else f" ± {row['return_std']:.{digits}f}"
    return f"{row['return_mean']:.{digits}f}{spread}", ", ".join(f"{x:.{digits}f}" for x in row["returns_of_seeds"])
