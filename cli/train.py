"""``dydiff-env train``: an offline agent on logged and synthetic data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dydiff_env.agents import Replay, Schedule, agent_class, load_agent
from dydiff_env.agents import train as train_agent
from dydiff_env.cli.common import Debug, Device, Json, Overwrite, Seed, emit, pick_device, reporting
from dydiff_env.data.minari_io import load_dataset
from dydiff_env.errors import DyDiffError
from dydiff_env.evaluation.scores import environment_of


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
    env_eval: Annotated[bool, typer.Option("--env-eval", help="Evaluate in the data's environment.")] = False,
    env: Annotated[str | None, typer.Option(help="Evaluate in this environment instead.")] = None,
    eval_every: Annotated[int, typer.Option(min=1, help="Updates between evaluations.")] = 5000,
    eval_episodes: Annotated[int, typer.Option(min=1, help="Episodes of an evaluation.")] = 10,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Updates between checkpoints.")] = 10_000,
    world: Annotated[
        Path | None, typer.Option(help="World to name in the checkpoint: `export` finds it.")
    ] = None,
    tensorboard: Annotated[Path | None, typer.Option(help="Folder for TensorBoard's event files.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint.")] = False,
    overwrite: Overwrite = False,
    seed: Seed = 0,
    device: Device = "auto",
    debug: Debug = False,
    json: Json = False,
) -> None:
    """Train an offline agent; with --synthetic, on a mix whose logged share is --real-ratio."""
    with reporting(debug):
        if out.exists() and not (overwrite or resume):
            raise DyDiffError(f"{out} exists.", "Give --overwrite or --resume.", usage=True)
        if world and not world.exists():
            raise DyDiffError(f"There is no world {world}.", "Make one with `dydiff-env fit`.")
        target = pick_device(device)
        cls = agent_class(algorithm)
        data = load_dataset(dataset)
        replay = Replay(
            data, [load_dataset(path) for path in synthetic or ()], real_ratio=real_ratio, device=target
        )
        if resume and out.exists():
            agent = load_agent(out, target)
            if (
                not isinstance(agent, cls)
                or agent.seed != seed
                or agent.spec.fingerprint != data.spec.fingerprint
            ):
                raise DyDiffError(
                    f"{out} is another run: {agent.algorithm}, seed {agent.seed}, {agent.spec.dataset_id}.",
                    "Resume with the algorithm, seed and data it began with.",
                    usage=True,
                )
        else:
            agent = cls(data.spec, seed=seed, device=target, world=str(world.resolve()) if world else None)
        where = env or (environment_of(data.spec) if env_eval else None)
        schedule = Schedule(
            eval_every=eval_every, eval_episodes=eval_episodes, checkpoint_every=checkpoint_every
        )
        emit(
            train_agent(
                agent,
                replay,
                steps,
                out,
                schedule=schedule,
                env=where,
                tensorboard=tensorboard,
                progress=not json,
            ),
            json,
        )
