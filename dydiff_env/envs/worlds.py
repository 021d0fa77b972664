"""Which world an environment dreams in."""

from __future__ import annotations

import os
from pathlib import Path

from dydiff_env.errors import DyDiffError
from dydiff_env.world.world import World


def find_world(world: World | str | Path | None, device: str = "cpu") -> World:
    """The world itself, the one at a path, or the one that is set up here.

    Args:
        world: a World, its folder, or None for ``$DYDIFF_ENV_WORLD``, else ``./world``.
        device: where a world that is loaded runs.

    Raises:
        DyDiffError: when there is none, or it cannot be read.
    """
    if isinstance(world, World):
        return world
    if world is None:
        world = os.environ.get("DYDIFF_ENV_WORLD") or "world"
        if not Path(world).is_dir():
            raise DyDiffError(
                f"No world was given, and {world} is not one.",
                "Pass world=PATH, set DYDIFF_ENV_WORLD, or make one: dydiff-env fit --dataset ID --out world.",
            )
    return World.load(world, device=device)
