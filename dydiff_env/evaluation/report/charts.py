"""The charts of a report. Colours stand on white and on black; what CSS can colour (text, grid, walls) is left to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from dydiff_env.evaluation.report.page import Chart

BLUE, ORANGE, GREEN, PURPLE, RED, GREY = "#3b82c4", "#dd7a2a", "#2f9e6e", "#8d6cc9", "#d1495b", "#8a94a0"
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, RED, "#b08a2e", "#3aa6a6", GREY)


def figure(x: str, y: str, log: bool = False, height: int = 340) -> go.Figure:
    """An empty figure that scrolls with the page under a finger, its legend above."""
    made = go.Figure()
    made.update_layout(
        template="none",
        height=height,
        margin={"l": 58, "r": 12, "t": 12, "b": 46},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13},
        dragmode=False,
        hovermode="closest",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "xanchor": "left"},
    )
    made.update_xaxes(title_text=x, zeroline=False, gridcolor="#888", title_standoff=8)
    made.update_yaxes(title_text=y, zeroline=False, gridcolor="#888", title_standoff=8, automargin=True)
    if log:
        made.update_yaxes(type="log")
    return made


def plain_ticks(made: go.Figure) -> None:
    """Plain numbers on a logarithmic axis, as many as its range has room for."""
    values = [value for trace in made.data for value in trace.y if value > 0]
    span = np.log10(max(values) / min(values)) if values else 0.0
    digits = (1,) if span > 3 else (1, 2, 5) if span > 0.9 else (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
    ticks = [digit * 10.0**power for power in range(-12, 7) for digit in digits]
    made.update_yaxes(tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])


def tint(colour: str, opacity: float) -> str:
    """A hexadecimal colour, seen through."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def line(into: go.Figure, name: str, x: Sequence[float], y: Sequence[float], colour: str, **style: Any) -> None:
    """One named line with a mark at each point."""
    trace = {key: style.pop(key) for key in ("mode", "opacity", "showlegend", "legendgroup") if key in style}
    into.add_scatter(
        x=list(x),
        y=list(y),
        name=name,
        line={"color": colour, "width": 2} | style,
        marker={"color": colour, "size": 6},
        **{"mode": "lines+markers"} | trace,
    )


def band(into: go.Figure, name: str, x: Sequence[float], low: np.ndarray, high: np.ndarray, colour: str) -> None:
    """A shaded band that goes with the line of the same name."""
    into.add_scatter(
        x=[*x, *reversed(x)],
        y=[*map(float, high), *map(float, low[::-1])],
        fill="toself",
        fillcolor=tint(colour, 0.18),
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
        name=name,
    )


def horizons(values: dict[str, float]) -> tuple[list[int], list[float]]:
    """The entries h1, h5, … of a record's fidelity, as steps and errors."""
    pairs = sorted((int(key[1:]), value) for key, value in values.items() if key[:1] == "h" and key[1:].isdigit())
    return [step for step, _ in pairs], [error for _, error in pairs]


ERROR = "squared error"


def open_loop(fidelity: dict[str, Any]) -> Chart:
    """Error under logged actions (the paper's Fig. 4)."""
    made = figure("step of the rollout", ERROR, log=True)
    for key, name, colour in (("single_step", "single-step model", ORANGE), ("denoiser", "denoiser", BLUE)):
        line(made, name, *horizons(fidelity["open_loop"][key]), colour)
    plain_ticks(made)
    return Chart(
        made,
        "Open loop: the logged actions, blindly. How far the dreamt state is from the logged one at a step, over "
        f"{fidelity['windows']} held-out windows.",
    )


def closed_loop(fidelity: dict[str, Any], chosen: str) -> Chart:
    """Error where the policy reacts to what it sees, without refinement and with the world's own."""
    made = figure("step of the rollout", ERROR, log=True)
    results = fidelity["closed_loop"]
    for name, values in results.items():
        if name not in ("M0", chosen):
            line(made, name, *horizons(values), GREY, width=1, opacity=0.7, mode="lines", showlegend=False)
    line(made, "M0, single-step", *horizons(results["M0"]), ORANGE)
    if chosen in results and chosen != "M0":
        line(made, f"{chosen}, the world's own", *horizons(results[chosen]), BLUE, width=3)
    made.update_layout(showlegend=True)
    plain_ticks(made)
    return Chart(
        made,
        "Closed loop: a policy that reacts to the dreamt states, against the logged episode it would have met. "
        "Grey: the other M.",
    )


def against_m(fidelity: dict[str, Any], chosen: str) -> Chart:
    """Mean error against the number of refinements (the paper's Fig. 7)."""
    made = figure("refinements M", ERROR, log=True)
    results = fidelity["closed_loop"]
    line(made, "all steps", [int(n[-1]) for n in results], [found["mean"] for found in results.values()], BLUE)
    if chosen in results:
        made.add_scatter(
            x=[int(chosen[-1])],
            y=[results[chosen]["mean"]],
            mode="markers",
            name="the world's own",
            marker={"size": 15, "color": "rgba(0,0,0,0)", "line": {"color": RED, "width": 2.5}},
        )
    made.update_xaxes(dtick=1)
    plain_ticks(made)
    return Chart(
        made,
        "Closed-loop error over all steps against M, the number of refinements; M = 0 is the single-step rollout.",
    )


def simulator(policies: dict[str, Any]) -> list[Chart]:
    """What `fidelity` measured against the source environment: error and survival against M."""
    error, alive = figure("refinements M", ERROR, log=True), figure("refinements M", "share alive at the end")
    for colour, (name, result) in zip(CYCLE * 9, policies.items(), strict=False):
        steps = [int(key[1:]) for key in result if key != "real"]
        line(error, name, steps, [result[f"M{m}"]["mean"] for m in steps], colour)
        line(alive, name, steps, [result[f"M{m}"]["survival"] for m in steps], colour)
        line(alive, f"{name}, really", steps, [result["real"]["survival"]] * len(steps), colour,
             dash="dot", mode="lines")  # fmt: skip
    plain_ticks(error)
    for made in (error, alive):
        made.update_xaxes(dtick=1)
    return [
        Chart(error, "Dream against simulator: the policy from the same starts in both."),
        Chart(alive, "Rollouts that have not terminated: dreamt (solid) and real (dotted)."),
    ]


def histogram(groups: dict[str, np.ndarray], x: str, caption: str) -> Chart:
    """Distributions over common bins, each scaled to its own size."""
    made = figure(x, "share of episodes")
    low, high = (float(f(np.concatenate(list(groups.values())))) for f in (np.min, np.max))
    edges = np.linspace(low, high if high > low else low + 1, 41)
    middles = ((edges[1:] + edges[:-1]) / 2).tolist()
    for colour, (name, values) in zip(CYCLE * 9, groups.items(), strict=False):
        share = np.histogram(values, edges)[0] / len(values)
        made.add_bar(x=middles, y=share.tolist(), name=name, width=float(edges[1] - edges[0]),
                     marker={"color": tint(colour, 0.55), "line": {"width": 0}})  # fmt: skip
    made.update_layout(barmode="overlay", showlegend=True)
    return Chart(made, caption)


def filter_effect(rounds: list[dict[str, Any]], caption: str) -> Chart:
    """Returns of a round's rollouts before and after the filter: mean, one standard deviation, range."""
    made = figure("round", "return of a rollout")
    for key, name, colour, shift in (
        ("returns_all", "all rollouts", GREY, -0.12),
        ("returns_kept", "kept by the filter", BLUE, 0.12),
    ):
        known = [(r["round"] + 1 + shift, r[key]) for r in rounds if r[key]]
        places = [place for place, _ in known]
        for place, value in known:
            made.add_scatter(x=[place, place], y=[value["min"], value["max"]], mode="lines", hoverinfo="skip",
                             line={"color": tint(colour, 0.5), "width": 2}, showlegend=False)  # fmt: skip
        made.add_scatter(
            x=places,
            y=[value["mean"] for _, value in known],
            name=name,
            mode="markers",
            marker={"color": colour, "size": 8},
            error_y={"type": "data", "array": [v["std"] for _, v in known], "color": colour, "thickness": 4, "width": 0},
        )
    made.update_xaxes(dtick=1 if len(rounds) <= 20 else None, range=[0.4, len(rounds) + 0.6])
    return Chart(made, caption)
