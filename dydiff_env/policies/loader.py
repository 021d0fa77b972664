"""``load_policy``: any checkpoint, any format, one protocol."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import torch

import dydiff_env.embedded as embedded
from dydiff_env.errors import DyDiffError, Note
from dydiff_env.policies import agent, behavior, d3, exported, function, onnx, sb3, torchscript
from dydiff_env.policies.bounded import BoundedPolicy
from dydiff_env.policies.kinds import file_kind, names_code
from dydiff_env.policies.policy import Policy
from dydiff_env.policies.uniform import UniformPolicy
from dydiff_env.products import check_device

if TYPE_CHECKING:
    from dydiff_env.data.dataset import DatasetSpec

UNPICKLES = {
    "sb3": "Stable-Baselines3 unpickles Python objects when it loads a checkpoint",
    "d3rlpy": "d3rlpy unpickles Python objects when it loads a checkpoint",
    "export": "torch.export unpickles constants and evaluates expressions when it loads a program",
}


def load_policy(
    path_or_name: Any,
    spec: DatasetSpec | None = None,
    *,
    trust: bool = False,
    vecnormalize: str | Path | None = None,
    device: str = "cpu",
) -> BoundedPolicy:
    """Load a policy, whatever made it.

    Args:
        path_or_name: a file (dydiff-env agent, TorchScript, torch.export, SB3 or sb3-contrib, d3rlpy, ONNX;
            told apart by content), ``package.module:callable``, ``random``, ``behavior`` (a clone), ``demo``
            (the policy of the embedded world), or what :func:`as_policy` takes.
        spec: spaces of the source dataset, to check the policy against; agents and SB3 files carry their own.
        trust: allow formats whose loading can run code from the file.
        vecnormalize: SB3's VecNormalize statistics, for an SB3 checkpoint.
        device: where torch policies run.

    Returns:
        The policy; actions are clipped to the action space and sizes already checked.

    Raises:
        DyDiffError: for a missing, damaged, untrusted or unknown file, or one whose sizes do not match.
    """
    check_device(device)
    if not isinstance(path_or_name, str | Path):
        return as_policy(path_or_name, _spec(spec, "An object in memory"), vecnormalize=vecnormalize)
    text, path = str(path_or_name), Path(path_or_name).expanduser()
    named = text in ("random", "behavior", embedded.NAME) or names_code(text)  # else a file that is not there is told of below
    if vecnormalize is not None and ((named and not path.is_file()) or (path.is_file() and file_kind(path) != "sb3")):
        raise DyDiffError(
            f"vecnormalize goes with a Stable-Baselines3 checkpoint, which {text} is not.",
            "Leave it out.",
            usage=True,
        )
    if not path.is_file():  # a folder may be called as a policy is: `dydiff-env demo` makes one
        if text == embedded.NAME:
            return _load_file(embedded.POLICY, "agent", spec, None, device)
        if text == "random":
            return _bound(
                UniformPolicy(_spec(spec, text).action_space), spec, kind="random", fingerprint="random"
            )
        if text == "behavior":
            clone = behavior.load(_spec(spec, text), device)
            return _bound(clone, spec, kind="behavior", fingerprint=_spec(spec, text).fingerprint)
        if names_code(text):
            return as_policy(function.load(text), _spec(spec, text))
    kind = file_kind(path)
    if kind in UNPICKLES and not trust:
        raise DyDiffError(
            f"{path} is a {kind} file, and {UNPICKLES[kind]}: such a file can run any code.",
            "If you trust where it came from, pass --trust; in Python, load_policy(FILE, trust=True).",
            usage=True,
        )
    if kind == "torchscript" and not trust and (call := torchscript.reaches_out(path)):
        raise DyDiffError(
            f"{path} calls {call}, which can reach files or other machines.",
            "If you trust where it came from, pass --trust; in Python, load_policy(FILE, trust=True).",
            usage=True,
        )
    return _load_file(path, kind, spec, None if vecnormalize is None else Path(vecnormalize).expanduser(), device)


def as_policy(policy: Any, spec: DatasetSpec, **options: Any) -> BoundedPolicy:
    """A policy from whatever a user holds: a path or name (``options`` go to ``load_policy``), a Policy,
    an SB3 or d3rlpy algorithm, or a callable on (B, O) tensors.

    Raises:
        DyDiffError: when it is none of these, or its sizes do not match ``spec``.
    """
    if isinstance(policy, (str, Path)):
        return load_policy(policy, spec, **options)
    if options.get("vecnormalize") is not None:
        raise DyDiffError(
            "vecnormalize goes with a checkpoint file, not with an object in memory.",
            "Pass the .zip, or load the model with env=VecNormalize.load(FILE, venv).",
            usage=True,
        )
    if isinstance(policy, BoundedPolicy):
        _same_sizes(policy, spec)
        return policy
    return _bound(
        function.FunctionPolicy(policy), spec, kind="callable", fingerprint=function.fingerprint(policy)
    )


def _load_file(
    path: Path, kind: str, spec: DatasetSpec | None, vecnormalize: Path | None, device: str
) -> BoundedPolicy:
    digest = hashlib.sha256(
        path.read_bytes() + (vecnormalize.read_bytes() if vecnormalize and vecnormalize.is_file() else b"")
    ).hexdigest()
    if kind == "agent":
        from dydiff_env.data.dataset import DatasetSpec

        checkpoint = agent.read_checkpoint(path)
        trained = agent.load(path, checkpoint, device)
        loaded = _bound(
            trained,
            DatasetSpec.from_json(checkpoint["spec"]),
            kind=checkpoint["algorithm"],
            fingerprint=digest,
            world=checkpoint.get("world"),
        )
        if spec is None:
            return loaded
        _same_sizes(loaded, spec)
        return _bound(trained, spec, kind=loaded.kind, fingerprint=digest, world=loaded.world)
    if kind == "sb3":
        network = sb3.load(path, vecnormalize, device)
        loaded = BoundedPolicy(
            network, network.observation_space, network.action_space, kind=kind, fingerprint=digest
        )
        if spec is None:
            return loaded
        _same_sizes(loaded, spec)
        bound = _bound(network, spec, kind=kind, fingerprint=digest)
        if not (torch.allclose(loaded.low, bound.low) and torch.allclose(loaded.high, bound.high)):
            warnings.warn(
                f"{path.name} acts within {loaded.low.tolist()} to {loaded.high.tolist()}, the data within {bound.low.tolist()} to "
                f"{bound.high.tolist()}: was it trained behind a wrapper that rescales actions?", Note, stacklevel=2,
            )
        return bound
    policy: Policy
    if kind == "torchscript":
        policy = torchscript.load(path, device)
    elif kind == "export":
        policy = exported.load(path, device)
    elif kind == "onnx":
        policy = onnx.load(path)
        digest = hashlib.sha256(policy.source).hexdigest()  # its weights may lie in a second file
    else:
        policy = d3.load(path, device)
    return _bound(policy, _spec(spec, str(path)), kind=kind, fingerprint=digest)


def _bound(policy: Policy, spec: DatasetSpec | None, **about: Any) -> BoundedPolicy:
    assert spec is not None
    return BoundedPolicy(policy, spec.observation_space, spec.action_space, **about)


def _spec(spec: DatasetSpec | None, name: str) -> DatasetSpec:
    if spec is None:
        raise DyDiffError(
            f"{name} does not say which spaces it acts in.", "Pass spec=world.spec or dataset.spec."
        )
    return spec


def _same_sizes(policy: BoundedPolicy, spec: DatasetSpec) -> None:
    for name, own, space in (
        ("observations", policy.observation_size, spec.observation_space),
        ("actions", policy.action_size, spec.action_space),
    ):
        if own != gym.spaces.flatdim(space):
            raise DyDiffError(
                f"The {policy.kind} policy has {name} of size {own}, "
                f"but these are of size {gym.spaces.flatdim(space)}.",
                "Use a policy made for the world's source environment.",
            )
