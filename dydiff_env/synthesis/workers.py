"""Rounds in order, whoever dreams them: this process, or a pool of processes."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from dydiff_env.data.trajectories import Trajectories
from dydiff_env.errors import DyDiffError
from dydiff_env.policies import as_policy
from dydiff_env.policies.bounded import BoundedPolicy
from dydiff_env.synthesis.rounds import RoundOptions, run_round
from dydiff_env.world.world import World

Round = tuple[Trajectories, dict[str, Any]]
LOSSES_BORNE = 3  # times a pool that lost a worker is raised again


@dataclass(frozen=True)
class Sources:
    """Where a worker finds the world and the policy: paths, or objects that pickle.

    Args:
        world: a World or its folder.
        policy: whatever `as_policy` takes.
        loading: options of `load_policy` (trust, vecnormalize), for a policy given by path or name.
        device: where both live.
    """

    world: World | str | Path
    policy: Any
    loading: dict[str, Any] = field(default_factory=dict)
    device: str = "cpu"

    def open(self) -> tuple[World, BoundedPolicy]:
        """The world, and the policy checked against the world's spaces."""
        world = self.world if isinstance(self.world, World) else World.load(self.world, device=self.device)
        by_name = isinstance(self.policy, (str, Path))
        options = {**self.loading, "device": self.device} if by_name else {}
        return world, as_policy(self.policy, world.spec, **options)


def in_order(
    sources: Sources,
    opened: tuple[World, BoundedPolicy],
    options: RoundOptions,
    indices: Sequence[int],
    workers: int,
) -> Iterator[Round]:
    """The rounds `indices`, one after another; a pool is at most two rounds a worker ahead of the reader."""
    if workers == 1 or len(indices) < 2:
        for index in indices:
            yield run_round(*opened, options, index)
        return
    waiting, losses = deque(indices), 0
    while waiting:
        try:
            for result in _pool(sources, options, tuple(waiting), workers):
                waiting.popleft()
                yield result
        except BrokenProcessPool:
            losses += 1
            if losses > LOSSES_BORNE:
                raise DyDiffError(
                    f"A worker died {losses} times, last in or after round {waiting[0]}.",
                    "Memory may be short: give fewer --workers or a smaller --batch, then --resume.",
                ) from None


def _pool(sources: Sources, options: RoundOptions, indices: Sequence[int], workers: int) -> Iterator[Round]:
    threads = max(1, (os.cpu_count() or 1) // workers)
    pending: deque[Future[Round]] = deque()
    todo = iter(indices)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _prepare, (sources, threads)) as pool:
        try:
            for index in indices[: 2 * workers]:
                pending.append(pool.submit(_run, options, index))
                next(todo)
            while pending:
                result = pending.popleft().result()
                if (index := next(todo, None)) is not None:  # type: ignore[assignment]
                    pending.append(pool.submit(_run, options, index))
                yield result
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_opened: tuple[World, BoundedPolicy] | None = None  # of this worker process, filled once by _prepare


def _prepare(sources: Sources, threads: int) -> None:
    global _opened
    torch.set_num_threads(threads)
    _opened = sources.open()


def _run(options: RoundOptions, index: int) -> Round:
    assert _opened is not None
    return run_round(*_opened, options, index)
