"""Our own agent checkpoints: a dictionary of tensors and plain values, loaded without unpickling code."""

from __future__ import annotations

import importlib
import pickle
from pathlib import Path
from typing import Any

import torch

from dydiff_env.errors import DyDiffError
from dydiff_env.policies.policy import Policy

CLASSES = {
    "td3bc": "TD3BC",
    "cql": "CQL",
    "diffql": "DiffQL",
    "bc": "BC",
}  # module of dydiff_env.agents: its class


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The checkpoint's dictionary, on the CPU.

    Raises:
        DyDiffError: for anything that is not an agent checkpoint.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise DyDiffError(
            f"{path} holds pickled Python objects, not only tensors.",
            "Export the policy with torch.jit.script or torch.jit.trace and pass that file.",
        ) from None
    except Exception as error:
        raise DyDiffError(f"{path} cannot be read: {error}.", "Save or copy the checkpoint again.") from error
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != "dydiff-env-agent":
        raise DyDiffError(
            f"{path} holds tensors, but not an agent of dydiff-env.",
            "A bare state_dict has no network: export it with torch.jit.script or torch.jit.trace.",
        )
    if checkpoint.get("algorithm") not in CLASSES:
        raise DyDiffError(
            f"{path} is of algorithm {checkpoint.get('algorithm')!r}.",
            f"This version knows {', '.join(CLASSES)}.",
        )
    return checkpoint


def load(path: Path, checkpoint: dict[str, Any], device: str) -> Policy:
    """The agent of a checkpoint read by ``read_checkpoint``."""
    name = checkpoint["algorithm"]
    # policies lie below agents, so the agent's class is only looked up when a file asks for it
    agent_class = getattr(importlib.import_module(f"dydiff_env.agents.{name}"), CLASSES[name])
    return agent_class.load(path, device=device)
