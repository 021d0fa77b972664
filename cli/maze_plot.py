"""Pictures of rollouts in a maze (after the paper's Figs. 8 and 9)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dydiff_env.data.trajectories import Trajectories
from dydiff_env.evaluation.mazes import frame, free_of_walls, wall_squares

INK, PATH, WRONG, WALL = "#1f2933", "#2a6f97", "#c8553d", "#d9dee3"


def draw_rollouts(panels: dict[str, Trajectories], columns: slice, maze: Any, path: Path) -> dict[str, int]:
    """One maze a panel, its rollouts in it, those that enter a wall in another colour; written as PNG.

    Args:
        panels: title: rollouts.
        columns: of (x, y) in the observations.
        maze: `env.unwrapped.maze`.
        path: of the picture.

    Returns:
        For each panel, how many of its rollouts stay out of the walls.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.patches import Rectangle

    figure, axes = pyplot.subplots(1, len(panels), figsize=(4.4 * len(panels), 5), layout="constrained")
    legal = {}
    for axis, (title, rollouts) in zip(np.atleast_1d(axes), panels.items(), strict=True):
        for x, y, right, top in wall_squares(maze):
            axis.add_patch(Rectangle((x, y), right - x, top - y, color=WALL, lw=0))
        positions = rollouts.observations[..., columns]
        free = free_of_walls(positions, rollouts.state_mask, maze)
        legal[title] = int(free.sum())
        for way, length, ok in zip(positions, rollouts.lengths, free, strict=True):
            axis.plot(*way[: length + 1].T, color=PATH if ok else WRONG, lw=1.1, alpha=0.75)
            axis.plot(*way[0], "o", color=INK, ms=2.5)
        axis.set_title(f"{title}\n{legal[title]} of {len(rollouts)} stay out of the walls", fontsize=13)
        x_range, y_range = frame(maze)
        axis.set(xlim=x_range, ylim=y_range, aspect="equal")
        axis.axis("off")
    figure.savefig(path, dpi=130, bbox_inches="tight", pad_inches=0.1)
    pyplot.close(figure)
    return legal
