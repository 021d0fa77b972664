"""Off-policy evaluation: what policies would earn, told by their dreams; and how far that can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dydiff_env.errors import DyDiffError
from dydiff_env.evaluation.picture import picture
from dydiff_env.evaluation.scores import Episodes
from dydiff_env.policies.draws import stream
from dydiff_env.policies.loader import as_policy
from dydiff_env.world.world import World

BATCH = 512  # dreams imagined at once


@dataclass(frozen=True)
class Agreement:
    """How dreamt returns agree with real ones, over K policies.

    Args:
        spearman: rank correlation, 1 where the dream orders the policies as reality does.
        regret: what is lost by taking the policy the dream ranks first, as a share of the real range (regret@1); NaN where that is 0.
        mean_absolute_error: of the mean returns, as a share of the real range; NaN where that is 0.
        real_range: best minus worst real return.
    """

    spearman: float
    regret: float
    mean_absolute_error: float
    real_range: float


def dream_returns(
    world: World,
    policy: Any,
    episodes: int = 100,
    *,
    horizon: int | None = None,
    iterations: int | None = None,
    deterministic: bool = True,
    seed: int = 0,
    discount: float = 1.0,
) -> Episodes:
    """Returns of a policy dreamt from first states of the data's episodes.

    Args:
        world: what is dreamt in.
        policy: of the world's spaces; whatever :func:`~dydiff_env.policies.loader.as_policy` takes.
        episodes: how many.
        horizon: the longest episode; None for the world's own (:attr:`World.episode_limit`).
        iterations: refinements M; None for the world's own, 0 for the single-step model alone.
        deterministic: the policy's mode.
        seed: of the starts and draws; the same for all policies, so that they are compared on the same starts.
        discount: γ, a reward t steps on counts γ^t.

    Returns:
        Returns, lengths and starts, (episodes,) each; where there are fewer first states than episodes, starts repeat.
    """
    policy = as_policy(policy, world.spec, device=str(world.device))
    horizon = world.episode_limit if horizon is None else horizon
    starts = world.sample_starts(episodes, seed=seed, kind="initial")
    refined = (world.iterations if iterations is None else iterations) > 0
    trust = world.trust_in(policy) if refined else None
    returns, lengths = [], []
    for begin in range(0, episodes, BATCH):
        dream = world.dream(
            policy,
            starts[begin : begin + BATCH],
            horizon,
            iterations,
            deterministic=deterministic,
            seed=stream(seed, begin),
            trust=trust,
        )
        returns.append(dream.discounted(discount))
        lengths.append(dream.lengths)
    return Episodes(
        np.concatenate(returns),
        np.concatenate(lengths),
        np.unique(starts, axis=0, return_inverse=True)[1].reshape(-1),
    )


def rank(
    world: World, policies: Mapping[str, Any], episodes: int = 100, **options: object
) -> dict[str, Episodes]:
    """Dreamt returns of several policies, best mean first.

    Args:
        world: what is dreamt in.
        policies: by name.
        episodes: of each.
        options: of ``dream_returns``.
    """
    found = {name: dream_returns(world, policy, episodes, **options) for name, policy in policies.items()}  # type: ignore[arg-type]
    return dict(sorted(found.items(), key=lambda item: -item[1].returns.mean()))


def agreement(dreamt: Mapping[str, Episodes], real: Mapping[str, Episodes]) -> Agreement:
    """Compare dreamt with real mean returns, policy by policy.

    Raises:
        DyDiffError: for fewer than two policies, or different ones.
    """
    if len(dreamt) < 2 or dreamt.keys() != real.keys():
        raise DyDiffError(
            f"Dreamt: {sorted(dreamt)}; real: {sorted(real)}.",
            "Evaluate the same policies, two at least, in both.",
        )
    ours = np.array([dreamt[name].returns.mean() for name in dreamt])
    theirs = np.array([real[name].returns.mean() for name in dreamt])
    width = float(np.ptp(theirs))
    scale = width or np.nan  # a share of nothing
    return Agreement(
        spearman=rank_correlation(ours, theirs),
        regret=float(theirs.max() - theirs[ours.argmax()]) / scale,
        mean_absolute_error=float(np.abs(ours - theirs).mean()) / scale,
        real_range=width,
    )


def table(
    dreamt: Mapping[str, Episodes] | None, real: Mapping[str, Episodes] | None = None
) -> list[dict[str, object]]:
    """One row a policy, best first: mean return with its 95 % bootstrap interval over starts, and length, dreamt and real.

    What is None is left out; the order is the dream's where there is one.
    """
    found = {place: returns for place, returns in (("dream", dreamt), ("real", real)) if returns is not None}
    leading = next(iter(found.values()))
    rows: list[dict[str, object]] = []
    for name in sorted(leading, key=lambda name: -leading[name].returns.mean()):
        row: dict[str, object] = {"policy": name}
        for place, returns in found.items():
            row[f"{place}_return"] = float(returns[name].returns.mean())
            row[f"{place}_ci"] = list(returns[name].interval())
            row[f"{place}_length"] = float(returns[name].lengths.mean())
        rows.append(row)
    return rows


def plot_agreement(dreamt: Mapping[str, Episodes], real: Mapping[str, Episodes], path: str | Path) -> None:
    """Draw real against dreamt mean returns, one point a policy with its 95 % intervals, as a picture at ``path``.

    Raises:
        DyDiffError: without matplotlib.
    """
    figure, axes = picture(5, 5)
    for name in dreamt:
        (x, across), (y, up) = (
            (found.returns.mean(), np.abs(np.array(found.interval()) - found.returns.mean())[:, None])
            for found in (real[name], dreamt[name])
        )
        axes.errorbar(x, y, xerr=across, yerr=up, fmt="o", capsize=3, label=Path(name).name)
    middle = float(np.mean([found.returns.mean() for found in real.values()]))
    axes.axline((middle, middle), slope=1, color="0.6", linestyle="--", zorder=0)
    found = agreement(dreamt, real) if len(dreamt) > 1 else None
    title = "" if found is None or not found.real_range else f"rank correlation {found.spearman:.2f}, regret@1 {found.regret:.2f}"
    axes.set(xlabel="return in the real environment", ylabel="return in the dream", title=title)
    axes.legend(frameon=False, fontsize="small")
    figure.savefig(Path(path).expanduser(), dpi=150)


def rank_correlation(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> float:
    """Spearman's ρ: the correlation of ranks, ties sharing their mean rank; 0 where one side is constant."""
    a, b = _ranks(np.asarray(first, float)), _ranks(np.asarray(second, float))
    a, b = a - a.mean(), b - b.mean()
    norm = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / norm) if norm > 0 else 0.0


def _ranks(values: np.ndarray) -> np.ndarray:
    return (values[:, None] > values).sum(1) + ((values[:, None] == values).sum(1) - 1) / 2
