"""Our own agent checkpoints: a dictionary of tensors and plain values, loaded without unpickling code."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from dydiff_env.errors import DyDiffError
from dydiff_env.policies.policy import Policy

FORMAT, VERSION = "dydiff-env-agent", 1


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The checkpoint's dictionary, on the CPU; reading runs no code.

    Raises:
        DyDiffError: where the file is missing, broken, no agent's checkpoint, or of a later version.
    """
    try:
        checkpoint = torch.load(Path(path).expanduser(), map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise DyDiffError(f"There is no checkpoint {path}.", "Make one with `dydiff-env train`.") from None
    except pickle.UnpicklingError:
        raise DyDiffError(
            f"{path} is no agent checkpoint: it is damaged, or holds pickled Python objects.",
            "Give a file that `dydiff-env train` wrote, or export the policy with torch.jit.trace.",
        ) from None
    except Exception as error:  # torch raises a different type for each way a file can be broken
        raise DyDiffError(
            f"{path} is not a readable checkpoint ({type(error).__name__}).",
            "Give a file that `dydiff-env train` wrote; write it again if it was cut short.",
        ) from None
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != FORMAT:
        raise DyDiffError(
            f"{path} holds tensors, but no agent checkpoint of dydiff-env.",
            "A bare state_dict has no network: export it with torch.jit.script or torch.jit.trace.",
        )
    version, world = checkpoint.get("version"), checkpoint.get("world")
    if type(version) is not int or not isinstance(world, str | None) or not isinstance(checkpoint.get("spec"), str):
        raise DyDiffError(
            f"{path} is a damaged agent checkpoint: version {version!r}, world {world!r}, spaces {str(checkpoint.get('spec'))[:20]!r}.",
            "Save or copy the checkpoint again.",
        )
    if version > VERSION:
        raise DyDiffError(f"{path} has version {version}, newer than {VERSION}.", "Update dydiff-env.")
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
    except (DyDiffError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise DyDiffError(
            f"{path} is an incomplete agent checkpoint ({type(error).__name__}: {error}).",
            "Save or copy the checkpoint again.",
        ) from error
