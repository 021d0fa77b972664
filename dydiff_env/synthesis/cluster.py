"""Rounds on a Ray cluster (extra ``ray``): one task a round, retried when its worker or machine is lost."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from dydiff_env.errors import DyDiffError, said
from dydiff_env.synthesis.methods import Synthesizer
from dydiff_env.synthesis.rounds import RoundOptions, run_round

RETRIES = 3  # of a round whose worker died


def import_ray() -> Any:
    """Ray, quiet about usage statistics.

    Raises:
        DyDiffError: where it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise DyDiffError(
            "--engine ray, but Ray is not installed.", 'pip install "dydiff-env[ray]"', usage=True
        ) from None
    return ray


def in_order_on_ray(
    synthesizer: Synthesizer,
    options: RoundOptions,
    indices: Sequence[int],
    workers: int,
    address: str | None = None,
    device: str = "cpu",
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The rounds `indices`, one after another; at most two a worker are under way.

    The world and the policy travel with the tasks, so that the machines need no common disk, only this package.

    Args:
        synthesizer: what makes the rounds.
        options: of the export.
        indices: which rounds.
        workers: how many run at a time; a local cluster is started with that many.
        address: of a running cluster ("auto" finds one on this machine); None starts a local one.
        device: where each round runs; with cuda, a round asks for one GPU.

    Raises:
        DyDiffError: where the cluster is not there or has no GPU that is asked for, or a round lost its worker more than RETRIES times.
    """
    ray = import_ray()
    ours = not ray.is_initialized()
    if ours:
        how: dict[str, Any] = (
            {"address": address} if address else {"num_cpus": workers, "include_dashboard": False}
        )
        try:
            ray.init(**how, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise DyDiffError(
                f"No Ray cluster answers at {address or 'this machine'}: {said(error)}",
                "Start one with `ray start --head`, or leave --address out.",
            ) from error
    gpus = 1 if device.startswith("cuda") else 0
    task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(run_round)
    try:
        if gpus and not ray.cluster_resources().get("GPU"):  # it would wait for one to join
            raise DyDiffError("The Ray cluster has no GPU.", "Use --device cpu.", usage=True)
        shared = ray.put(synthesizer)
        todo, pending = deque(indices), deque()  # type: ignore[var-annotated]
        while todo or pending:
            while todo and len(pending) < 2 * workers:
                pending.append(task.remote(shared, options, todo.popleft()))
            yield ray.get(pending.popleft())
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, DyDiffError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        raise DyDiffError(
            f"A round was lost {RETRIES + 1} times on the cluster ({type(error).__name__}).",
            "Memory may be short: --resume with fewer --workers (a smaller --batch makes other data: begin anew).",
        ) from error
    finally:
        if ours:
            ray.shutdown()
