"""``dydiff-env evaluate``: a policy's returns, in the real environment or in the dream."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dydiff_env.agents.agent import read_checkpoint
from dydiff_env.cli.common import Debug, Device, Json, Seed, emit, pick_device, reporting
from dydiff_env.data.dataset import DatasetSpec
from dydiff_env.data.simulator import make_env
from dydiff_env.errors import DyDiffError
from dydiff_env.evaluation.scores import Episodes, environment_of, evaluate_returns
from dydiff_env.policies.loader import load_policy
from dydiff_env.world.world import World


def evaluate(
    policy: Annotated[str, typer.Option(help="Any checkpoint that `export` takes, or random.")],
    env: Annotated[str | None, typer.Option(help="Real environment; default: the checkpoint's own.")] = None,
    world: Annotated[Path | None, typer.Option(help="Evaluate in the dream of this world instead.")] = None,
    episodes: Annotated[int, typer.Option(min=1, help="How many.")] = 10,
    horizon: Annotated[int, typer.Option(min=1, help="Longest dream, steps.")] = 1000,
    iterations: Annotated[int | None, typer.Option(help="Refinements M; the world's own by default.")] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic/--stochastic", help="The policy's mode.")
    ] = True,
    trust: Annotated[
        bool, typer.Option("--trust", help="Allow checkpoints whose loading can run code.")
    ] = False,
    vecnormalize: Annotated[Path | None, typer.Option(help="SB3's VecNormalize statistics.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
    debug: Debug = False,
    json: Json = False,
) -> None:
    """Mean return with its 95 % bootstrap interval."""
    with reporting(debug):
        if env and world:
            raise DyDiffError("Both --env and --world are given.", "Choose one.", usage=True)
        target = pick_device(device)
        dreams = World.load(world, target) if world else None
        spec = dreams.spec if dreams else _spec(policy, env)
        loaded = load_policy(policy, spec, trust=trust, vecnormalize=vecnormalize, device=str(target))
        if dreams:
            starts = dreams.sample_starts(episodes, seed=seed, kind="initial")
            rollouts = dreams.dream(
                loaded, starts, horizon, iterations, deterministic=deterministic, seed=seed
            )
            found = Episodes(rollouts.returns, rollouts.lengths)
        else:
            found = evaluate_returns(
                loaded, env or environment_of(spec), episodes, seed=seed, deterministic=deterministic
            )
        emit(
            {**found.document(spec), "in": f"world {world}" if world else env or environment_of(spec).id},
            json,
        )


def _spec(policy: str, env: str | None) -> DatasetSpec:
    """Spaces and reference scores: the agent checkpoint's own, else the environment's."""
    own = _spec_of_agent(policy)
    if own is not None and (env is None or (own.env_spec and environment_of(own).id == env)):
        return own
    if env is None:
        raise DyDiffError(
            f"{policy} does not say which environment it belongs to.", "Give --env or --world.", usage=True
        )
    made = make_env(env)
    spec = DatasetSpec(made.observation_space, made.action_space, made.spec.to_json() if made.spec else None)
    made.close()
    return spec


def _spec_of_agent(policy: str) -> DatasetSpec | None:
    try:
        return DatasetSpec.from_json(read_checkpoint(policy)["spec"])
    except DyDiffError:
        return None  # another kind of policy, which `load_policy` reads or refuses
