"""``dydiff-env loop``: Algorithm 1."""

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
    emit,
    pick_device,
    reporting,
)
from dydiff_env.errors import DyDiffError


def loop(
    algorithm: Annotated[str, typer.Argument(help="td3bc, cql, diffql or bc.")],
    dataset: Annotated[str, typer.Option(help="Logged data: a Minari id or a folder.")],
    world: Annotated[Path, typer.Option(help="The world to dream in.")],
    out: Annotated[Path, typer.Option(help="Folder of the run: agent.pt, best.pt, rollouts, loop.json.")],
    rounds: Annotated[int, typer.Option(min=1, help="How often to train and dream.")] = 10,
    updates: Annotated[int, typer.Option(min=1, help="Gradient updates a round.")] = 5000,
    batch: Annotated[int, typer.Option(help="Rollouts of a round, B_r.")] = 2048,
    horizon: Annotated[int, typer.Option(help="Steps of a rollout.")] = 100,
    iterations: Annotated[int | None, typer.Option(help="Refinements M; the world's own by default.")] = None,
    filter: Annotated[str, typer.Option(help="softmax, hardmax or none.")] = "softmax",
    keep: Annotated[
        float | None, typer.Option(help="Share of the rollouts that is kept: .8, or 1 with --filter none.")
    ] = None,
    temperature: Annotated[float, typer.Option(help="Of the softmax filter.")] = 0.05,
    capacity: Annotated[int, typer.Option(min=1, help="Transitions in the synthetic buffer.")] = 1_000_000,
    real_ratio: Annotated[float, typer.Option(help="Share of logged rows in a batch.")] = 0.6,
    env_eval: EnvEval = False,
    env: Env = None,
    eval_episodes: Annotated[int, typer.Option(min=1, help="Episodes after each round.")] = 10,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after the last whole round.")] = False,
    overwrite: Overwrite = False,
    seed: Seed = 0,
    device: Device = "auto",
    debug: Debug = False,
    json: Json = False,
) -> None:
    """Train and dream in turns: each round trains on the mix, rolls the agent out, filters, mixes in."""
    with reporting(debug):
        from dydiff_env.agents import agent_class, resume_agent
        from dydiff_env.agents.loop import LoopConfig
        from dydiff_env.agents.loop import loop as run_loop
        from dydiff_env.data.minari_io import load_dataset
        from dydiff_env.evaluation.scores import environment_of
        from dydiff_env.world.world import World

        checkpoint = out / "agent.pt"
        if out.exists() and any(out.iterdir()) and not (overwrite or resume):
            raise DyDiffError(f"{out} is not empty.", "Give --overwrite or --resume.", usage=True)
        target = pick_device(device)
        cls, data, dreams = agent_class(algorithm), load_dataset(dataset), World.load(world, target)
        config = LoopConfig(
            rounds=rounds,
            updates=updates,
            batch=batch,
            horizon=horizon,
            iterations=iterations,
            filter=filter,
            keep=keep,
            temperature=temperature,
            capacity=capacity,
            real_ratio=real_ratio,
            eval_episodes=eval_episodes,
        )
        where = env or (environment_of(data.spec) if env_eval else None)
        if resume and checkpoint.exists():
            agent = resume_agent(checkpoint, algorithm, data.spec, seed, target)
            agent.world = str(world.resolve())  # it may have been moved
        else:
            agent = cls(data.spec, seed=seed, device=target, world=str(world.resolve()))
        emit(run_loop(agent, dreams, data, out, config, env=where, progress=not json), json)
