"""Our own agent checkpoints: a dictionary of tensors and plain values, loaded without unpickling code."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from dydiff_env.errors import DyDiffError
from dydiff_env.policies.policy import Policy


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
    return checkpoint


def load(path: Path, checkpoint: dict[str, Any], device: str) -> Policy:
    """The agent in a checkpoint that ``read_checkpoint`` read from ``path``.

    Raises:
        DyDiffError: for an unknown algorithm or a checkpoint with parts missing.
    """
    # policies lie below agents, so agents are only looked up when a file asks for one
    from dydiff_env.agents import load_agent

    try:
        return load_agent(checkpoint, device)
    except DyDiffError:
        raise
    except Exception as error:
        raise DyDiffError(
            f"{path} is an incomplete agent checkpoint ({type(error).__name__}: {error}).",
            "Save or copy the checkpoint again.",
        ) from error
