"""A training run from the names of its data to its checkpoint, and the same run under several seeds side by side."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec

from dydiff_env.agents.agent import Agent
from dydiff_env.agents.algorithms import agent_class, resume_agent
from dydiff_env.agents.checkpoint import check_checkpoint, files_of
from dydiff_env.agents.judge import Judge
from dydiff_env.agents.replay import Replay
from dydiff_env.agents.trainer import Schedule, train
from dydiff_env.children import MOST, die_with_parent, end_children
from dydiff_env.data.dataset import check_same_spaces
from dydiff_env.data.goals import one_goal_each
from dydiff_env.data.minari_io import load_dataset
from dydiff_env.errors import DyDiffError
from dydiff_env.evaluation.scores import check_environment, environment_of
from dydiff_env.lock import sole_writer
from dydiff_env.progress import progress_bar, summary_writer
from dydiff_env.world.world import World


@dataclass(frozen=True)
class Run:
    """What decides a training run.

    Args:
        algorithm: td3bc, cql, diffql or bc.
        dataset: logged data: a Minari id or a folder.
        out: the checkpoint; the log goes beside it as ``.csv``.
        synthetic: synthetic data, any number of ids or folders.
        real_ratio: share of logged rows in a batch, with synthetic data.
        steps: gradient updates.
        seed: of the initial weights, the batches and the noise.
        env: where to evaluate: an id, or "" for the data's own environment; None never does.
        schedule: when to log, evaluate and keep a checkpoint.
        world: path of a world to name in the checkpoint.
        dream_eval: dream the agent in that world on the schedule, and keep the checkpoint with the best dreamt return.
        tensorboard: folder for event files.
        device: where to train.
        resume: go on from ``out`` where it exists.
    """

    algorithm: str
    dataset: str
    out: Path
    synthetic: Sequence[str] = ()
    real_ratio: float = 0.6
    steps: int = 50_000
    seed: int = 0
    env: str | None = None
    schedule: Schedule = field(default_factory=Schedule)
    world: str | None = None
    dream_eval: bool = True
    tensorboard: Path | None = None
    device: str = "cpu"
    resume: bool = False

    def __post_init__(self) -> None:
        """``~`` is the home folder. A number after a dot would pass for an ending, and runs of different numbers share a log.

        Raises:
            DyDiffError: where ``out`` does not end in .pt.
        """
        object.__setattr__(self, "out", Path(self.out).expanduser())
        check_checkpoint(self.out)

    def prepare(self) -> tuple[Agent, Replay, Judge | None, str | EnvSpec | None]:
        """All that training needs: the agent, its data, who judges it, and the environment to evaluate in. Nothing is written.

        Raises:
            DyDiffError: for an unknown algorithm, unreadable data, or a checkpoint of another run.
        """
        cls, data = agent_class(self.algorithm), load_dataset(self.dataset)
        synthetic = [load_dataset(path) for path in self.synthetic]
        for one in synthetic:
            check_same_spaces(data.spec, one.spec)
        env = environment_of(data.spec) if self.env == "" else self.env
        if env is not None:
            check_environment(env, data.spec)  # told now, not at the first evaluation
        if self.tensorboard is not None:
            summary_writer()  # told before an older run makes room
        mix = {"real_ratio": self.real_ratio, "synthetic": [one.spec.fingerprint for one in synthetic]}
        if self.resume and self.out.exists():
            agent = resume_agent(
                self.out, self.algorithm, data.spec, self.seed, self.device, mix if synthetic else None
            )
            agent.world = self.world or agent.world
        else:
            agent = cls(data.spec, seed=self.seed, device=self.device, world=self.world)
            agent.mix = mix if synthetic else None
        if synthetic or agent.world:
            data = one_goal_each(data)  # as the world learned it
        replay = Replay(data, synthetic, real_ratio=self.real_ratio, device=self.device)
        judged = self.dream_eval and (self.world or agent.judged)  # named now, or by the run that goes on
        judge = Judge.of(World.load(str(agent.world), self.device), data) if judged else None
        return agent, replay, judge, env

    def carry_out(self, progress: bool = False) -> dict[str, Any]:
        """Train, and return ``train``'s document.

        Raises:
            DyDiffError: what :meth:`prepare` raises.
        """
        with sole_writer(self.out):
            agent, replay, judge, env = self.prepare()
            if not agent.updates:
                self.make_room()
            return train(
                agent,
                replay,
                self.steps,
                self.out,
                schedule=self.schedule,
                env=env,
                judge=judge,
                tensorboard=self.tensorboard,
                progress=progress,
            )

    def make_room(self) -> None:
        """Delete the run that is replaced: a kill before the first checkpoint would have ``resume`` go on with that one."""
        for stale in files_of(self.out):
            stale.unlink(missing_ok=True)

    def under(self, seed: int) -> Run:
        """The same run under another seed: ``ckpt.pt`` becomes ``ckpt-seed3.pt``."""
        events = self.tensorboard / f"seed{seed}" if self.tensorboard else None
        out = self.out.with_name(f"{self.out.stem}-seed{seed}{self.out.suffix}")
        return replace(self, seed=seed, out=out, tensorboard=events)


def train_seeds(run: Run, seeds: Sequence[int], progress: bool = False) -> dict[str, Any]:
    """Train under each seed in a process of its own, as many at once as there are cores.

    Each keeps its own checkpoint and log; the summary goes to ``run.out`` with ``.json``. Killed, all of them go on
    with ``resume``.

    Args:
        run: its ``seed`` and ``out`` are replaced for each seed.
        seeds: all different.
        progress: show a bar over all updates on a terminal.

    Returns:
        ``updates`` (of each), ``updates_per_second`` (of all together), ``returns`` and ``dream_returns`` (triples: updates, mean and
        standard deviation over seeds), ``normalized_score`` and its ``normalized_score_std``, ``best_checkpoint`` with its
        ``best_return`` and ``best_by`` (of the best seed), ``seeds``, ``summary`` (the file) and ``runs`` (one document a seed).

    Raises:
        DyDiffError: for seeds named twice, or what stops one of the runs.
    """
    if len(set(seeds)) < len(seeds):
        raise DyDiffError(f"The seeds {list(seeds)} repeat.", "Name each seed once.", usage=True)
    runs = [run.under(seed) for seed in seeds]
    workers = min(len(runs), os.cpu_count() or 1, MOST)
    threads = max(1, torch.get_num_threads() // workers)
    context, others = multiprocessing.get_context("spawn"), set(multiprocessing.active_children())
    since = 0.0 if run.resume else time.time()
    if not run.resume:  # before the first begins, as the last begins when another has ended; but not for a run that cannot begin
        run.prepare()
        with ExitStack() as locks:
            for one in runs:
                locks.enter_context(sole_writer(one.out))
            for one in runs:
                one.make_room()
    with (
        progress_bar(f"train {run.algorithm} × {len(runs)}", run.steps * len(runs), progress) as advance,
        ProcessPoolExecutor(workers, context, _child, (threads,)) as pool,
    ):
        tasks, shown = [pool.submit(one.carry_out) for one in runs], 0
        try:
            while wait(tasks, timeout=1.0, return_when=FIRST_EXCEPTION).not_done:
                for task in tasks:
                    if task.done():
                        task.result()  # one run's failure ends them all
                done = sum(_updates(one.out, since) for one in runs)
                advance(done - shown)
                shown = done
            documents = [task.result() for task in tasks]
        except BaseException as error:
            end_children(others)
            if isinstance(error, BrokenProcessPool):
                raise DyDiffError(
                    "The process of a seed died.", "Memory may be short: --resume with fewer --seeds."
                ) from None
            raise
    summary = summarize(documents, seeds)
    path = run.out.with_suffix(".json")
    path.write_text(json.dumps(summary, indent=2) + "\n")
    return {**summary, "summary": str(path)}


def summarize(documents: Sequence[dict[str, Any]], seeds: Sequence[int]) -> dict[str, Any]:
    """What ``train_seeds`` returns, of the documents of ``train``; spreads are sample standard deviations."""
    scores = [document["normalized_score"] for document in documents]
    score = _mean_and_spread(scores) if None not in scores else (None, None)
    found = [document for document in documents if "best_return" in document]
    best = max(found, key=lambda document: float(document["best_return"]), default={})
    return {
        "updates": documents[0]["updates"],
        "updates_per_second": sum(document["updates_per_second"] for document in documents),
        "returns": _over_seeds(documents, "returns"),
        "dream_returns": _over_seeds(documents, "dream_returns"),
        "normalized_score": score[0],
        "normalized_score_std": score[1],
        **{key: best[key] for key in ("best_checkpoint", "best_updates", "best_by", "best_return") if best},
        "seeds": list(seeds),
        "runs": list(documents),
    }


def _over_seeds(documents: Sequence[dict[str, Any]], name: str) -> list[list[float]]:
    curves = [dict(map(tuple, document.get(name, ()))) for document in documents]
    shared = sorted(set.intersection(*(set(curve) for curve in curves)))
    return [[updates, *_mean_and_spread([curve[updates] for curve in curves])] for updates in shared]


def _mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _updates(out: Path, since: float) -> int:
    """How far a run's log says it is; an older log is another run's, and about to go."""
    path = out.with_suffix(".csv")
    try:
        if path.stat().st_mtime < since:
            return 0
        with path.open(newline="") as file:
            return max((int(row["updates"]) for row in csv.DictReader(file) if row["updates"]), default=0)
    except OSError:  # there is none yet; on Windows also while it is replaced
        return 0


def _child(threads: int) -> None:
    die_with_parent()
    torch.set_num_threads(threads)
