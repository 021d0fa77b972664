"""`dydiff-env collect`: behaviour data from a real environment, as a Minari dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dydiff_env.cli.common import Debug, Device, Json, Overwrite, Seed, emit, pick_device, reporting
from dydiff_env.errors import DyDiffError

BEHAVIOUR, OUTPUT = "Who acts", "Output"


def collect(
    env_id: Annotated[str, typer.Argument(help="A Gymnasium environment with continuous spaces.")],
    steps: Annotated[int, typer.Option(min=1, help="Transitions in the dataset.")] = 100_000,
    tier: Annotated[
        str | None,
        typer.Option(
            help="random, medium-replay, medium, medium-expert or expert, after D4RL. "
            "medium-replay by default; PointMaze has none, a waypoint controller walks it.",
            rich_help_panel=BEHAVIOUR,
        ),
    ] = None,
    algorithm: Annotated[
        str, typer.Option(help="Trains it: sac, td3, ppo, tqc, crossq or trpo.", rich_help_panel=BEHAVIOUR)
    ] = "sac",
    train_steps: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Length of its training: by default --steps for medium-replay, none for random, 300 000 for the others.",
            rich_help_panel=BEHAVIOUR,
        ),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(help="Record this policy instead: any file `export` takes.", rich_help_panel=BEHAVIOUR),
    ] = None,
    stochastic: Annotated[
        bool,
        typer.Option("--stochastic", help="Sample that policy's actions.", rich_help_panel=BEHAVIOUR),
    ] = False,
    noise: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Gaussian noise on a policy's or a maze walker's actions; half an action's range is 1. Default: 0; .5 for walkers.",
            rich_help_panel=BEHAVIOUR,
        ),
    ] = None,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Unpickle that policy: it can run any code.", rich_help_panel=BEHAVIOUR),
    ] = False,
    vecnormalize: Annotated[
        Path | None, typer.Option(help="VecNormalize file of an SB3 policy.", rich_help_panel=BEHAVIOUR)
    ] = None,
    num_envs: Annotated[int, typer.Option(min=1, help="Copies stepped together.")] = 16,
    keep_goal: Annotated[
        bool, typer.Option("--keep-goal", help="PointMaze: a goal that is reached stays; else it jumps, as in D4RL.")
    ] = False,
    dataset_id: Annotated[
        str | None,
        typer.Option(
            help="NAMESPACE/NAME-vK; `minari.load_dataset` will find it.", rich_help_panel=OUTPUT
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="A folder to write; with an id as well, the id gets a copy.", rich_help_panel=OUTPUT),
    ] = None,
    overwrite: Overwrite = False,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Record a Minari dataset, with a behaviour policy trained for it or with your own.

    Policies trained for it are saved beside the data, and reference scores go into its metadata; with --policy there are neither.
    """
    with reporting(debug):
        # MuJoCo and Stable-Baselines3 take a second to import: not before the options are known to be right.
        from dydiff_env.data.collect import (
            CollectConfig,
            collect_maze,
            collect_policy,
            collect_tier,
            is_maze,
        )
        from dydiff_env.data.dataset import DatasetSpec
        from dydiff_env.data.recorder import Act
        from dydiff_env.data.registry import Destination

        if policy is not None and tier is not None:
            raise DyDiffError("--policy and --tier both say who acts.", "Pass one of them.", usage=True)
        if is_maze(env_id) and tier is not None:
            raise DyDiffError(
                f"{env_id} is walked by a waypoint controller, which has no tiers.",
                "Leave out --tier.",
                usage=True,
            )
        if noise is not None and policy is None and not is_maze(env_id):
            raise DyDiffError("A tier explores as its algorithm does.", "Leave out --noise, or give a --policy.", usage=True)
        if train_steps is not None and (policy is not None or is_maze(env_id)):
            raise DyDiffError("Nothing is trained here.", "Leave out --train-steps.", usage=True)
        if stochastic and policy is None:
            raise DyDiffError("--stochastic is of a --policy.", "Leave it out, or give one.", usage=True)
        destination = Destination(dataset_id, out, overwrite)
        if keep_goal and not is_maze(env_id):
            raise DyDiffError(f"{env_id} has no goal to keep.", "Leave out --keep-goal.", usage=True)
        config = CollectConfig(
            steps, tier or "medium-replay", algorithm, train_steps, num_envs, noise=noise, keep_goal=keep_goal, seed=seed
        )
        if policy is not None:

            def acting(spec: DatasetSpec) -> Act:
                import torch

                from dydiff_env.policies.loader import load_policy

                loaded = load_policy(
                    str(policy), spec, trust=trust, vecnormalize=vecnormalize, device=str(pick_device(device))
                )
                torch.manual_seed(seed)
                return lambda observations: (
                    loaded.act(torch.as_tensor(observations), not stochastic).detach().cpu().numpy()
                )

            name = Path(policy).name
            document = collect_policy(env_id, destination, config, acting, name, progress=not as_json)
        elif is_maze(env_id):
            document = collect_maze(env_id, destination, config, progress=not as_json)
        else:
            document = collect_tier(env_id, destination, config, progress=not as_json)
        emit(document, as_json)
