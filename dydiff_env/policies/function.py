"""Python objects as policies: a function, something with ``act``, or something with the ``predict`` of SB3 or d3rlpy."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import random
import sys
from collections.abc import Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from dydiff_env.data.flattening import canonical, unflatten_batch
from dydiff_env.errors import DyDiffError
from dydiff_env.policies.sb3 import SB3Policy

DEEPEST = 12  # levels of things held by things that a fingerprint looks into
NOT_ACTING = (torch.optim.Optimizer, gym.Space)  # what a module may hold besides what it acts by
GENERATORS = (random.Random, np.random.Generator, np.random.RandomState, torch.Generator)  # where a draw stands is no part of a policy


class FunctionPolicy:
    """A Python object that acts on a batch, whichever way it is called.

    Args:
        target: has ``act(observations, deterministic)``, or SB3's ``predict(observations, deterministic=…)``
            on NumPy (batches of its Dict space where it has one), or d3rlpy's ``predict(observations)`` and, for draws,
            ``sample_action(observations)``, or is itself callable on a (B, O) tensor, with or without ``deterministic``.

    Raises:
        DyDiffError: when it is none of these, or a recurrent SB3 model.
    """

    def __init__(self, target: Any) -> None:
        self.target = target
        if any("Recurrent" in base.__name__ for base in type(getattr(target, "policy", target)).__mro__):
            raise DyDiffError("The policy is recurrent.", "Use a policy that acts on the present observation.")
        if not (hasattr(target, "act") or hasattr(target, "predict") or callable(target)):
            raise DyDiffError(
                f"{target!r} is not a policy.",
                "Pass a path, a callable on (B, O) tensors, or an object with act or predict.",
            )
        normalizing = getattr(target, "get_vec_normalize_env", None)
        statistics, explores = normalizing() if normalizing else None, bool(getattr(target, "use_sde", False))
        if normalizing and (statistics is not None or explores):
            # predict() alone would see what no VecNormalize has scaled, and explore by one draw for ever
            self.target = SB3Policy(target.policy, statistics, explores)
        self.switchable = not hasattr(target, "act") and callable(target) and _takes_deterministic(target)
        self.predict: Any = getattr(self.target, "predict", None)
        self.sample: Any = getattr(self.target, "sample_action", self.predict)
        if self.predict is not None and _takes_deterministic(self.predict, by_any_name=True):
            self.predict, self.sample = (partial(self.predict, deterministic=choice) for choice in (True, False))

    def act(self, observations: Tensor, deterministic: bool = True) -> Tensor:
        """Actions (B, A) for observations (B, O); a module is asked on its own device, anything else on the processor."""
        held = chain(self.target.parameters(), self.target.buffers()) if isinstance(self.target, nn.Module) else ()
        weight: Tensor | None = next(iter(held), None)
        observations = observations.to("cpu" if weight is None else weight.device)
        if hasattr(self.target, "act"):
            return self.target.act(observations, deterministic)
        if self.predict is not None:
            rows: Any = observations.cpu().numpy()
            space = getattr(self.target, "observation_space", None)
            if isinstance(space, gym.spaces.Dict | gym.spaces.Box) and rows.shape[-1] == gym.spaces.flatdim(space):
                rows = unflatten_batch(canonical(space), rows)
            actions = self.predict(rows) if deterministic else self.sample(rows)
            return torch.as_tensor(actions[0] if isinstance(actions, tuple) else actions).reshape(len(observations), -1)
        arguments = {"deterministic": deterministic} if self.switchable else {}
        return self.target(observations, **arguments)


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
    """A digest of the object's source where Python can find it, else of its name, and of the weights, values and functions it holds."""
    digest = hashlib.sha256()
    _digest(target, digest, {}, DEEPEST)
    return digest.hexdigest()


def _digest(value: Any, digest: hashlib._Hash, seen: dict[int, Any], depth: int) -> None:
    """Add what decides how a value acts: of plain values all, of other objects the class, and what they hold in turn."""
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        digest.update(f"{type(value).__name__}:{value!r};".encode())
        return
    if id(value) in seen:
        return
    seen[id(value)] = value  # held, so that no other thing gets its number
    parts: Any = ()
    if isinstance(value, Tensor):
        plain = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)  # NumPy knows no bfloat16
        digest.update(f"{tuple(value.shape)}{value.dtype}".encode() + plain.numpy().tobytes())
    elif isinstance(value, (np.ndarray, np.generic)) and value.dtype != object:
        digest.update(f"{value.shape}{value.dtype}".encode() + np.ascontiguousarray(value).tobytes())
    elif isinstance(value, nn.Module):
        digest.update(_source(type(value)))
        if made := getattr(value, "_get_constructor_parameters", None):  # SB3's: what it holds besides changes with every action
            given = {key: repr(part) if isinstance(part, gym.Space) else part for key, part in made().items()}
            own = [_source(type(part)) if hasattr(part, "_get_constructor_parameters") else _held(part) for part in value.modules()]
            parts = (value.state_dict(), own, given)
        else:
            parts = (value.training, value.state_dict(), dict(value.named_buffers()), [_held(part) for part in value.modules()])
    elif isinstance(value, Mapping):
        parts = [*value.items()]
    elif isinstance(value, (list, tuple, set, frozenset)):
        parts = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
    elif isinstance(value, partial):
        parts = (value.func, value.args, value.keywords)
    elif inspect.ismethod(value):
        parts = (value.__func__, value.__self__)
    elif inspect.isroutine(value):
        digest.update(_source(value))
        parts = (getattr(value, "__defaults__", None), getattr(value, "__kwdefaults__", None), _named(value))
    elif not inspect.isclass(value) and not inspect.ismodule(value) and not isinstance(value, GENERATORS):
        digest.update(_source(type(value)))
        algorithm = getattr(value, "policy", None)  # what an SB3 algorithm acts with; it holds a whole training besides
        statistics = getattr(value, "get_vec_normalize_env", lambda: None)
        parts = (algorithm, _state(statistics())) if isinstance(algorithm, nn.Module) else (_state(value),)
    digest.update(f"{type(value).__qualname__}(".encode())
    for part in parts if depth else ():
        _digest(part, digest, seen, depth - 1)
    digest.update(b")")


def _held(module: nn.Module) -> list[Any]:
    """What decides how a module acts besides its weights: its class, and the values that it was given."""
    own = vars(nn.Module()).keys()
    values = {key: value for key, value in vars(module).items() if key not in own and not isinstance(value, NOT_ACTING)}
    return [_source(type(module)), values]


def _source(thing: Any) -> bytes:
    try:
        return inspect.getsource(thing).encode()
    except (OSError, TypeError):
        return f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', type(thing).__qualname__)}".encode()


def _state(value: Any) -> Any:
    """What an object holds, as it tells pickle itself where it does: a VecNormalize leaves out its environments."""
    try:
        return value.__getstate__()
    except Exception:  # Python 3.10 gives objects none of their own, and some only say there that they cannot be pickled
        return getattr(value, "__dict__", None)


def _named(function: Any) -> list[tuple[str, Any]]:
    """What a function refers to by name, outside itself: values, and functions of its own module."""
    try:
        found = inspect.getclosurevars(function)
    except (TypeError, ValueError):
        return []
    own = function.__module__
    return [
        (name, value)
        for name, value in sorted({**found.globals, **found.nonlocals}.items())
        if not inspect.ismodule(value) and not inspect.isclass(value) and (not inspect.isroutine(value) or value.__module__ == own)
    ]


def _takes_deterministic(target: Any, by_any_name: bool = False) -> bool:
    """Whether ``deterministic`` is an argument, or, ``by_any_name``, one of ``**arguments``."""
    try:  # a module's own signature is that of any module
        wanted = inspect.signature(target.forward if isinstance(target, nn.Module) else target).parameters
    except (TypeError, ValueError):
        return False
    return "deterministic" in wanted or (by_any_name and any(one.kind is one.VAR_KEYWORD for one in wanted.values()))
