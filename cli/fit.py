"""`dydiff-env fit`: train a world on a dataset."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from dydiff_env.cli.common import (
    Debug,
    Device,
    Json,
    Overwrite,
    Seed,
    close,
    console,
    emit,
    pick_device,
    reporting,
)


def fit(
    dataset: Annotated[str, typer.Option(help="A Minari dataset: its id, or its folder.")],
    out: Annotated[Path, typer.Option(help="The world folder to make.")],
    preset: Annotated[str, typer.Option(help="fast, quick (minutes), tiny (seconds), or paper (the published form).")] = "fast",
    models: Annotated[
        str, typer.Option(help="world, synther, mtdiff-s (baselines for export --method), several by comma, or all.")
    ] = "world",
    seed: Seed = 0,
    device: Device = "auto",
    tensorboard: Annotated[Path | None, typer.Option(help="Write training curves to this folder as they grow.")] = None,
    overwrite: Overwrite = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a world on a dataset, and the baselines that `export --method` takes.

    A fit that was stopped goes on where it was when the same command is run again. On several GPUs:

    accelerate launch --multi_gpu -m dydiff_env fit …
    """
    with reporting(debug):
        from dydiff_env.baselines.fit import fit_models, parse_models
        from dydiff_env.world.parallel import processes

        began, where = time.monotonic(), pick_device(device)
        world = fit_models(
            parse_models(models), dataset, out, preset=preset, seed=seed, device=where,
            overwrite=overwrite, progress=not json, tensorboard=tensorboard,
        )
        if not processes(where).main:
            return
        document: dict[str, Any] = {
            "world": str(out), "preset": preset, "models": parse_models(models),
            "seconds": round(time.monotonic() - began, 1),
        }
        document |= {k: world.record[k] for k in ("parameters", "fidelity", "refinement") if k in world.record}
        found = world.record["training"]["dynamics"]
        document |= {tried: found[tried] for tried in ("waves", "memory") if tried in found}
        if "next_state" in world.record["training"]["reward"]:
            document["next_state"] = world.record["training"]["reward"]["next_state"]
        if "drawn" in world.record["training"]["termination"]:
            document["ends"] = world.record["training"]["termination"]["drawn"]
        if json:
            emit(document, True)
            return
        console.print(fidelity_table(world.record["fidelity"]))
        for tried in ("waves", "memory", "next_state", "ends"):
            if tried in document:
                console.print(document[tried]["reason"])
        most = world.record["fidelity"]["uncertainty"].items()
        told = ", ".join(f"{value:.3g} in {float(share):.0%}" for share, value in most)
        console.print(f"Uncertainty under logged actions, at most: {told} of the steps (what --max-uncertainty goes by).")
        chosen = world.record.get("refinement")
        if chosen:
            console.print(f"{chosen['reason']} Hence M = {chosen['iterations']}.")
        close(document)


def fidelity_table(fidelity: dict[str, Any]) -> Table:
    """Held-out errors against the horizon, in squared standard deviations."""
    table = Table(  # 80 columns hold it all
        title=f"Mean squared error on {fidelity['windows']} held-out windows (standardised)", box=None, padding=(0, 0, 0, 1)
    )
    rows = [(f"{kind.removesuffix('_loop')}, {name.replace('_', ' ')}", values)
            for kind in ("open_loop", "closed_loop") if kind in fidelity for name, values in fidelity[kind].items()]
    columns = list(rows[0][1])
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    for name, values in rows:
        table.add_row(name, *(f"{values[column]:.3g}" if column in values else "" for column in columns))
    return table
