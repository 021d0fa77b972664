"""An empty picture, by matplotlib where it is installed."""

from __future__ import annotations

from typing import Any

from dydiff_env.errors import DyDiffError


def picture(width: float, height: float) -> tuple[Any, Any]:
    """A figure of that many inches, which ``figure.savefig(path)`` writes, and its axes. No window is opened.

    Raises:
        DyDiffError: without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DyDiffError("Plots need matplotlib.", 'pip install "dydiff-env[report]"') from error
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()
