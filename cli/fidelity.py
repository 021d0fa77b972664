"""`dydiff-env fidelity`: how far a world can be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from dydiff_env.cli.common import (
    Debug,
    Device,
    Json,
    Seed,
    Trust,
    VecNormalize,
    check_plot,
    check_statistics,
    close,
    console,
    emit,
    pick_device,
    reporting,
)
from dydiff_env.errors import DyDiffError


def fidelity(
    world: Annotated[Path, typer.Option(help="A world folder.")],
    policy: Annotated[
        list[str] | None,
        typer.Option(help="Policies to dream and to run for real; repeat it. Default: the world's clone of the best episodes."),
    ] = None,
    simulator: Annotated[
        bool | None,
        typer.Option("--simulator/--no-simulator", help="Compare with the source environment. Default: where it can be put to a state."),
    ] = None,
    starts: Annotated[int, typer.Option(min=1, help="Start states, drawn from the data.")] = 256,
    iterations: Annotated[int, typer.Option(min=0, help="Largest M.")] = 5,
    plot: Annotated[Path | None, typer.Option(help="Write a picture of the errors to this PNG.")] = None,
    trust: Trust = False,
    vecnormalize: VecNormalize = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure a world: what held-out data say, and what the simulator says of policies dreamt in it."""
    with reporting(debug):
        from dydiff_env.cli.fit import fidelity_table
        from dydiff_env.evaluation.clone import BestClone
        from dydiff_env.evaluation.fidelity import closed_loop, common_starts, plot_closed_loop, refuse_draws
        from dydiff_env.evaluation.simulator import Simulator
        from dydiff_env.policies import Policy, load_policy
        from dydiff_env.world.world import World

        if simulator is False and (policy or plot):
            raise DyDiffError("Policies are compared with the simulator.", "Leave out --no-simulator.", usage=True)
        if plot is not None:
            check_plot(plot)  # what is missing is missed before minutes of measuring
        loaded = World.load(world, pick_device(device))
        document: dict[str, Any] = {"world": str(world), "held_out": loaded.record.get("fidelity"), "policies": {}}
        if not json and document["held_out"]:
            console.print(fidelity_table(document["held_out"]))
        try:
            truth = Simulator(loaded.spec) if simulator is not False else None
        except DyDiffError as error:
            if simulator or policy or plot:
                raise
            truth = None
            typer.echo(f"Held-out data alone. {error.problem}", err=True)
        if truth is not None:
            check_statistics(vecnormalize, policy or [])
            options: dict[str, Any] = {"trust": trust, "vecnormalize": vecnormalize, "device": str(loaded.device)}
            acting: dict[str, Policy] = {name: load_policy(name, loaded.spec, **options) for name in policy or ()}
            if not acting and loaded.models.behavior is None:
                raise DyDiffError("This world has no clone to compare.", "Give a --policy.", usage=True)
            for name, one in acting.items():
                refuse_draws(one, loaded, name)
            states = common_starts(loaded, truth, starts, seed)
            for name, one in acting.items() or {"a clone of the best episodes": BestClone(loaded)}.items():
                result = closed_loop(loaded, truth, one, states, iterations=tuple(range(iterations + 1)))
                document["policies"][name] = result
                if not json:
                    console.print(closed_loop_table(name, result))
            truth.close()
        if json:
            emit(document, True)
        else:
            close(document)
        if plot is not None:
            plot_closed_loop(document["policies"], plot)


def closed_loop_table(name: str, result: dict[str, Any]) -> Table:
    """One policy: a column an M, beside what really happened."""
    caption = "ratio: of the mean error to that of M = 0, with a 95 % interval over starts"
    table = Table(title=f"{name}, dreamt and for real", caption=caption, box=None, padding=(0, 0, 0, 1))
    table.add_column("", no_wrap=True)
    dreams = [key for key in result if key != "real"]
    for column in [f"M = {key[1:]}" for key in dreams] + ["really"]:
        table.add_column(column, justify="right")
    for row in result["M0"]:
        real = result["real"].get(row)
        cells = [_short(result[key][row]) for key in dreams]
        table.add_row(row.replace("_", " "), *cells, "" if real is None else _short(real))
    return table


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1 else f"{value:.4g}"
