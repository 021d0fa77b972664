"""d3rlpy 2 checkpoints (.d3), through d3rlpy itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dydiff_env.errors import DyDiffError


class D3Policy:
    """A d3rlpy algorithm; its own scalers apply.

    Args:
        algorithm: what ``d3rlpy.load_learnable`` returns.
    """

    def __init__(self, algorithm: Any) -> None:
        self.algorithm = algorithm

    def act(self, observations: Tensor, deterministic: bool = True) -> Tensor:
        """Actions (B, A): the greedy ones, or samples."""
        arrays = observations.cpu().numpy()
        choose = self.algorithm.predict if deterministic else self.algorithm.sample_action
        return torch.as_tensor(choose(arrays))


def load(path: Path, device: str) -> D3Policy:
    """The policy of a .d3 file. d3rlpy unpickles: only for trusted files.

    Raises:
        DyDiffError: without d3rlpy, or when it cannot read the file.
    """
    try:
        import d3rlpy
    except ImportError:
        raise DyDiffError(
            f"{path} is a pickle as d3rlpy writes it, and d3rlpy is not installed here.",
            "Install d3rlpy (it pins an older gymnasium: use its own environment), or save the policy "
            "there with algo.save_policy('policy.pt') and pass that TorchScript file.",
        ) from None
    try:
        return D3Policy(d3rlpy.load_learnable(str(path), device=device))
    except Exception as error:
        raise DyDiffError(
            f"d3rlpy cannot read {path}: {error}.", "Load and save it again with this d3rlpy."
        ) from error
