"""A world on disk: a folder of ``world.json`` and ``world.safetensors``, and nothing that runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dydiff_env.errors import DyDiffError

SCHEMA = 2
"""Raised whenever older folders can no longer be read."""

AGAIN = "The folder is damaged or incomplete; fit the world again, or copy it whole."


DAMAGE = (
    OSError,
    SafetensorError,
    KeyError,
    TypeError,
    ValueError,
    RuntimeError,
    AttributeError,
    AssertionError,
)
"""What a damaged file makes of its reading."""


def write(path: Path, document: dict[str, Any], tensors: dict[str, Tensor], overwrite: bool) -> None:
    """Make the folder ``path``, whole or not at all.

    Raises:
        DyDiffError: where it exists and ``overwrite`` is False.
    """
    if path.exists() and not overwrite:
        raise DyDiffError(
            f"{path} exists.", "Choose another folder, or pass overwrite=True (--overwrite).", usage=True
        )
    partial = path.with_name(path.name + ".saving")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, partial / "world.safetensors")
    (partial / "world.json").write_text(json.dumps({"schema": SCHEMA, **document}, indent=1))
    if path.exists():
        shutil.rmtree(path)
    partial.rename(path)


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What :func:`write` wrote. Use it inside :func:`readable`."""
    document = json.loads((path / "world.json").read_text())
    if document["schema"] != SCHEMA:
        fix = "Update dydiff-env." if document["schema"] > SCHEMA else "Fit the world again."
        raise DyDiffError(f"{path} has schema {document['schema']}, this version reads {SCHEMA}.", fix)
    tensors = load_file(path / "world.safetensors")
    for name, value in tensors.items():
        if not value.isfinite().all() and not name.endswith("threshold"):  # +inf there: never terminates
            raise DyDiffError(f"{path} holds numbers that are not finite, in {name}.", AGAIN)
    return document, tensors


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn whatever a missing or damaged folder makes of the reading into one clear error."""
    if not (path / "world.json").is_file():
        fix = "Make one with: dydiff-env fit --dataset ID --out WORLD."
        raise DyDiffError(f"{path} is not a world (it has no world.json).", fix)
    try:
        yield
    except DAMAGE as error:
        reason = str(error).splitlines()[0][:120] if str(error) else ""
        raise DyDiffError(
            f"{path} cannot be read as a world ({type(error).__name__}: {reason}).", AGAIN
        ) from error
