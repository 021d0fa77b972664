"""Improving a policy in a world: a copy of it learns from its own dreams, and is kept where it gains most
in the member of the ensemble in which it gains least.

A policy that has learned from a world finds out what is wrong with it: it falls in reality where its dreams go on. What is wrong with
the mean of the ensemble is not wrong alike in each member. So a copy is worth what it gains in the member in which it gains least.
"""

from __future__ import annotations

import operator
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from gymnasium.envs.registration import EnvSpec

from dydiff_env.agents.checkpoint import best_path, check_room, files_of, read_checkpoint
from dydiff_env.agents.judge import Sceptic
from dydiff_env.agents.svg import SVG, SVGConfig
from dydiff_env.agents.trainer import Schedule, train
from dydiff_env.errors import DyDiffError
from dydiff_env.evaluation.scores import check_environment
from dydiff_env.lock import sole_writer
from dydiff_env.policies.loader import as_policy
from dydiff_env.progress import announce, summary_writer
from dydiff_env.world.world import LONGEST, World


def improve(
    policy: Any,
    world: World | str | Path,
    out: str | Path,
    config: SVGConfig | None = None,
    *,
    episode: int | None = None,
    seed: int = 0,
    named: str | Path | None = None,
    schedule: Schedule | None = None,
    env: str | EnvSpec | None = None,
    tensorboard: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Fine-tune a copy of ``policy`` in ``world``, without its environment.

    The last copy is kept at ``out``, the one with the best dreams at ``out-best``, and the curve beside them as ``.csv``. A run that was
    killed goes on with ``resume``, and ends as the uninterrupted one.

    Args:
        policy: where to begin: whatever :func:`~dydiff_env.policies.loader.as_policy` takes.
        world: where to practise, or its folder.
        out: the checkpoint.
        config: of the learning.
        episode: longest episode, steps; when None the environment's own limit, else the longest logged; at most 1 000.
        seed: of every draw.
        named: what the checkpoints call the world, its folder by default; ``export`` finds it there.
        schedule: when to judge; every 5 rounds when None.
        env: where to evaluate besides; None never does.
        tensorboard: folder for event files.
        resume: go on from ``out`` where it exists.
        overwrite: replace the run that is there.
        progress: say how long it will take, and show a bar on a terminal.

    Returns:
        What :func:`~dydiff_env.agents.trainer.train` returns; ``dream_return_before``, of the policy itself, the mean over members (a
        copy's is this, and what it gains in the member in which it gains least); and ``copy_error``, how far the copy's actions were from
        the policy's at first (root mean square, in units of half their range; None where the run was resumed).

    Raises:
        DyDiffError: where ``out`` is there already, another run's or the policy itself, or the action space has no bounds.
    """
    out, seed = Path(out).expanduser(), operator.index(seed)
    check_room(out, overwrite or resume, policy)
    if not isinstance(world, World):
        named, world = named or Path(world).expanduser().resolve(), World.load(world)
    named, world_spec = None if named is None else str(named), world.spec
    policy = as_policy(policy, world_spec, device=str(world.device))
    if episode is None:
        episode = min(world.episode_limit, LONGEST)
    config = config or SVGConfig()
    config = replace(config, episode=episode, length=min(config.length, episode))
    judge = Sceptic(world, episode, policy)
    if env is not None:
        check_environment(env, world_spec)  # told now, not after minutes
    if tensorboard is not None:
        summary_writer()
    kept = {"policy": policy.fingerprint}
    agent = SVG(world_spec, config, seed=seed, device=world.device, world=named)  # refuses spaces that no agent can act in
    agent.mix, agent.judged = kept, judge.fingerprint
    if resumed := resume and out.exists():
        agent = _resumed(out, agent)
    schedule = schedule or Schedule(log_every=1, eval_every=5, checkpoint_every=5)
    with sole_writer(out):
        for stale in () if resumed else files_of(out):
            stale.unlink(missing_ok=True)  # first: stopped from here on, nothing of an older run is gone on with
        begun = time.perf_counter()
        before = judge(policy)["dream_return"]
        if progress and (left := config.rounds - agent.updates):
            judging = (time.perf_counter() - begun) * left / schedule.eval_every
            announce("improve", judging + left * round_seconds(world, config), "left" if resumed else "in all")
        error = None if resumed else agent.begin(world, policy)
        if resumed and named not in (None, agent.world):  # the world was moved
            agent.world = named
            if best_path(out).exists():
                best = SVG.load(best_path(out), world.device)
                best.world = named
                best.save(best_path(out))
        document = train(
            agent,
            world,
            config.rounds,
            out,
            schedule=schedule,
            env=env,
            judge=judge,
            tensorboard=tensorboard,
            progress=progress and sys.stderr.isatty(),  # in a pipe the line above is enough: the first rounds, without the actor, mislead
        )
    return {**document, "dream_return_before": before, "copy_error": error}


def round_seconds(world: World, config: SVGConfig) -> float:
    """Seconds of one round with all its parts, timed on an agent that knows nothing."""
    trial = SVG(world.spec, replace(config, warm_up=0), device=world.device)
    trial.updates = 1  # the first has more to do
    begun = time.perf_counter()
    trial.fit(world, 1)
    return time.perf_counter() - begun


def _resumed(out: Path, wanted: SVG) -> SVG:
    """The agent at ``out``, where it is of the run that ``wanted`` would begin."""
    content = read_checkpoint(out)
    others = [f"a {content['algorithm']} agent"]
    if content["algorithm"] == SVG.algorithm:
        agent = SVG.load(out, wanted.device)
        others = [
            name
            for name, own, asked in (
                ("another --policy", agent.mix, wanted.mix),
                ("another --world", agent.judged, wanted.judged),
                ("another --seed", agent.seed, wanted.seed),
                ("other numbers (--rounds, --penalty, --episode)", agent.config, wanted.config),
            )
            if own != asked
        ]
        if not others:
            return agent
    raise DyDiffError(
        f"{out} is another run: {', '.join(others)}.", "Resume with what it began with, or give --overwrite.", usage=True
    )
