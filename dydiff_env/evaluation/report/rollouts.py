"""One policy's rollouts before and after refinement, in the maze or in a plane of the state space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dydiff_env.data.trajectories import Trajectories
from dydiff_env.errors import DyDiffError
from dydiff_env.evaluation.fidelity import common_starts, errors, refuse_draws
from dydiff_env.evaluation.mazes import frame, free_of_walls, position_columns, wall_squares
from dydiff_env.evaluation.report.charts import BLUE, GREEN, GREY, ORANGE, figure
from dydiff_env.evaluation.report.page import Chart
from dydiff_env.evaluation.simulator import Simulator
from dydiff_env.policies.policy import Policy
from dydiff_env.world.acting import draws, repeats
from dydiff_env.world.world import World


@dataclass(frozen=True)
class Plane:
    """How states become points: columns (x, y) of a maze, or the data's two main directions.

    Args:
        mean: (O,), subtracted.
        directions: (O, 2).
        names: of the axes.
        maze: with walls, or None.
    """

    mean: np.ndarray
    directions: np.ndarray
    names: tuple[str, str]
    maze: Any = None

    def points(self, observations: np.ndarray) -> np.ndarray:
        """(…, 2) for observations (…, O)."""
        return (observations - self.mean) @ self.directions


def plane_of(world: World, simulator: Simulator | None) -> Plane:
    """The maze from above where there is one, else the plane in which the data vary most (standardised)."""
    size = world.spec.observation_size
    if simulator is not None and simulator.maze:
        columns = position_columns(world.spec.observation_space)
        return Plane(np.zeros(size), np.eye(size)[:, columns], ("x", "y"), simulator.env.unwrapped.maze)  # type: ignore[attr-defined]
    std = world.normalizer.std.cpu().numpy()
    mean = world.start_bank.mean(0)
    if min(world.start_bank.shape) < 2:  # one number, or one state: there is no second direction
        axes = np.zeros((2, size))
        axes[0, 0] = 1 / std[0]
        return Plane(mean, axes.T, ("the state", ""))
    _, strength, axes = np.linalg.svd((world.start_bank - mean) / std, full_matrices=False)
    axes *= np.where(axes.sum(1) < 0, -1, 1)[:, None]  # a direction's sign is arbitrary: fix it
    share = 100 * strength**2 / np.square(strength).sum()
    first, second = (f"{name} direction of the data ({part:.0f} % of its variance)" for name, part in
                     zip(("1st", "2nd"), share, strict=False))  # fmt: skip
    return Plane(mean, (axes[:2] / std).T, (first, second))


def refinement_chart(
    world: World, policy: Policy, policy_name: str, *, starts: int = 12, most: int = 5, seed: int = 0
) -> Chart:
    """Dreams of one policy from the same starts with M = 0 … ``most`` refinements, one stop of a slider each.

    Where the source environment can be put into the starts, what really happens there is drawn too, and the
    distance to it is said.

    Args:
        world: dreams.
        policy: acts.
        policy_name: said in the caption.
        starts: how many rollouts.
        most: largest M; a world in the paper's form, whose samples cost minutes, stops at its own M.
        seed: of the starts.
    """
    simulator: Simulator | None = None
    first = world.sample_starts(starts, seed)
    try:
        simulator = Simulator(world.spec)
        first = common_starts(world, simulator, starts, seed)
        starts = len(first)
        refuse_draws(policy, world, policy_name)
        real = simulator.follow(policy, first, world.horizon)
    except DyDiffError:  # reality cannot be made, or not be started where the data are, or would follow other draws
        real = None
    plane = plane_of(world, simulator)
    most = most if world.anchored else min(most, world.iterations)
    if draws(world, policy, True) and not repeats(world, policy, True):
        most = 0  # a refinement would meet other draws
    made = figure(*plane.names, height=520)
    _background(made, plane, world)
    if real is not None:
        _paths(made, plane, real, np.ones(starts, bool), "really", GREEN, width=1.6, dash="dot")
    notes, trust = [], world.trust_in(policy)
    for m in range(most + 1):
        dream = world.dream(policy, first, iterations=m, trust=trust)
        free = np.ones(starts, bool)
        said = [f"M = {m}" if m else "M = 0, the single-step rollout"]
        if plane.maze is not None:
            free = free_of_walls(plane.points(dream.observations), dream.state_mask, plane.maze)
            said.append(f"{free.sum()} of {starts} stay out of the walls")
        else:
            said.append(f"{(~dream.terminations).sum()} of {starts} alive at the end")
        if real is not None:
            error, taken = errors(world, dream, real)
            said.append(f"error {error[taken].mean():.3g}")
        notes.append(" · ".join(said))
        _paths(made, plane, dream, free, "dreamt", BLUE, stop=m)
        if plane.maze is not None:
            _paths(made, plane, dream, ~free, "dreamt, through a wall", ORANGE, stop=m)
    if simulator is not None:
        simulator.close()
    made.update_layout(showlegend=True)
    caption = f"{starts} rollouts of {policy_name} from the same starts, {world.horizon} steps. "
    caption += "Move the slider to refine them. " if most else ""
    if real is not None:
        caption += "Dotted: what really happens. Error: mean squared distance to it, standardised, until the real episode ends."
    return Chart(made, caption, tuple(f"{m}" for m in range(most + 1)), tuple(notes), min(world.iterations, most))


def _background(made: Any, plane: Plane, world: World) -> None:
    """Walls, or some of the data's states."""
    if plane.maze is None:
        cloud = plane.points(world.start_bank[:: max(1, len(world.start_bank) // 1500)])
        made.add_scatter(x=np.round(cloud[:, 0], 3).tolist(), y=np.round(cloud[:, 1], 3).tolist(), mode="markers",
                         name="logged states", hoverinfo="skip",
                         marker={"size": 3, "color": GREY, "opacity": 0.35})  # fmt: skip
        return
    for x0, y0, x1, y1 in wall_squares(plane.maze):
        made.add_shape(type="rect", x0=x0, y0=y0, x1=x1, y1=y1, layer="below", line_width=0, fillcolor="#999")
    x_range, y_range = frame(plane.maze)
    made.update_xaxes(range=x_range, visible=False, constrain="domain")
    made.update_yaxes(range=y_range, visible=False, scaleanchor="x", constrain="domain")
    made.update_layout(margin={"l": 8, "r": 8, "t": 12, "b": 8})


def _paths(
    made: Any, plane: Plane, rollouts: Trajectories, rows: np.ndarray, name: str, colour: str,
    stop: int | None = None, **style: Any
) -> None:  # fmt: skip
    """Some of the rollouts as one trace: lines with gaps between, and a dot where each begins."""
    x: list[float | None] = []
    y: list[float | None] = []
    sizes: list[int] = []
    for i in np.flatnonzero(rows):
        path = np.round(plane.points(rollouts.observations[i, : rollouts.lengths[i] + 1]), 4)
        x += [*path[:, 0].tolist(), None]
        y += [*path[:, 1].tolist(), None]
        sizes += [6] + [0] * len(path)
    made.add_scatter(x=x, y=y, name=name, mode="lines+markers", hoverinfo="skip", meta=stop, opacity=0.85,
                     line={"color": colour, "width": 1.8} | style,
                     marker={"color": colour, "size": sizes or 0, "line": {"width": 0}})  # fmt: skip
