"""Learning curves of runs, runs that differ only in their seed as one band, and what they end with."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dydiff_env.evaluation.report.charts import BLUE, CYCLE, GREEN, ORANGE, band, figure, line
from dydiff_env.evaluation.report.page import Chart, Table
from dydiff_env.evaluation.report.sources import labels, read_json, read_log
from dydiff_env.evaluation.statistics import (
    bootstrap_interval,
    interquartile_mean,
    probability_of_improvement,
)

Log = dict[str, list[float]]
SEED = re.compile(r"[-_.]?(?:seed|s)?[-_]?\d+$")


def groups(paths: list[Path]) -> dict[str, list[Log]]:
    """Logs by the run's name without its seed: ``td3bc-s0`` and ``td3bc-s1`` are two runs of ``td3bc``."""
    found: dict[str, list[Log]] = {}
    for name, path in zip(labels(paths), paths, strict=True):
        log = read_log(path)
        if log:
            found.setdefault(SEED.sub("", name) or name, []).append(log)
    return dict(sorted(found.items()))


def learning_curves(runs: dict[str, list[Log]]) -> list[Chart | Table]:
    """Returns over updates, real and dreamt, where the runs were evaluated; and their losses."""
    score = "normalized_score" if all(_known(log, "normalized_score") for logs in runs.values() for log in logs) else (
        "return_mean"
    )
    parts: list[Chart | Table] = []
    for column in (score, "dream_return"):
        evaluated = {name: kept for name, logs in runs.items() if (kept := [log for log in logs if _known(log, column)])}
        if evaluated:
            parts.append(_curve(evaluated, column))
            parts += [final_table(evaluated, column)] if column == score else []
    for column, what in (("critic_loss", "critic's loss"), ("actor_loss", "actor's loss")):
        made = figure("updates", what)
        for colour, (name, logs) in zip(CYCLE * 9, runs.items(), strict=False):
            for i, log in enumerate(logs):
                x, y = _points(log, column)
                line(made, name, x, y, colour, mode="lines" if len(x) > 1 else "markers", legendgroup=name, showlegend=i == 0, width=1.5)
        made.update_layout(showlegend=True)
        if any(trace.y for trace in made.data):
            parts.append(Chart(made, f"The {what} at each row of the log."))
    return parts


def _curve(runs: dict[str, list[Log]], score: str) -> Chart:
    names = {"normalized_score": "normalised score", "dream_return": "dreamt return"}
    made = figure("updates", names.get(score, "return"))
    several, banded = any(len(logs) > 1 for logs in runs.values()), score == "return_mean"
    for colour, (name, logs) in zip(CYCLE * 9, runs.items(), strict=False):
        x, values = _shared(logs, score)
        if len(values) > 1:
            low, high = np.array([bootstrap_interval(column) for column in values.T]).T
            band(made, name, x, low, high, colour)
        elif score == "return_mean":
            spread = np.array([dict(zip(*_points(logs[0], "return_std"), strict=True)).get(at, 0.0) for at in x])
            band(made, name, x, values[0] - spread, values[0] + spread, colour)
        label = f"{name} ({len(values)} runs)" if len(values) > 1 else name
        line(made, label, x, values.mean(0).tolist(), colour)
    made.update_layout(showlegend=True)
    caption = "Mean in the real environment."
    if score == "dream_return":
        caption = "Mean of dreamt episodes; of a run of improve, over its rounds: what it began with, and the least gain in any member."
    bands = ["95 % bootstrap interval over runs"] * several + ["one standard deviation over a single run's episodes"] * banded
    return Chart(made, caption + (f" Band: {'; '.join(bands)}." if bands else ""))


def _shared(logs: list[Log], score: str) -> tuple[list[float], np.ndarray]:
    """The updates at which all of a group's logs have a value (the first one's, where they share none), and these (runs, points)."""
    points = [dict(zip(*_points(log, score), strict=True)) for log in logs]
    x = sorted(set.intersection(*(set(p) for p in points))) or sorted(points[0])
    return x, np.array([[p[at] for at in x] for p in points if all(at in p for at in x)])


def final_table(runs: dict[str, list[Log]], score: str) -> Table:
    """What each group has come to, where all its runs are; with three runs or more, over runs (Agarwal et al. 2021)."""
    finals, reached = dict[str, np.ndarray](), dict[str, int | None]()
    for name, logs in runs.items():
        x, values = _shared(logs, score)
        together = len(values) == len(logs)  # else they share no evaluation, and each stands where it is
        finals[name] = values[:, -1] if together else np.array([_points(log, score)[1][-1] for log in logs])
        reached[name] = int(x[-1]) if together else None
    first, rows = next(iter(finals)), []
    for name, values in finals.items():
        enough = len(values) >= 3
        interval = _interval(values, statistic=interquartile_mean) if enough else None
        better = "–"
        if name != first:
            better = f"{probability_of_improvement(values, finals[first]):.2f}"
            if enough and len(finals[first]) >= 3:
                better += f" ({_interval(values, finals[first], statistic=probability_of_improvement)})"
        rows.append([name, len(values), reached[name], float(values.mean()), interquartile_mean(values) if enough else None,
                     interval, better])  # fmt: skip
    columns = ["run", "seeds", "updates", "mean", "interquartile mean", "its 95 % interval", f"P(better than {first})"]
    unit = "normalised score" if score == "normalized_score" else "return"
    return Table(
        columns,
        rows,
        f"Last evaluation that all seeds share, {unit}; from three seeds on the statistics of Agarwal et al. 2021. Intervals: "
        "percentile bootstrap over seeds, 95 %.",
    )


def _interval(*groups: np.ndarray, statistic: Callable[..., float]) -> str:
    low, high = bootstrap_interval(*groups, statistic=statistic)
    return f"{low:.4g} to {high:.4g}"


def loop_charts(folder: Path) -> list[Chart]:
    """Algorithm 1 round by round: dreamt and real return, and how sure the world was."""
    rounds: list[dict[str, Any]] = read_json(folder / "loop.json").get("rounds", [])
    returns, doubt = figure("round", "return"), figure("round", "uncertainty (standard deviations)")
    for made, key, name, colour in (
        (returns, "return_mean", "real environment", BLUE),
        (returns, "dream_return", "dreamt", ORANGE),
        (doubt, "uncertainty", "kept rollouts", GREEN),
    ):
        known = [row for row in rounds if row.get(key) is not None]
        if known:
            line(made, name, [row["round"] for row in known], [row[key] for row in known], colour)
        made.update_layout(showlegend=True)
    return [
        Chart(returns, f"{folder.name}: mean return of whole episodes after each round."),
        Chart(doubt, f"{folder.name}: mean disagreement of the dynamics ensemble along the rollouts that were kept."),
    ]


def _known(log: Log, column: str) -> bool:
    return bool(np.isfinite(log.get(column, [np.nan])).any())


def _points(log: Log, column: str) -> tuple[list[float], list[float]]:
    """(updates, value) where the column has one."""
    pairs = [(x, y) for x, y in zip(log["updates"], log.get(column, []), strict=False) if np.isfinite(y)]
    return [x for x, _ in pairs], [y for _, y in pairs]
