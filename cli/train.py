"""``dydiff-env train``: an offline agent on logged and synthetic data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dydiff_env.cli.common import (
    SEEDS,
    Debug,
    Device,
    Env,
    EnvEval,
    Json,
    Overwrite,
    Seed,
    emit,
    pick_device,
    reporting,
)
from dydiff_env.errors import DyDiffError


def train(
    algorithm: Annotated[str, typer.Argument(help="td3bc, cql, diffql or bc.")],
    dataset: Annotated[str, typer.Option(help="Logged data: a Minari id or a folder.")],
    out: Annotated[Path, typer.Option(help="The checkpoint; losses and returns go beside it as .csv.")],
    synthetic: Annotated[
        list[str] | None, typer.Option(help="Synthetic data; may be given several times.")
    ] = None,
    real_ratio: Annotated[
        float, typer.Option(help="Share of logged rows in a batch, with synthetic data.")
    ] = 0.6,
    steps: Annotated[int, typer.Option(min=1, help="Gradient updates.")] = 50_000,
    env_eval: EnvEval = False,
    env: Env = None,
    eval_every: Annotated[int, typer.Option(min=1, help="Updates between evaluations.")] = 5000,
    eval_episodes: Annotated[int, typer.Option(min=1, help="Episodes of a real evaluation.")] = 10,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Updates between checkpoints.")] = 10_000,
    world: Annotated[
        Path | None,
        typer.Option(help="World to dream the agent in, and to name in the checkpoint: `export` finds it."),
    ] = None,
    dream_eval: Annotated[
        bool,
        typer.Option(
            "--dream-eval/--no-dream-eval",
            help="With --world: dream whole episodes every --eval-every updates; the best agent is kept as ckpt-best.pt.",
        ),
    ] = True,
    tensorboard: Annotated[Path | None, typer.Option(help="Folder for TensorBoard's event files.")] = None,
    seeds: Annotated[
        str | None,
        typer.Option(help="Several seeds side by side, as 0,1,2; ckpt.pt becomes ckpt-seed0.pt, …"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint.")] = False,
    overwrite: Overwrite = False,
    seed: Seed = 0,
    device: Device = "auto",
    debug: Debug = False,
    json: Json = False,
) -> None:
    """Train an offline agent; with --synthetic, on a mix whose logged share is --real-ratio."""
    with reporting(debug):
        from dydiff_env.agents import Run, Schedule, agent_class, train_seeds
        from dydiff_env.agents.checkpoint import check_room

        if world and not world.exists():
            raise DyDiffError(f"There is no world {world}.", "Make one with `dydiff-env fit`.")
        agent_class(algorithm)  # an unknown name fails before the data are read
        run = Run(
            algorithm,
            dataset,
            out,
            synthetic=tuple(synthetic or ()),
            real_ratio=real_ratio,
            steps=steps,
            seed=seed,
            env=env or ("" if env_eval else None),
            schedule=Schedule(eval_every=eval_every, eval_episodes=eval_episodes, checkpoint_every=checkpoint_every),
            world=str(world.resolve()) if world else None,
            dream_eval=dream_eval,
            tensorboard=tensorboard,
            device=str(pick_device(device)),
            resume=resume,
        )
        several = None if seeds is None else _seeds(seeds)
        runs = [run.under(one) for one in several] if several else [run]
        for one in runs:
            check_room(one.out, overwrite or resume)
        if several and (summary := out.with_suffix(".json")).exists() and not (overwrite or resume):
            raise DyDiffError(f"{summary} exists.", "Give --overwrite or --resume.", usage=True)
        if several is None:
            emit(run.carry_out(progress=not json), json)
            return
        document = train_seeds(run, several, progress=not json)
        emit(document if json else {key: value for key, value in document.items() if key != "runs"}, json)


def _seeds(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) < SEEDS for part in parts):
        raise DyDiffError(f"--seeds is {text!r}.", f"Give whole numbers from 0 to {SEEDS - 1}, as in 0,1,2.", usage=True)
    return [int(part) for part in parts]
