"""Dream environments from logged data (Dynamics Diffusion)."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dydiff_env.envs.registration import register as _register_environment

if TYPE_CHECKING:
    from dydiff_env.agents.improve import improve
    from dydiff_env.data.minari_io import load_dataset
    from dydiff_env.data.trajectories import Trajectories
    from dydiff_env.errors import DyDiffError
    from dydiff_env.policies import load_policy
    from dydiff_env.synthesis.export import export
    from dydiff_env.world.world import World

if not (_here := Path(__file__).parent).joinpath("agents").is_dir():  # a checkout, where agents/ and cli/ lie beside this folder
    __path__.append(str(_here.parent))

__version__ = "0.1.0"
__all__ = ["DyDiffError", "Trajectories", "World", "__version__", "export", "improve", "load_dataset", "load_policy"]

# Imported on first use: `import dydiff_env` stays a matter of milliseconds, torch takes a second.
_HOMES = {
    "Trajectories": "dydiff_env.data.trajectories",
    "World": "dydiff_env.world.world",
    "DyDiffError": "dydiff_env.errors",
    "export": "dydiff_env.synthesis.export",
    "improve": "dydiff_env.agents.improve",
    "load_dataset": "dydiff_env.data.minari_io",
    "load_policy": "dydiff_env.policies",
}

_register_environment()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_HOMES))
