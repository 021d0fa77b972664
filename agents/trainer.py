"""Training as people run it: progress, losses in a CSV, evaluation on a schedule, checkpoints, resume."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gymnasium.envs.registration import EnvSpec
from torch import Tensor

from dydiff_env.agents.agent import Agent
from dydiff_env.agents.checkpoint import best_path
from dydiff_env.agents.judge import Judge, Sceptic
from dydiff_env.agents.log import Log, best_row, known
from dydiff_env.errors import DyDiffError
from dydiff_env.evaluation.scores import evaluate_returns
from dydiff_env.evaluation.statistics import normalized_scores
from dydiff_env.policies.draws import stream
from dydiff_env.progress import progress_bar


@dataclass(frozen=True)
class Schedule:
    """When a run looks up from its updates.

    Args:
        log_every: updates between two rows of losses.
        checkpoint_every: updates between two checkpoints.
        eval_every: updates between two evaluations, real or dreamt.
        eval_episodes: episodes of a real one.
    """

    log_every: int = 1000
    checkpoint_every: int = 10_000
    eval_every: int = 5000
    eval_episodes: int = 10


def train(
    agent: Agent,
    source: Any,
    steps: int,
    out: str | Path,
    *,
    schedule: Schedule | None = None,
    env: str | EnvSpec | None = None,
    judge: Judge | Sceptic | None = None,
    tensorboard: str | Path | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Train until ``agent.updates == steps``, keeping a checkpoint at ``out`` and a CSV beside it.

    A run that was killed goes on from its checkpoint: load the agent and call again. It ends with the weights
    of the uninterrupted run: batches depend on the update's number, noise on the checkpoint's generator.

    Where the agent is evaluated, the best checkpoint is kept at :func:`best_path` ``out``: the one with the highest mean return
    in its dreams, or without a judge in the environment.

    Args:
        agent: new, or loaded from a checkpoint of this run.
        source: what the agent's ``fit`` learns from: a replay, or a world.
        steps: updates in all, those of earlier parts of the run included.
        out: the checkpoint; losses and returns go to the same name with ``.csv``.
        schedule: when to log, evaluate and keep a checkpoint.
        env: where to evaluate (and once more at the end); None never does.
        judge: dreams the agent whenever it would be evaluated.
        tensorboard: folder for event files.
        progress: show a bar on a terminal.

    Returns:
        ``updates``, ``updates_per_second`` (evaluation not counted), ``returns`` (pairs: updates, mean return),
        ``normalized_score`` of the last evaluation, ``checkpoint`` and ``log``; with a judge ``dream_returns`` (pairs); where the agent was
        evaluated ``best_checkpoint``, ``best_updates``, ``best_by`` ("dream_return" or "return_mean") and ``best_return``.

    Raises:
        DyDiffError: where the run's agent has been dreamt in another world.
    """
    schedule, out = schedule or Schedule(), Path(out).expanduser()
    log_path = out.with_suffix(".csv")
    if judge is not None:
        if agent.judged not in (None, judge.fingerprint):
            raise DyDiffError(
                f"{out} has been dreamt in another world: the returns do not compare.",
                "Resume with the --world it began with, or with --no-dream-eval.",
                usage=True,
            )
        agent.judged = judge.fingerprint
    by = "dream_return" if agent.judged is not None else "return_mean"  # also where a run goes on without its judge
    if not agent.updates:
        best_path(out).unlink(missing_ok=True)  # of an older run
    log = Log(log_path, agent.updates, Path(tensorboard).expanduser() if tensorboard else None)
    earlier = float(log.rows[-1].get("seconds") or 0) if log.rows else 0.0
    begun, first, away = time.perf_counter(), agent.updates, 0.0
    every = [schedule.log_every, schedule.checkpoint_every] + ([schedule.eval_every] if env or judge else [])
    losses: dict[str, Tensor] = {}

    def evaluates(updates: int) -> bool:
        return bool(env or judge) and updates > 0 and (updates % schedule.eval_every == 0 or updates == steps)

    def evaluate() -> str:
        found = {} if env is None else evaluation(agent, env, schedule.eval_episodes)
        found |= {} if judge is None else judge(agent)
        row = log.rows[-1] | found
        if best_row([*log.rows[:-1], row], by) is row:
            agent.save(best_path(out))  # before the log says so: a kill between the two evaluates again
        log.amend(found)
        names = {"return_mean": "return", "dream_return": "dreamt"}
        return ", ".join(f"{names[key]} {value:.0f}" for key, value in found.items() if key in names)

    try:
        wanted = ["return_mean"] * (env is not None) + ["dream_return"] * (judge is not None)
        if evaluates(agent.updates) and log.rows and not all(known(log.rows[-1], column) for column in wanted):
            evaluate()  # the run was stopped while it did
        with progress_bar(f"train {agent.algorithm}", steps, progress) as advance:
            advance(agent.updates)
            while agent.updates < steps:
                done = before = agent.updates
                stop = min(steps, *(done - done % interval + interval for interval in every))

                def note(updates: int, latest: dict[str, Tensor]) -> None:
                    nonlocal before
                    losses.update(latest)
                    advance(updates - before)
                    before = updates

                agent.fit(source, stop - done, note)
                row: dict[str, Any] = {
                    "updates": stop,
                    "seconds": round(earlier + time.perf_counter() - begun - away, 3),
                    **{name: float(value) for name, value in losses.items()},
                }
                paused, told = time.perf_counter(), None
                log.add(row)
                if evaluates(stop) or stop % schedule.checkpoint_every == 0 or stop == steps:
                    agent.save(out)  # before the evaluation: the updates outlive an environment that fails
                if evaluates(stop):
                    told = evaluate()
                away += time.perf_counter() - paused
                advance(0, told)
    finally:
        log.close()
    seconds = time.perf_counter() - begun - away
    evaluations = [row for row in log.rows if known(row, "return_mean")]
    last = evaluations[-1].get("normalized_score") if evaluations else None
    document = {
        "updates": agent.updates,
        "updates_per_second": (agent.updates - first) / seconds if seconds else 0.0,
        "returns": [[int(row["updates"]), float(row["return_mean"])] for row in evaluations],
        "normalized_score": float(last) if last not in (None, "") else None,
        "checkpoint": str(out),
        "log": str(log_path),
    }
    if judge is not None:
        dreamt = [row for row in log.rows if known(row, "dream_return")]
        document["dream_returns"] = [[int(row["updates"]), float(row["dream_return"])] for row in dreamt]
    if (best := best_row(log.rows, by)) is not None:
        document |= {
            "best_checkpoint": str(best_path(out)),
            "best_updates": int(best["updates"]),
            "best_by": by,
            "best_return": float(best[by]),
        }
    return document


def evaluation(agent: Agent, env: str | EnvSpec, episodes: int) -> dict[str, float]:
    """A row of the log: returns in the real environment, from resets that the agent's seed fixes; a score where it is the data's own."""
    found = evaluate_returns(agent, env, episodes, seed=stream(agent.seed, 10_000) % 2**32)  # neighbouring seeds share no reset
    row = {
        "return_mean": float(found.returns.mean()),
        "return_std": float(found.returns.std()),
        "length_mean": float(found.lengths.mean()),
    }
    own = agent.spec.environment
    scores = normalized_scores(found.returns, agent.spec) if own is not None and own.id == getattr(env, "id", env) else None
    return row if scores is None else row | {"normalized_score": float(scores.mean())}
