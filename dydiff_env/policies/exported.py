"""``torch.export`` programs (.pt2): observation → action."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dydiff_env.errors import DyDiffError, said


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
                f"The torch.export file cannot be read: {said(error)}",
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
        self.least, self.most = (batch, batch) if isinstance(batch, int) else _range(program, batch)

    def act(self, observations: Tensor, deterministic: bool = True) -> Tensor:
        """Actions (B, A) for observations (B, O), in blocks of a size that it was exported for."""
        return in_batches(self.module, observations.to(self.device), self.least, self.most)

    def __getstate__(self) -> dict[str, Any]:
        return {"source": self.source, "device": self.device}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def in_batches(run: Callable[[Tensor], Tensor], rows: Tensor, least: int, most: int | None) -> Tensor:
    """What ``run`` makes of rows (B, O), at least ``least`` and at most ``most`` of them at a time (None: however many).

    The last row is repeated where there are too few.
    """
    if least <= len(rows) <= (most or len(rows)):
        return run(rows)
    found = []
    for block in rows.split(most or max(1, len(rows))):
        missing = max(0, least - len(block))
        found.append(run(torch.cat([block, block[-1:].expand(missing, -1)]) if missing else block)[: len(block)])
    return torch.cat(found)


def _range(program: torch.export.ExportedProgram, batch: Any) -> tuple[int, int | None]:
    """The least and the largest batch that a dynamic size may be."""
    limits = program.range_constraints.get(batch.node.expr)
    if limits is None:
        return 1, None
    return max(1, int(limits.lower)), int(limits.upper) if limits.upper.is_Integer else None


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
