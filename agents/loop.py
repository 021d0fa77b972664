"""Algorithm 1: train the agent, let it dream, keep the good rollouts, mix them in, and again."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.envs.registration import EnvSpec

from dydiff_env.agents.agent import Agent
from dydiff_env.agents.judge import Judge
from dydiff_env.agents.log import best_row
from dydiff_env.agents.replay import Replay, check_ratio
from dydiff_env.agents.synthetic_buffer import SyntheticBuffer
from dydiff_env.agents.trainer import evaluation
from dydiff_env.data.dataset import Dataset
from dydiff_env.data.goals import one_goal_each
from dydiff_env.errors import DyDiffError
from dydiff_env.evaluation.scores import check_environment
from dydiff_env.lock import sole_writer
from dydiff_env.policies.loader import as_policy
from dydiff_env.progress import announce, progress_bar
from dydiff_env.publish import replacing
from dydiff_env.synthesis.estimate import dream_seconds
from dydiff_env.synthesis.filters import kept_count, share_kept
from dydiff_env.synthesis.methods import Dreamer
from dydiff_env.synthesis.rounds import RoundOptions, run_round
from dydiff_env.world.identity import world_fingerprint
from dydiff_env.world.world import World


@dataclass(frozen=True)
class LoopConfig:
    """What decides a loop's result, together with world, data and agent.

    Args:
        rounds: how often to train and dream.
        updates: gradient updates a round; in the first round on logged data alone.
        batch: rollouts of a round, B_r.
        horizon: their steps, L.
        iterations: refinements M; the world's own when None, 0 is the plain single-step rollout.
        filter: softmax, hardmax or none.
        keep: share η that is kept; .8 when None, or all without a filter.
        temperature: of the softmax filter.
        capacity: transitions the synthetic buffer holds; the oldest rounds leave first.
        real_ratio: share of logged rows in a batch.
        eval_episodes: real episodes after each round, where an environment is given.
    """

    rounds: int = 10
    updates: int = 5000
    batch: int = 2048
    horizon: int = 100
    iterations: int | None = None
    filter: str = "softmax"
    keep: float | None = None
    temperature: float = 0.05
    capacity: int = 1_000_000
    real_ratio: float = 0.6
    eval_episodes: int = 10

    def __post_init__(self) -> None:
        """NumPy's numbers become Python's: JSON knows no others."""
        for name, value in vars(self).items():
            if isinstance(value, np.generic):
                object.__setattr__(self, name, value.item())

    def round_options(self, world: World, seed: int) -> RoundOptions:
        """How each round dreams.

        Raises:
            DyDiffError: for a value out of range.
        """
        keep = share_kept(self.filter, self.keep)
        options = RoundOptions(
            trajectories=self.rounds * kept_count(keep, self.batch),
            horizon=self.horizon,
            iterations=world.iterations if self.iterations is None else self.iterations,
            filter=self.filter,
            keep=keep,
            temperature=self.temperature,
            batch=self.batch,
            seed=seed,
        )
        options.check()
        return options


def loop(
    agent: Agent,
    world: World,
    dataset: Dataset,
    out: str | Path,
    config: LoopConfig | None = None,
    *,
    env: str | EnvSpec | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Algorithm 1, a folder ``out`` with the checkpoint, the rollouts and a table of rounds.

    Each round: train on the mix, dream with the agent from states of the data, filter, add to the buffer; dream whole
    episodes, and keep the agent that has the best of all rounds as ``out/best.pt``.
    A new agent begins a new loop; what an older one left in ``out`` goes.
    A loop that was killed goes on after its last whole round: load ``out/agent.pt`` and call again. It ends with
    the result of the uninterrupted loop, since every draw depends on the seed and the round's number.

    Args:
        agent: new, or loaded from ``out/agent.pt``.
        world: dreams for it.
        dataset: logged data.
        out: the run's folder.
        config: what to do.
        env: where to evaluate after each round; None never does.
        progress: show a bar on a terminal.

    Returns:
        ``rounds`` (one dictionary a round; ``rollout_return`` is the mean of the round's rollouts before the filter, ``dream_return``
        that of dreamt episodes), ``updates``, ``updates_per_second``, ``seconds``, ``checkpoint``, ``best_checkpoint``, ``best_round``.

    Raises:
        DyDiffError: where the agent does not fit the loop it is to resume, the world does not fit the data, ``out`` holds what no loop
            has written, or another process is writing there.
    """
    with sole_writer(Path(out).expanduser()):
        return _loop(agent, world, dataset, Path(out).expanduser(), config or LoopConfig(), env, progress)


def _loop(
    agent: Agent,
    world: World,
    dataset: Dataset,
    out: Path,
    config: LoopConfig,
    env: str | EnvSpec | None,
    progress: bool,
) -> dict[str, Any]:
    """What :func:`loop` says."""
    done, rest = divmod(agent.updates, config.updates)
    if rest or done > config.rounds:
        raise DyDiffError(
            f"The agent has {agent.updates} updates, a loop of {config.rounds} rounds of "
            f"{config.updates} never saves that.",
            "Begin with a new agent, or resume with the numbers the loop began with.",
            usage=True,
        )
    options = config.round_options(world, agent.seed)
    policy, buffer = as_policy(agent, world.spec), SyntheticBuffer(out / "rollouts", config.capacity)
    dataset = one_goal_each(dataset)  # as the world learned it
    judge = Judge.of(world, dataset)
    check_ratio(config.real_ratio)
    if env is not None:
        check_environment(env, world.spec)
    # What is wrong has been told by now; only then does an older loop make room.
    if not done:
        _check_own(out)
        for name in ("agent.pt", "best.pt", "loop.json"):
            (out / name).unlink(missing_ok=True)
        shutil.rmtree(out / "rollouts", ignore_errors=True)
    dreams = {"world": world_fingerprint(world), "iterations": options.iterations}
    buffer.restore(done)
    rows = _read_rows(out / "loop.json", config, dreams)[:done] if done else []

    if len(rows) < done:
        raise DyDiffError(
            f"{out / 'loop.json'} does not hold the {done} rounds of {out / 'agent.pt'}.",
            "Restore it, or begin a new loop in another --out.",
        )

    held = 0  # transitions of the rounds that the buffer held, newest first
    for row in reversed(rows):
        held += row["transitions"]
        if row["kept"] and (held <= config.capacity or row is rows[-1]) and row["round"] not in buffer.rounds:
            raise DyDiffError(f"{out / 'rollouts'} lacks round {row['round']}.", "Restore it, or begin a new loop with --overwrite.")

    def note() -> None:
        document = {"config": asdict(config), "dreams": dreams, "algorithm": agent.algorithm, "rounds": rows}
        _write(out / "loop.json", document)

    def evaluate() -> None:
        if "dream_return" not in rows[-1]:
            row = rows[-1] | judge(agent)
            if best_row([*rows[:-1], row], "dream_return") is row:
                agent.save(out / "best.pt")  # before the table says so: a kill between the two dreams again
            rows[-1] = row
            note()
        if env is not None and "return_mean" not in rows[-1]:
            rows[-1] |= evaluation(agent, env, config.eval_episodes)
            note()

    if rows:
        evaluate()  # the loop was stopped while it did
    if progress:
        rounds = config.rounds - done
        dreamer = Dreamer(world, policy)
        dreaming = dream_seconds(dreamer, options, [config.batch] * rounds)
        training = config.updates * update_seconds(agent, Replay(dataset, device=agent.device))
        announce(f"loop {agent.algorithm}", dreaming + rounds * training)
    with progress_bar(f"loop {agent.algorithm}", config.rounds, progress) as advance:
        advance(done)
        for index in range(done + 1, config.rounds + 1):
            begun = time.perf_counter()
            replay = Replay(
                dataset, list(buffer.rounds.values()), real_ratio=config.real_ratio, device=agent.device
            )
            agent.fit(replay, config.updates)
            synthetic_rows = len(replay) - replay.real_rows
            del replay  # the next one is built where this one stood: together they take twice the room
            trained = time.perf_counter()
            kept, statistics = run_round(Dreamer(world, policy), options, index - 1)  # anew: trust is in the agent as it is now
            if len(kept):
                buffer.add(index, kept)
            rows.append(
                {
                    "round": index,
                    "updates": agent.updates,
                    "train_seconds": trained - begun,
                    "dream_seconds": time.perf_counter() - trained,
                    "synthetic_rows": synthetic_rows,
                    **{
                        name: statistics[name]
                        for name in ("kept", "transitions", "terminated", "uncertainty")
                    },
                    "rollout_return": (statistics["returns_all"] or {}).get("mean"),
                }
            )
            note()  # the table first: a kill between the two repeats the round and writes the same row again
            agent.save(out / "agent.pt")  # before evaluating: the round outlives an environment that fails
            evaluate()
            real = "" if env is None else f"return {rows[-1]['return_mean']:.0f}, "
            advance(1, f"{real}dreamt {rows[-1]['dream_return']:.0f}")
    seconds, best = sum(row["train_seconds"] for row in rows), best_row(rows, "dream_return")
    return {
        "rounds": rows,
        "updates": agent.updates,
        "updates_per_second": agent.updates / seconds,
        "seconds": seconds + sum(row["dream_seconds"] for row in rows),
        "checkpoint": str(out / "agent.pt"),
        "best_checkpoint": str(out / "best.pt"),
        "best_round": None if best is None else best["round"],
    }


def _check_own(out: Path) -> None:
    """Make sure that nothing goes but what a loop has written."""
    others = [path for path in (out / "rollouts").glob("*") if not path.name.startswith((".", "round-"))]
    if not (out / "loop.json").is_file():
        others += [path for path in (out / "agent.pt", out / "best.pt") if path.exists()]
    if others:
        raise DyDiffError(f"{others[0]} is none of a loop's: it stays.", "Choose another --out, or move it away.", usage=True)


def update_seconds(agent: Agent, replay: Replay, updates: int = 24) -> float:
    """Seconds of one gradient update, timed on a fresh agent of the same kind."""
    trial = type(agent)(agent.spec, agent.config, device=agent.device)
    trial.fit(replay, 2 * agent.group)  # warms up
    begun = time.perf_counter()
    trial.fit(replay, updates)
    return (time.perf_counter() - begun) / updates


def _read_rows(path: Path, config: LoopConfig, dreams: dict[str, Any]) -> list[dict[str, Any]]:
    """The rounds so far of a loop with the same configuration."""
    if not path.is_file():
        return []
    try:
        document: dict[str, Any] = json.loads(path.read_text())
        other_dreams = document["dreams"] != dreams
        if not document["config"].keys() >= asdict(config).keys() or not isinstance(document["rounds"], list):
            raise KeyError("config")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DyDiffError(f"{path} is damaged ({type(error).__name__}).", "Restore it, or begin a new loop with --overwrite.") from error
    for name, value in asdict(config).items():
        if name not in ("rounds", "eval_episodes") and document["config"][name] != value:
            raise DyDiffError(
                f"{path.parent} was begun with {name} {document['config'][name]}, not {value}.",
                "Resume with the numbers the loop began with.",
                usage=True,
            )
    if other_dreams:
        raise DyDiffError(
            f"{path.parent} was begun with another world, or another M of its own.",
            "Resume with the --world it began with.",
            usage=True,
        )
    return list(document["rounds"])


def _write(path: Path, document: dict[str, Any]) -> None:
    with replacing(path) as partial:
        partial.write_text(json.dumps(document, indent=2))
