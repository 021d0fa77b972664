"""Data-parallel training: the processes that Accelerate's (or torch's) launcher started on one machine train one model."""

from __future__ import annotations

import atexit
import gc
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from dydiff_env.errors import DyDiffError


@dataclass(frozen=True)
class Processes:
    """The processes at work on one model. All of them call each method in the same order; alone, a method does nothing.

    Args:
        rank: which of them this is.
        count: how many they are.
    """

    rank: int = 0
    count: int = 1

    @property
    def main(self) -> bool:
        """Whether this is the one that writes files and shows progress."""
        return self.rank == 0

    def share(self, rows: int) -> int:
        """Rows of a batch that each process draws, so that together they are at least ``rows``."""
        return -(-rows // self.count)

    def draws(self, generator: torch.Generator) -> torch.Generator:
        """A generator of this process's own for one step.

        The given one moves on alike everywhere: a checkpoint of it resumes all processes, and another number of them.
        """
        if self.count == 1:
            return generator
        seed = int(torch.randint(2**62, (), generator=generator))
        return torch.Generator().manual_seed(seed + self.rank)

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()

    def tell(self, value: Any) -> Any:
        """The main process's ``value``, everywhere."""
        if self.count == 1:
            return value
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([value])[0]

    def equalize(self, module: nn.Module) -> None:
        """Give every process the main one's parameters and buffers."""
        if self.count > 1:
            from accelerate.utils import broadcast

            broadcast(list(module.state_dict().values()))

    @torch.no_grad()
    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by their mean over the processes, in one message."""
        if self.count == 1:
            return
        from accelerate.utils import reduce

        mine = list(tensors)
        mean = reduce(torch.cat([tensor.reshape(-1) for tensor in mine]), "mean")
        for tensor, part in zip(mine, mean.split([tensor.numel() for tensor in mine]), strict=True):
            tensor.copy_(part.view_as(tensor))


def processes(device: torch.device | str) -> Processes:
    """Those that a launcher started together with this one, or this one alone.

    Args:
        device: where they train. Of "cuda", each takes a device of its own.

    Raises:
        DyDiffError: where they are several and cannot work together.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1 or "LOCAL_RANK" not in os.environ:
        return Processes()
    if int(os.environ.get("LOCAL_WORLD_SIZE", count)) != count:
        raise DyDiffError("A fit runs on one machine.", "Start all its processes there.", usage=True)
    return _join(torch.device(device).type == "cpu")


@cache
def _join(cpu: bool) -> Processes:
    try:
        from accelerate import PartialState
    except ImportError as error:
        fix = 'pip install "dydiff-env[accelerate]", or start one process.'
        raise DyDiffError("Processes that fit together need Accelerate.", fix) from error
    state = PartialState(cpu=cpu)
    if state.num_processes == 1:  # Accelerate gives up silently, and all would write the same files
        raise DyDiffError("Accelerate cannot join the processes on this device.", "Use --device cpu or cuda.")
    atexit.register(_leave, state)
    return Processes(state.process_index, state.num_processes)


def _leave(state: Any) -> None:
    """End the group while the interpreter lives: a thread of it that wants the interpreter's lock later aborts the process."""
    state.destroy_process_group()
    gc.collect()  # whatever still holds the group keeps its threads
