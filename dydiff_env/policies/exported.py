"""``torch.export`` programs (.pt2): observation → action."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dydiff_env.errors import DyDiffError


class ExportedPolicy:
    """A program from ``torch.export.save``, with a dynamic batch size or a fixed one.

    Args:
        source: the file's bytes (kept: programs do not pickle).
        device: where it runs.
    """

    def __init__(self, source: bytes, device: str) -> None:
        self.source, self.device = source, device
        try:
            program = torch.export.load(io.BytesIO(source))
        except Exception as error:
            raise DyDiffError(
                f"The torch.export file cannot be read: {str(error).splitlines()[0]}",
                "Export it again with this version of torch.",
            ) from error
        if device != "cpu":
            program = _moved(program, device)
        self.module = program.module().to(device)
        inputs = [
            spec.arg.name for spec in program.graph_signature.input_specs if spec.kind.name == "USER_INPUT"
        ]
        shapes = {
            node.name: node.meta["val"].shape for node in program.graph.nodes if node.op == "placeholder"
        }
        batch = shapes[inputs[0]][0]
        self.batch = batch if isinstance(batch, int) else None  # a fixed batch size, or None

    def act(self, observations: Tensor, deterministic: bool = True) -> Tensor:
        """Actions (B, A) for observations (B, O), in blocks of the batch size where that is fixed."""
        observations = observations.to(self.device)
        if self.batch is None:
            return self.module(observations)
        missing = -len(observations) % self.batch
        padded = torch.cat([observations, observations[-1:].expand(missing, -1)])
        return torch.cat([self.module(block) for block in padded.split(self.batch)])[: len(observations)]

    def __getstate__(self) -> dict[str, Any]:
        return {"source": self.source, "device": self.device}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def load(path: Path, device: str) -> ExportedPolicy:
    """The policy in a .pt2 file, whose constants ``torch.export.load`` unpickles: only for trusted files.

    Raises:
        DyDiffError: when the file cannot be read.
    """
    return ExportedPolicy(path.read_bytes(), device)


def _moved(program: torch.export.ExportedProgram, device: str) -> torch.export.ExportedProgram:
    """The program with the devices that are written into its graph changed, where this torch can do that."""
    try:
        from torch.export.passes import move_to_device_pass
    except ImportError:  # before 2.7
        return program
    return move_to_device_pass(program, device)
