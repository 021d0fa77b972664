"""What a policy file is, found from its content, not from its name."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from dydiff_env.errors import DyDiffError, meant

NAMES = ("random", "behavior", "demo")
KNOWN = (
    "a dydiff-env agent (.pt), TorchScript (.pt), torch.export (.pt2), Stable-Baselines3 (.zip), "
    "d3rlpy (.d3), ONNX (.onnx), module:callable, random, behavior or demo"
)


def names_code(text: str) -> bool:
    """Whether this is ``module:callable``, and not a path with a colon, as every one on a Windows drive is."""
    return re.fullmatch(r"[\w.]+:[\w.]+", text) is not None


def file_kind(path: Path) -> str:
    """The format of a policy file: agent, torchscript, export, sb3, d3rlpy or onnx. Nothing is executed.

    Raises:
        DyDiffError: for a missing, empty, damaged or unknown file.
    """
    if not path.is_file():
        beside = [str(path.with_name(file.name)) for file in path.parent.iterdir()] if path.parent.is_dir() else []
        near = meant(str(path), [*beside, *NAMES])
        raise DyDiffError(f"There is no policy file {path}.", f"{near}A policy is {KNOWN}.")
    with path.open("rb") as file:
        head = file.read(4)
    if head[:2] == b"PK":
        return _archive_kind(path)
    if head[:1] == b"\x80":  # the first opcode of a pickle; d3rlpy 2 pickles one dictionary
        return "d3rlpy"
    if head[:1] == b"\x08" and path.stat().st_size > 64:  # field 1 of ModelProto, ir_version, a varint
        return "onnx"
    raise DyDiffError(f"{path} is not a policy that can be recognised.", f"A policy is {KNOWN}.")


def _archive_kind(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.split("/", 1)[-1] for name in archive.namelist()} | set(archive.namelist())
    except Exception as error:  # BadZipFile, and what else a damaged directory of an archive leads to
        raise DyDiffError(f"{path} is a damaged archive.", "Save or copy the checkpoint again.") from error
    if "_stable_baselines3_version" in names or {"data", "policy.pth"} <= names:
        return "sb3"
    if "archive_format" in names or "serialized_exported_program.json" in names:
        return "export"
    if "constants.pkl" in names and any(name.startswith("code/") for name in names):
        return "torchscript"
    if "data.pkl" in names:
        return "agent"
    raise DyDiffError(f"{path} is an archive, but not of a policy.", f"A policy is {KNOWN}.")
