"""An agent on disk: written by one rename, read back without running code."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from dydiff_env.data.dataset import DatasetSpec
from dydiff_env.errors import DyDiffError
from dydiff_env.policies.agent import FORMAT, VERSION, read_checkpoint
from dydiff_env.products import check_device
from dydiff_env.publish import replacing

if TYPE_CHECKING:
    from dydiff_env.agents.agent import Agent

__all__ = ["best_path", "check_checkpoint", "check_room", "content_of", "files_of", "read_checkpoint", "restore", "write"]

AnyAgent = TypeVar("AnyAgent", bound="Agent")


def content_of(agent: Agent) -> dict[str, Any]:
    """Everything that acting and training on need, as tensors and plain values."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "algorithm": agent.algorithm,
        "config": {name: value.item() if isinstance(value, np.generic) else value for name, value in asdict(agent.config).items()},
        "state": dict(agent.state_dict()),
        "spec": agent.spec.to_json(),
        "world": agent.world and str(agent.world),
        "mix": agent.mix,
        "judged": agent.judged,
        "updates": agent.updates,
        "seed": agent.seed,
        "generator": agent.generator.get_state(),
        "generator_device": agent.device.type,
        "optimizers": {name: optimizer.state_dict() for name, optimizer in agent.optimizers.items()},
    }


def write(agent: Agent, path: Path) -> Path:
    """Put all of it into one file."""
    with replacing(path) as partial:
        torch.save(content_of(agent), partial)
    return path


def check_checkpoint(out: Path) -> None:
    """Make sure that a run's other files can be named after its checkpoint.

    Raises:
        DyDiffError: where it does not end in .pt.
    """
    if out.suffix != ".pt":
        raise DyDiffError(f"{out} does not end in .pt.", "Call the checkpoint NAME.pt.", usage=True)


def best_path(out: Path) -> Path:
    """Where the best agent of the run at ``out`` is kept: ``ckpt.pt`` becomes ``ckpt-best.pt``."""
    return out.with_name(f"{out.stem}-best{out.suffix}")


def files_of(out: Path) -> tuple[Path, ...]:
    """What a run at ``out`` writes: the last checkpoint, the best one, and the log."""
    return out, best_path(out), out.with_suffix(".csv")


def check_room(out: Path, replaces: bool, policy: object = None) -> None:
    """Make sure that a run at ``out`` costs nothing that was not meant to go.

    Args:
        out: its checkpoint.
        replaces: whether it may take an older run's place, or go on with it.
        policy: what it begins with, where that may be a file.

    Raises:
        DyDiffError: for another ending than .pt, files that are there, or where the policy would be written over.
    """
    check_checkpoint(out)
    given = Path(policy).expanduser() if isinstance(policy, str | Path) else None
    for path in files_of(out):
        if not path.exists():
            continue
        if given is not None and given.exists() and path.samefile(given):
            raise DyDiffError(f"{path} is the policy one begins with.", "Give --out (out) another name.", usage=True)
        if not replaces:
            raise DyDiffError(f"{path} exists.", "Give --overwrite or --resume (overwrite=True, resume=True).", usage=True)


def restore(cls: type[AnyAgent], content: dict[str, Any], device: torch.device | str = "cpu") -> AnyAgent:
    """The agent in what ``content_of`` gave or ``read_checkpoint`` read.

    Args:
        cls: of the agent.
        content: of the checkpoint.
        device: where its networks go.

    Raises:
        DyDiffError: where the content does not fit the class.
    """
    check_device(device)
    try:
        fields = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in content["config"].items()
        }
        agent = cls(
            DatasetSpec.from_json(content["spec"]),
            cls.config_class(**fields),
            seed=content["seed"],
            device=device,
            world=content["world"],
        )
        agent.load_state_dict(content["state"])
        agent.updates, agent.mix, agent.judged = content["updates"], content["mix"], content["judged"]
        for name, optimizer in agent.optimizers.items():
            optimizer.load_state_dict(content["optimizers"][name])
        # The state of a CPU's generator means nothing to a GPU's: noise is drawn from the seed again.
        if content["generator_device"] == agent.device.type:
            agent.generator.set_state(content["generator"])
        return agent
    except torch.OutOfMemoryError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DyDiffError(
            f"The checkpoint does not fit this version's {cls.algorithm} ({type(error).__name__}).",
            "Train the agent again, or use the version that wrote it.",
        ) from error
