"""Which world an environment dreams in."""

from __future__ import annotations

import os
from pathlib import Path

import dydiff_env.embedded as embedded
from dydiff_env.errors import DyDiffError
from dydiff_env.world.world import World


def find_world(world: World | str | Path | None, device: str = "cpu", policy: object = None) -> World:
    """The world itself, the one at a path, or the one that is set up here.

    Args:
        world: a World, its folder, or None for ``$DYDIFF_ENV_WORLD``, else ``./world``, else the embedded maze.
        device: where a world that is loaded runs.
        policy: whom it is for. The policy called ``demo`` belongs to the embedded maze, whatever world is set up.

    Raises:
        DyDiffError: when it cannot be read.
    """
    if isinstance(world, World):
        return world
    if world is None and policy == embedded.NAME and not Path(embedded.NAME).is_file():
        world = embedded.WORLD
    if world is None:
        named = os.environ.get("DYDIFF_ENV_WORLD")
        if named and not Path(named).is_dir():
            raise DyDiffError(
                f"$DYDIFF_ENV_WORLD is {named}, which is no folder.",
                "Set it to a world, pass world=PATH, or unset it.",
            )
        world = named or ("world" if Path("world", "world.json").is_file() else embedded.WORLD)
    return World.load(world, device=device)
