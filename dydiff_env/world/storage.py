"""A world on disk: a folder of ``world.json`` and ``world.safetensors``, and nothing that runs."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dydiff_env.data.dataset import DatasetSpec
from dydiff_env.data.normalizer import Normalizer
from dydiff_env.errors import DyDiffError
from dydiff_env.products import check_device
from dydiff_env.publish import WORLD, check_free, publish
from dydiff_env.world.error_scale import ErrorScale
from dydiff_env.world.models import Models
from dydiff_env.world.presets import Preset
from dydiff_env.world.world import World

SCHEMA = 3
"""Raised whenever older folders can no longer be read."""

# A threshold of +inf never terminates, a sharpness of +inf is a border; a start that nothing led to has NaN for the step before; not every
# observation is bounded.
INFINITE = ("threshold", "sharpness", "before_bank", "normalizer.low", "normalizer.high")

Built = TypeVar("Built", bound=nn.Module)

AGAIN = "The folder is damaged or incomplete; fit the world again, or copy it whole."


def save(world: World, path: Path, overwrite: bool) -> None:
    """What :meth:`World.save` says."""
    check_free(path, overwrite, WORLD)
    partial = path.with_name(path.name + ".saving")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_tensors(world.tensors(), partial / "world.safetensors")
    document = {"schema": SCHEMA, "spec": json.loads(world.spec.to_json()), "preset": world.preset.to_dict(), "record": world.record}
    (partial / "world.json").write_text(json.dumps(document, indent=1))
    publish(partial, path)


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors to a file.

    Raises:
        OSError: where they cannot be written; safetensors raises an error of its own kind.
    """
    try:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, path)
    except SafetensorError as error:
        raise OSError(errno.ENOSPC if "os error 28" in str(error) else errno.EIO, str(error)) from error


def load(path: Path, device: str | torch.device) -> World:
    """What :meth:`World.load` says."""
    check_device(device)
    with _readable(path):
        document, tensors = _read(path)
        spec = DatasetSpec.from_json(json.dumps(document["spec"]))
        preset = Preset.from_dict(document["preset"])
        weights = {k[7:]: v for k, v in tensors.items() if k.startswith("models.")}
        models = load_into(lambda: Models(spec, preset), weights)
        scale = None
        if preset.anchors is not None:
            scale = ErrorScale(*(tensors[f"error_scale.{k}"].to(device) for k in ("intercept", "slope")))
        normalizer = Normalizer(*(tensors[f"normalizer.{k}"] for k in ("mean", "std", "low", "high"))).to(device)
        anywhere, initial = (tensors[name].numpy() for name in ("start_bank", "initial_bank"))
        before = tensors["before_bank"].numpy() if preset.dynamics.memory else None
        world = World(spec, preset, models.to(device), normalizer, scale, anywhere, initial, before, document["record"])
        _check(world)
        return world


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    document = json.loads((path / "world.json").read_text())
    if document["schema"] != SCHEMA:
        fix = "Update dydiff-env." if document["schema"] > SCHEMA else "Fit the world again."
        raise DyDiffError(f"{path} has schema {document['schema']}, this version reads {SCHEMA}.", fix)
    tensors = load_file(path / "world.safetensors")
    for name, value in tensors.items():
        if not value.isfinite().all() and not name.endswith(INFINITE):
            raise DyDiffError(f"{path} holds numbers that are not finite, in {name}.", AGAIN)
    return document, tensors


def load_into(build: Callable[[], Built], tensors: dict[str, Tensor]) -> Built:
    """The module that ``build`` makes, with these tensors as its parameters and buffers.

    It is made without memory and takes the tensors as they are, so that no number in a damaged file asks for more than the
    file holds.

    Raises:
        ValueError, RuntimeError: where a name, a shape or the kind of number differs.
    """
    with torch.device("meta"):
        module = build()
    fitted = dict(tensors)
    for name, wanted in module.state_dict().items():
        if name in fitted and fitted[name].dtype != wanted.dtype:
            if not (fitted[name].is_floating_point() and wanted.is_floating_point()):
                raise ValueError(f"{name} is {fitted[name].dtype}, not {wanted.dtype}")
            fitted[name] = fitted[name].to(wanted.dtype)  # weights may be stored in half precision
    module.load_state_dict(fitted, assign=True)
    return module


def _check(world: World) -> None:
    """Raise ValueError where what lies beside the networks does not fit them; one step shows that they work."""
    size = world.spec.observation_size
    wanted: dict[str, tuple[Any, tuple[int, ...]]] = {
        "normalizer": (world.normalizer.mean, (size,)),
        "normalizer's deviations": (world.normalizer.std, (size,)),
        "lower edges": (world.normalizer.low, (size,)),
        "upper edges": (world.normalizer.high, (size,)),
        "start states": (world.start_bank, (len(world.start_bank), size)),
        "first states": (world.initial_bank, (len(world.initial_bank), size)),
    }
    if world.error_scale is not None:
        wanted["error scale's intercepts"] = (world.error_scale.intercept, (world.horizon, size))
        wanted["error scale's slopes"] = (world.error_scale.slope, (world.horizon, size))
    if world.before_bank is not None:
        wanted["steps before the starts"] = (world.before_bank, (len(world.start_bank), size + world.spec.action_size))
        known = np.isfinite(world.before_bank)
        if not (known.all(1) | np.isnan(world.before_bank).all(1)).all():
            raise ValueError("the steps before the starts are neither known nor unknown")
    longest = world.record["dataset"]["longest"]
    if not isinstance(longest, int) or longest < 1:
        raise ValueError(f"the longest episode has {longest!r} steps")
    for name, (values, shape) in wanted.items():
        if tuple(values.shape) != shape or not len(values) or str(values.dtype).split(".")[-1] != "float32":
            raise ValueError(f"the {name} have shape {tuple(values.shape)}, not {shape}")
    if not (world.normalizer.std > 0).all():
        raise ValueError("a deviation is not positive")
    nothing = torch.zeros(1, world.spec.action_size)
    world.dream(None, world.start_bank[:1], horizon=1, iterations=0, first_actions=nothing)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn whatever a missing or damaged folder makes of the reading into one clear error."""
    if not (path / "world.json").is_file():
        fix = "Make one with: dydiff-env fit --dataset ID --out WORLD."
        raise DyDiffError(f"{path} is not a world (it has no world.json).", fix)
    try:
        yield
    except (DyDiffError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:120]
        raise DyDiffError(
            f"{path} cannot be read as a world ({type(error).__name__}: {reason}).", AGAIN
        ) from error
