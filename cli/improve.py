"""``dydiff-env improve``: a policy fine-tuned in a world's dreams."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dydiff_env.cli.common import (
    Debug,
    Device,
    Env,
    EnvEval,
    Json,
    Overwrite,
    Seed,
    Trust,
    VecNormalize,
    emit,
    pick_device,
    reporting,
)


def improve(
    policy: Annotated[str, typer.Option(help="Where to begin: any checkpoint that `export` takes, behavior, or demo.")],
    out: Annotated[Path, typer.Option(help="The last checkpoint; the best becomes NAME-best.pt, the curve NAME.csv.")],
    world: Annotated[
        Path | None,
        typer.Option(help="World folder. Else the one the checkpoint names, $DYDIFF_ENV_WORLD, ./world, or the embedded maze."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of dreaming and learning.")] = 80,
    penalty: Annotated[
        float, typer.Option(min=0.0, help="How much the world's uncertainty costs; more keeps nearer to what was logged.")
    ] = 1.0,
    episode: Annotated[
        int | None,
        typer.Option(min=1, help="Longest dreamt episode; default: the environment's limit, else the longest logged; at most 1000."),
    ] = None,
    env_eval: EnvEval = False,
    env: Env = None,
    eval_every: Annotated[int, typer.Option(min=1, help="Rounds between dreamt (and real) evaluations.")] = 5,
    eval_episodes: Annotated[int, typer.Option(min=1, help="Episodes of a real one.")] = 10,
    tensorboard: Annotated[Path | None, typer.Option(help="Folder for TensorBoard's event files.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint.")] = False,
    overwrite: Overwrite = False,
    trust: Trust = False,
    vecnormalize: VecNormalize = None,
    seed: Seed = 0,
    device: Device = "auto",
    debug: Debug = False,
    json: Json = False,
) -> None:
    """Fine-tune a copy of a policy in dreams alone, and keep the copy that gains most in the ensemble's most sceptical member."""
    with reporting(debug):
        from dydiff_env.agents.checkpoint import check_room
        from dydiff_env.agents.improve import improve as run
        from dydiff_env.agents.svg import SVGConfig
        from dydiff_env.agents.trainer import Schedule
        from dydiff_env.envs.worlds import world_folder
        from dydiff_env.evaluation.scores import environment_of
        from dydiff_env.policies.loader import load_policy
        from dydiff_env.world.world import World

        check_room(out, overwrite or resume, policy)
        folder, target = world_folder(policy, world), pick_device(device)
        dreams = World.load(folder, target)
        begun = load_policy(policy, dreams.spec, trust=trust, vecnormalize=vecnormalize, device=str(target))
        document = run(
            begun,
            dreams,
            out,
            SVGConfig(rounds=rounds, penalty=penalty),
            episode=episode,
            seed=seed,
            named=str(folder.resolve()),
            schedule=Schedule(1, eval_every, eval_every, eval_episodes),
            env=env or (environment_of(dreams.spec) if env_eval else None),
            tensorboard=tensorboard,
            resume=resume,
            overwrite=overwrite,
            progress=not json,
        )
        emit({**document, "world": str(folder)}, json)
