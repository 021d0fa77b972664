"""d3rlpy 2 checkpoints (.d3), through d3rlpy itself."""

from __future__ import annotations

from pathlib import Path

from dydiff_env.errors import DyDiffError
from dydiff_env.policies.function import FunctionPolicy


def load(path: Path, device: str) -> FunctionPolicy:
    """The policy of a .d3 file, its own scalers included. d3rlpy unpickles: only for trusted files.

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
        return FunctionPolicy(d3rlpy.load_learnable(str(path), device=device))
    except Exception as error:
        raise DyDiffError(
            f"d3rlpy cannot read {path}: {error}.", "Load and save it again with this d3rlpy."
        ) from error
