"""What is made of returns: scores, means that bear outliers, comparisons, and how well each is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dydiff_env.data.dataset import DatasetSpec


def normalized_scores(returns: np.ndarray, spec: DatasetSpec) -> np.ndarray | None:
    """100 (R − random) / (expert − random), D4RL's score; None where the dataset has no such scores, or no better expert."""
    low, high = spec.ref_min_score, spec.ref_max_score
    return None if low is None or high is None or not high > low else 100 * (np.asarray(returns) - low) / (high - low)


def interquartile_mean(values: Sequence[float] | np.ndarray) -> float:
    """Mean of the middle half (Agarwal et al. 2021): of K values, ⌊K/4⌋ are cut off at each end."""
    ordered = np.sort(np.asarray(values, np.float64))
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def probability_of_improvement(values: np.ndarray, other: np.ndarray) -> float:
    """P(X > Y) + ½ P(X = Y) for X of ``values`` and Y of ``other`` (Agarwal et al. 2021)."""
    gap = np.asarray(values)[:, None] - np.asarray(other)[None]
    return float((gap > 0).mean() + 0.5 * (gap == 0).mean())


def bootstrap_interval(
    *groups: np.ndarray, statistic: Callable[..., float] = np.mean, level: float = 0.95, samples: int = 2000
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic of one or more groups, each redrawn by itself; the same every time.

    Args:
        groups: (K, …) values each.
        statistic: takes as many arrays as there are groups; the mean by default.
        level: of the interval.
        samples: how often the groups are redrawn.
    """
    rng = np.random.default_rng(0)
    draws = [statistic(*(rng.choice(group, len(group)) for group in groups)) for _ in range(samples)]
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
