"""TorchScript modules: observation → action, normalisation and all inside the file."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dydiff_env.errors import DyDiffError, said

REACHING_OUT = re.compile(rb"\b(from_file|save|rpc_\w+)\b|\bops\b(?!\.(?:aten|prim|quantized)\b)")
"""Names in TorchScript of what writes files or leaves the process; the rest of the language only computes."""


def reaches_out(path: Path) -> str | None:
    """The first call in a TorchScript file that could touch more than tensors, or None. Nothing is executed."""
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():  # each one: of two of the same name torch may read the other
                if not entry.filename.lower().endswith((".py", "model.json")):
                    continue
                if entry.filename.lower().endswith("model.json"):
                    return "an old format's code"
                if found := REACHING_OUT.search(archive.read(entry)):
                    return found.group().decode()
    except Exception as error:  # zlib, encryption, offsets: an archive can be damaged in many ways
        raise DyDiffError(
            f"{path} is a damaged archive ({type(error).__name__}).", "Save or copy the file again."
        ) from error
    return None


class TorchScriptPolicy:
    """A scripted or traced module from (B, O) observations to (B, A) actions.

    It is as deterministic as the module: ``deterministic`` has nothing to switch in it.
    The file's bytes are kept, since a script module itself cannot be pickled.

    Args:
        source: the file's bytes.
        device: where it runs.
    """

    def __init__(self, source: bytes, device: str) -> None:
        self.source, self.device = source, device
        try:
            self.module = torch.jit.load(io.BytesIO(source), map_location=device).eval()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            reason = said(error)
            raise DyDiffError(
                f"The TorchScript file cannot be read: {reason}",
                "Save or copy the file again.",
            ) from error

    def act(self, observations: Tensor, deterministic: bool = True) -> Tensor:
        """Actions (B, A) for observations (B, O)."""
        return self.module(observations.to(self.device))

    def __getstate__(self) -> dict[str, Any]:
        return {"source": self.source, "device": self.device}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def load(path: Path, device: str) -> TorchScriptPolicy:
    """The policy in a TorchScript file.

    Raises:
        DyDiffError: when the file is damaged.
    """
    return TorchScriptPolicy(path.read_bytes(), device)
