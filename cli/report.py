"""`dydiff-env report`: one HTML page of what was learned, dreamt and trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dydiff_env.cli.common import (
    Debug,
    Device,
    Json,
    Overwrite,
    Seed,
    Trust,
    VecNormalize,
    close,
    emit,
    pick_device,
    reporting,
)


def report(
    sources: Annotated[
        list[str],
        typer.Argument(help="Worlds, datasets (folders or Minari ids), checkpoints, logs, runs of loop or demo."),
    ],
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
    policy: Annotated[
        str | None,
        typer.Option(help="Whose rollouts to show; else a checkpoint that is given, else the world's best clone."),
    ] = None,
    starts: Annotated[int, typer.Option(min=1, help="Rollouts in the picture.")] = 12,
    trust: Trust = False,
    vecnormalize: VecNormalize = None,
    overwrite: Overwrite = False,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write one self-contained page: fidelity, rollouts before and after refinement, returns, curves, provenance."""
    with reporting(debug):
        from dydiff_env.evaluation.report import report as write

        options = {"policy": policy, "starts": starts, "trust": trust, "vecnormalize": vecnormalize, "overwrite": overwrite, "seed": seed}
        document = write(sources, out, device=str(pick_device(device)), **options)  # type: ignore[arg-type]
        if json:
            emit(document, True)
            return
        close(document)
