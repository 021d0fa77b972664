"""`dydiff-env export`: a policy's rollouts in a world, as a Minari dataset."""

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
    emit,
    pick_device,
    reporting,
)

DREAM, KEEP, OUTPUT = "Rollouts", "Filter", "Output and scale"


def export(
    out: Annotated[Path, typer.Option(help="The Minari folder to make.")],
    policy: Annotated[
        str | None,
        typer.Option(
            help="An agent .pt, TorchScript, .pt2, SB3 .zip, .d3, .onnx, module:callable, random, behavior or demo."
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="dydiff, single-step, synther, synther-filtered, mtdiff-s; the last three follow no policy.",
            rich_help_panel=DREAM,
        ),
    ] = "dydiff",
    world: Annotated[
        Path | None,
        typer.Option(
            help="World folder. Else the one the checkpoint names, $DYDIFF_ENV_WORLD, ./world, or the embedded maze."
        ),
    ] = None,
    trajectories: Annotated[
        int | None, typer.Option(help="Rollouts kept in all; one round's by default.", rich_help_panel=DREAM)
    ] = None,
    horizon: Annotated[
        int | None, typer.Option(help="Most steps of a rollout; 100 by default.", rich_help_panel=DREAM)
    ] = None,
    iterations: Annotated[
        int | None,
        typer.Option(
            help="Refinements M; the world's own by default, 0: single-step.", rich_help_panel=DREAM
        ),
    ] = None,
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic/--stochastic", help="The policy's mode, or samples.", rich_help_panel=DREAM
        ),
    ] = True,
    start: Annotated[
        str,
        typer.Option(
            help="Starts: any logged state (dataset) or first ones (initial).", rich_help_panel=DREAM
        ),
    ] = "dataset",
    batch: Annotated[int, typer.Option(help="Rollouts of a round, B_r.", rich_help_panel=DREAM)] = 2048,
    filter: Annotated[
        str | None,
        typer.Option(
            help="softmax (default), hardmax, none, or an installed one. synther and mtdiff-s: none.",
            rich_help_panel=KEEP,
        ),
    ] = None,
    keep: Annotated[
        float | None,
        typer.Option(help="Share of a round that is kept: .8, or 1 with --filter none.", rich_help_panel=KEEP),
    ] = None,
    temperature: Annotated[float, typer.Option(help="Of the softmax filter.", rich_help_panel=KEEP)] = 0.05,
    max_uncertainty: Annotated[
        float | None,
        typer.Option(help="Cut rollouts before a transition more uncertain than this.", rich_help_panel=KEEP),
    ] = None,
    dataset_id: Annotated[
        str | None,
        typer.Option(
            help="Register it too: NAMESPACE/NAME-vK, for minari.load_dataset.", rich_help_panel=OUTPUT
        ),
    ] = None,
    data_format: Annotated[
        str, typer.Option("--format", help="Minari's: hdf5 or arrow.", rich_help_panel=OUTPUT)
    ] = "hdf5",
    workers: Annotated[
        int, typer.Option(help="Processes; their number does not change the data.", rich_help_panel=OUTPUT)
    ] = 1,
    engine: Annotated[
        str, typer.Option(help="local processes, or ray: a cluster.", rich_help_panel=OUTPUT)
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            help="Of a running Ray cluster; without it, ray starts one here.", rich_help_panel=OUTPUT
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an unfinished export.", rich_help_panel=OUTPUT)
    ] = False,
    overwrite: Overwrite = False,
    trust: Trust = False,
    vecnormalize: VecNormalize = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a policy's refined, filtered rollouts in a world as a Minari dataset."""
    with reporting(debug):
        from dydiff_env.envs.worlds import world_folder
        from dydiff_env.synthesis.export import export as run

        chosen = world_folder(policy, world)
        document = run(
            chosen,
            policy,
            out,
            method=method,
            trajectories=trajectories,
            horizon=horizon,
            iterations=iterations,
            filter=filter,
            keep=keep,
            temperature=temperature,
            batch=batch,
            deterministic=deterministic,
            start=start,  # type: ignore[arg-type]  # checked with the other options
            max_uncertainty=max_uncertainty,
            seed=seed,
            overwrite=overwrite,
            resume=resume,
            dataset_id=dataset_id,
            data_format=data_format,
            workers=workers,
            engine=engine,  # type: ignore[arg-type]
            address=address,
            trust=trust,
            vecnormalize=vecnormalize,
            device=str(pick_device(device)),
            progress=not as_json,
        )
        emit({**document, "world": str(chosen)}, as_json)
