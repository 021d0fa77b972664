"""Python objects as policies: a function, something with ``act``, or something with SB3's ``predict``."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from dydiff_env.data.flattening import canonical, unflatten_batch
from dydiff_env.errors import DyDiffError
from dydiff_env.policies.sb3 import SB3Policy


class FunctionPolicy:
    """A Python object that acts on a batch, whichever way it is called.

    Args:
        target: has ``act(observations, deterministic)``, or SB3's ``predict(observations, deterministic=…)``
            on NumPy (batches of its Dict space where it has one), or is itself callable on a (B, O) tensor, with or
            without ``deterministic``.

    Raises:
        DyDiffError: when it is none of these.
    """

    def __init__(self, target: Any) -> None:
        self.target = target
        if not (hasattr(target, "act") or hasattr(target, "predict") or callable(target)):
            raise DyDiffError(
                f"{target!r} is not a policy.",
                "Pass a path, a callable on (B, O) tensors, or an object with act or predict.",
            )
        normalizing = getattr(target, "get_vec_normalize_env", None)
        if normalizing is not None and (statistics := normalizing()) is not None:
            self.target = SB3Policy(target.policy, statistics)  # predict() alone would see what no VecNormalize has scaled
        self.switchable = not hasattr(target, "act") and callable(target) and _takes_deterministic(target)

    def act(self, observations: Tensor, deterministic: bool = True) -> Tensor:
        """Actions (B, A) for observations (B, O); a module is asked on its own device, anything else on the processor."""
        weight = next(self.target.parameters(), None) if isinstance(self.target, nn.Module) else None
        observations = observations.to("cpu" if weight is None else weight.device)
        if hasattr(self.target, "act"):
            return self.target.act(observations, deterministic)
        if hasattr(self.target, "predict"):
            rows: Any = observations.cpu().numpy()
            space = getattr(self.target, "observation_space", None)
            if isinstance(space, gym.spaces.Dict | gym.spaces.Box) and rows.shape[-1] == gym.spaces.flatdim(space):
                rows = unflatten_batch(canonical(space), rows)
            actions = self.target.predict(rows, deterministic=deterministic)
            return torch.as_tensor(actions[0] if isinstance(actions, tuple) else actions).reshape(len(observations), -1)
        arguments = {"deterministic": deterministic} if self.switchable else {}
        return torch.as_tensor(self.target(observations, **arguments))


def load(name: str) -> Any:
    """The object named ``package.module:callable``; the working folder is importable, a class is called.

    Raises:
        DyDiffError: when the module or the name does not exist.
    """
    module_name, _, attribute = name.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        target: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            target = getattr(target, part)
    except (ImportError, AttributeError) as error:
        raise DyDiffError(
            f"The policy {name} cannot be imported: {error}.",
            "Write it as package.module:callable, importable from here.",
        ) from error
    finally:
        sys.path.remove(str(Path.cwd()))
    return target() if inspect.isclass(target) else target


def fingerprint(target: Any) -> str:
    """A digest of the object's source where Python can find it, else of its name, and of the weights it holds."""
    thing = target if inspect.isroutine(target) else type(target)
    try:
        text = inspect.getsource(thing)
    except (OSError, TypeError):
        text = f"{thing.__module__}.{thing.__qualname__}"
    digest = hashlib.sha256(text.encode())
    for holder in (target, getattr(target, "policy", None)):  # a module, or what an SB3 algorithm acts with
        if isinstance(holder, nn.Module):
            for name, value in holder.state_dict().items():
                if isinstance(value, Tensor):
                    plain = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)  # NumPy knows no bfloat16
                    digest.update(name.encode() + plain.numpy().tobytes())
    return digest.hexdigest()


def _takes_deterministic(target: Any) -> bool:
    try:
        return "deterministic" in inspect.signature(target).parameters
    except (TypeError, ValueError):
        return False
