"""Agents by name: made new, loaded, or resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dydiff_env.agents.agent import Agent
from dydiff_env.agents.bc import BC
from dydiff_env.agents.checkpoint import read_checkpoint, restore
from dydiff_env.agents.cql import CQL
from dydiff_env.agents.diffql import DiffQL
from dydiff_env.agents.svg import SVG
from dydiff_env.agents.td3bc import TD3BC
from dydiff_env.data.dataset import DatasetSpec
from dydiff_env.errors import DyDiffError, unknown

ALGORITHMS: dict[str, type[Agent]] = {cls.algorithm: cls for cls in (TD3BC, CQL, DiffQL, BC)}


def agent_class(algorithm: str) -> type[Agent]:
    """The agent called ``algorithm``.

    Raises:
        DyDiffError: where there is none of that name.
    """
    if algorithm not in ALGORITHMS:
        raise unknown("algorithm", algorithm, ALGORITHMS)
    return ALGORITHMS[algorithm]


def load_agent(path: str | Path | dict[str, Any], device: torch.device | str = "cpu") -> Agent:
    """The agent in a checkpoint of any algorithm.

    Args:
        path: the file, or what ``read_checkpoint`` read from it.
        device: where its networks go.

    Raises:
        DyDiffError: where the file is missing, broken, or does not fit this version.
    """
    content = path if isinstance(path, dict) else read_checkpoint(path)
    cls = SVG if content["algorithm"] == SVG.algorithm else agent_class(content["algorithm"])
    return restore(cls, content, device)


def resume_agent(
    path: Path,
    algorithm: str,
    spec: DatasetSpec,
    seed: int,
    device: torch.device | str,
    mix: dict[str, Any] | None = None,
) -> Agent:
    """The agent of a run that was stopped, where it is the same run.

    Args:
        path: its checkpoint.
        algorithm: what the run trains.
        spec: of the data it trains on.
        seed: its seed.
        device: where its networks go.
        mix: what it is trained on besides.

    Raises:
        DyDiffError: where the checkpoint is of another algorithm, seed, dataset or mix.
    """
    agent = load_agent(path, device)
    if (agent.algorithm, agent.seed, agent.spec.fingerprint) != (algorithm, seed, spec.fingerprint):
        raise DyDiffError(
            f"{path} is another run: {agent.algorithm}, seed {agent.seed}, {agent.spec.dataset_id}.",
            "Resume with the algorithm, seed and data it began with.",
            usage=True,
        )
    if agent.mix != mix:
        raise DyDiffError(
            f"{path} was trained on other synthetic data, or on another share of them.",
            "Resume with the --synthetic and --real-ratio it began with.",
            usage=True,
        )
    return agent
