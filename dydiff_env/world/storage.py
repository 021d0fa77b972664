"""A world on disk: a folder of ``world.json`` and ``world.safetensors``, and nothing that runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dydiff_env.errors import DyDiffError
from dydiff_env.publish import WORLD, check_free, publish

SCHEMA = 2
"""Raised whenever older folders can no longer be read."""

Built = TypeVar("Built", bound=nn.Module)

AGAIN = "The folder is damaged or incomplete; fit the world again, or copy it whole."


def write(path: Path, document: dict[str, Any], tensors: dict[str, Tensor], overwrite: bool) -> None:
    """Make the folder ``path``, whole or not at all.

    Raises:
        DyDiffError: where it exists and ``overwrite`` is False.
    """
    check_free(path, overwrite, WORLD)
    partial = path.with_name(path.name + ".saving")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, partial / "world.safetensors")
    (partial / "world.json").write_text(json.dumps({"schema": SCHEMA, **document}, indent=1))
    publish(partial, path)


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What :func:`write` wrote. Use it inside :func:`readable`."""
    document = json.loads((path / "world.json").read_text())
    if document["schema"] != SCHEMA:
        fix = "Update dydiff-env." if document["schema"] > SCHEMA else "Fit the world again."
        raise DyDiffError(f"{path} has schema {document['schema']}, this version reads {SCHEMA}.", fix)
    tensors = load_file(path / "world.safetensors")
    for name, value in tensors.items():
        # A threshold of +inf never terminates; a start that nothing led to has NaN for the step before; not every observation is bounded.
        if not value.isfinite().all() and not name.endswith(("threshold", "before_bank", "normalizer.low", "normalizer.high")):
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


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn whatever a missing or damaged folder makes of the reading into one clear error."""
    if not (path / "world.json").is_file():
        fix = "Make one with: dydiff-env fit --dataset ID --out WORLD."
        raise DyDiffError(f"{path} is not a world (it has no world.json).", fix)
    try:
        yield
    except DyDiffError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0][:120] if str(error) else ""
        raise DyDiffError(
            f"{path} cannot be read as a world ({type(error).__name__}: {reason}).", AGAIN
        ) from error
