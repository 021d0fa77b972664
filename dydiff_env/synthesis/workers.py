"""Rounds in order, whoever dreams them: this process, or a pool of processes."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import tempfile
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dydiff_env.baselines import models as baselines
from dydiff_env.baselines.mtdiff import MTDiff
from dydiff_env.baselines.synther import SynthER
from dydiff_env.children import MOST, die_with_parent, end_children
from dydiff_env.data.trajectories import Trajectories
from dydiff_env.errors import DyDiffError, Note, said
from dydiff_env.policies import as_policy
from dydiff_env.policies.bounded import BoundedPolicy
from dydiff_env.synthesis.methods import (
    Dreamer,
    Synthesizer,
    TrajectorySampler,
    TransitionSampler,
    get_method,
)
from dydiff_env.synthesis.rounds import RoundOptions, run_round
from dydiff_env.world.identity import weights_fingerprint, world_fingerprint
from dydiff_env.world.world import World

Round = tuple[Trajectories, dict[str, Any]]
LOSSES_BORNE = 3  # times a pool that lost a worker is raised again


class Opened(NamedTuple):
    """What makes the rounds, and what it is made of."""

    synthesizer: Synthesizer
    world: World
    policy: BoundedPolicy | None  # where the rollouts are a policy's
    model: baselines.Baseline | None  # where they are a baseline's


def facts(opened: Opened) -> dict[str, Any]:
    """Which world, and which policy or baseline, by fingerprint."""
    world, policy, model = opened.world, opened.policy, opened.model
    known: dict[str, Any] = {
        "world": {
            "fingerprint": world_fingerprint(world),
            "dataset_id": world.spec.dataset_id,
            "dataset_fingerprint": world.spec.fingerprint,
        }
    }
    if policy is not None:
        known["policy"] = {"kind": policy.kind, "fingerprint": policy.fingerprint}
    if model is not None:
        known["model"] = {"kind": type(model).__name__, "fingerprint": weights_fingerprint(model)}
    return known


@dataclass(frozen=True)
class Sources:
    """Where a worker finds the world and the policy: paths, or objects that pickle.

    Args:
        world: a World or its folder; a baseline's model lies in the folder.
        policy: whatever `as_policy` takes; None for a method that follows no policy.
        method: one of METHODS.
        loading: options of `load_policy` (trust, vecnormalize), for a policy given by path or name.
        device: where everything lives, but for a World, which stays where it is and has the rest beside it.
    """

    world: World | str | Path
    policy: Any
    method: str = "dydiff"
    loading: dict[str, Any] = field(default_factory=dict)
    device: str = "cpu"

    def open(self) -> Opened:
        """The world, the policy checked against the world's spaces or the baseline's model, and what they make.

        Raises:
            DyDiffError: where a policy is missing or not wanted, or the world has no model of that baseline.
        """
        method = get_method(self.method)
        if method.follows_policy == (self.policy is None):
            raise DyDiffError(
                *(
                    (f"--method {self.method} rolls out a policy.", "Give --policy.")
                    if self.policy is None
                    else (f"--method {self.method} follows no policy but the data's.", "Leave --policy out.")
                ),
                usage=True,
            )
        world = self.world if isinstance(self.world, World) else World.load(self.world, device=self.device)
        device = str(world.device)
        if method.model is None:
            policy = as_policy(self.policy, world.spec, **self.loading, device=device)
            return Opened(Dreamer(world, policy), world, policy, None)
        if isinstance(self.world, World):
            raise DyDiffError(
                f"The {method.model} model lies in the world's folder.", "Give the world by its path."
            )
        model = baselines.load(Path(self.world).expanduser(), method.model, world.spec, device)
        if isinstance(model, SynthER):
            return Opened(TransitionSampler(world, model), world, None, model)
        assert isinstance(model, MTDiff)
        return Opened(TrajectorySampler(world, model), world, None, model)


def in_order(
    sources: Sources,
    opened: Opened,
    options: RoundOptions,
    indices: Sequence[int],
    workers: int,
) -> Iterator[Round]:
    """The rounds `indices`, one after another; a pool is at most two rounds a worker ahead of the reader."""
    workers = min(workers, len(indices), MOST)
    if workers <= 1:
        for index in indices:
            yield run_round(opened.synthesizer, options, index)
        return
    waiting, losses = deque(indices), 0
    while waiting:
        try:
            for result in _pool(sources, facts(opened), options, tuple(waiting), workers):
                waiting.popleft()
                yield result
        except BrokenProcessPool:
            losses += 1
            if losses > LOSSES_BORNE:
                raise DyDiffError(
                    f"A worker died {losses} times, last in or after round {waiting[0]}.",
                    "Memory may be short: --resume with fewer --workers (a smaller --batch makes other data: begin anew). "
                    "A script of your own needs `if __name__ == \"__main__\":`, and a policy that lies in a file.",
                ) from None


def _pool(
    sources: Sources, made_of: dict[str, Any], options: RoundOptions, indices: Sequence[int], workers: int
) -> Iterator[Round]:
    threads = max(1, (os.cpu_count() or 1) // workers)
    pending: deque[Future[Round]] = deque()
    todo = iter(indices)
    context, others = multiprocessing.get_context("spawn"), set(multiprocessing.active_children())
    # By a file: handed over directly, what is larger than a pipe holds would keep this process waiting for a child that died at its start.
    with _in_a_file(sources) as file, ProcessPoolExecutor(workers, context, _prepare, (file, threads)) as pool:
        try:
            for index in indices[: 2 * workers]:
                pending.append(pool.submit(_run, made_of, options, index))
                next(todo)
            while pending:
                result = pending.popleft().result()
                if (index := next(todo, None)) is not None:  # type: ignore[assignment]
                    pending.append(pool.submit(_run, made_of, options, index))
                yield result
        except BaseException:  # also a reader who wants no more: rounds under way are nobody's
            end_children(others)
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_opened: Opened | None = None  # of this worker process, filled once by _prepare, as the next
_facts: dict[str, Any] = {}


@contextmanager
def _in_a_file(sources: Sources) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "sources"
        try:
            file.write_bytes(pickle.dumps(sources))
        except (pickle.PickleError, AttributeError, TypeError) as error:
            raise DyDiffError(
                f"The policy or the world cannot be sent to other processes ({said(error, 120)}).",
                "Give one worker, or a policy that lies in a file, and a rule of termination that a module names.",
                usage=True,
            ) from error
        yield str(file)


def _prepare(file: str, threads: int) -> None:
    global _opened, _facts
    die_with_parent()
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore", Note)  # told once, by the parent
    _opened = pickle.loads(Path(file).read_bytes()).open()
    _facts = facts(_opened)


def _run(made_of: dict[str, Any], options: RoundOptions, index: int) -> Round:
    assert _opened is not None
    for name, then in made_of.items():
        if _facts[name] != then:
            raise DyDiffError(
                f"The {name}'s file has changed since the export began.",
                f"Export from a copy that nothing writes to; the rounds that are finished are of the {name} as it was.",
            )
    return run_round(_opened.synthesizer, options, index)
