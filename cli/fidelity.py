"""`dydiff-env fidelity`: how far a world can be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from dydiff_env.cli.common import Debug, Device, Json, Seed, close, console, emit, pick_device, reporting


def fidelity(
    world: Annotated[Path, typer.Option(help="A world folder.")],
    policy: Annotated[list[str] | None, typer.Option(help="Policies to dream and to run for real; repeat it.")] = None,
    simulator: Annotated[bool, typer.Option("--simulator/--no-simulator", help="Compare with the source environment.")] = True,
    starts: Annotated[int, typer.Option(help="Start states, drawn from the data.")] = 256,
    iterations: Annotated[int, typer.Option(help="Largest M.")] = 5,
    plot: Annotated[Path | None, typer.Option(help="Write a picture of the errors to this PNG.")] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Allow policy files that run code when loaded.")] = False,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure a world: what held-out data say, and what the simulator says of policies dreamt in it."""
    with reporting(debug):
        from dydiff_env.cli.fit import fidelity_table
        from dydiff_env.evaluation.fidelity import closed_loop, plot_closed_loop
        from dydiff_env.evaluation.simulator import Simulator
        from dydiff_env.policies import load_policy
        from dydiff_env.world.world import World

        loaded = World.load(world, pick_device(device))
        document: dict[str, Any] = {"world": str(world), "held_out": loaded.record.get("fidelity"), "policies": {}}
        if not json and document["held_out"]:
            console.print(fidelity_table(document["held_out"]))
        if simulator:
            truth = Simulator(loaded.spec)
            states = loaded.sample_starts(starts, seed)
            for name in policy or ["random"]:
                acting = load_policy(name, loaded.spec, trust=trust, device=str(loaded.device))
                result = closed_loop(loaded, truth, acting, states, iterations=tuple(range(iterations + 1)))
                document["policies"][name] = result
                if not json:
                    console.print(closed_loop_table(name, result))
            truth.close()
            if plot is not None:
                plot_closed_loop(document["policies"], plot)
        if json:
            emit(document, True)
        else:
            close(document)


def closed_loop_table(name: str, result: dict[str, Any]) -> Table:
    """One policy: a column an M, beside what really happened."""
    table = Table(title=f"{name}, dreamt and for real")
    table.add_column("")
    dreams = [key for key in result if key != "real"]
    for column in [f"M = {key[1:]}" for key in dreams] + ["really"]:
        table.add_column(column, justify="right")
    for row in result["M0"]:
        real = result["real"].get(row)
        cells = [f"{result[key][row]:.4g}" for key in dreams]
        table.add_row(row.replace("_", " "), *cells, "" if real is None else f"{real:.4g}")
    return table
