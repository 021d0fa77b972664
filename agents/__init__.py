"""Offline agents that eat logged and synthetic data together: TD3BC, CQL, DiffQL and behaviour cloning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dydiff_env.agents.agent import Agent, read_checkpoint
from dydiff_env.agents.bc import BC, BCConfig
from dydiff_env.agents.cql import CQL, CQLConfig
from dydiff_env.agents.diffql import DiffQL, DiffQLConfig
from dydiff_env.agents.replay import Batch, Replay
from dydiff_env.agents.td3bc import TD3BC, TD3BCConfig
from dydiff_env.agents.trainer import Schedule, train
from dydiff_env.errors import DyDiffError

ALGORITHMS: dict[str, type[Agent]] = {cls.algorithm: cls for cls in (TD3BC, CQL, DiffQL, BC)}

__all__ = [
    "ALGORITHMS",
    "BC",
    "CQL",
    "TD3BC",
    "Agent",
    "BCConfig",
    "Batch",
    "CQLConfig",
    "DiffQL",
    "DiffQLConfig",
    "Replay",
    "Schedule",
    "TD3BCConfig",
    "agent_class",
    "load_agent",
    "train",
]


def agent_class(algorithm: str) -> type[Agent]:
    """The agent called ``algorithm``.

    Raises:
        DyDiffError: where there is none of that name.
    """
    if algorithm not in ALGORITHMS:
        raise DyDiffError(
            f"There is no algorithm {algorithm!r}.", f"Use one of {', '.join(ALGORITHMS)}.", usage=True
        )
    return ALGORITHMS[algorithm]


def load_agent(path: str | Path | dict[str, Any], device: torch.device | str = "cpu") -> Agent:
    """The agent in a checkpoint of any algorithm.

    Args:
        path: the file, or what ``read_checkpoint`` read from it.
        device: where its networks go.
    """
    checkpoint = path if isinstance(path, dict) else read_checkpoint(path)
    return agent_class(checkpoint["algorithm"]).from_checkpoint(checkpoint, device)
