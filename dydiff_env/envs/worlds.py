"""Which world to dream in, where the caller does not say."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import dydiff_env.embedded as embedded
from dydiff_env.data.dataset import DatasetSpec
from dydiff_env.errors import DyDiffError
from dydiff_env.policies.agent import read_checkpoint
from dydiff_env.policies.kinds import file_kind, names_code
from dydiff_env.world.world import World


class Trained(NamedTuple):
    """What a checkpoint of ours says."""

    world: str | None
    spec: DatasetSpec | None


def find_world(world: World | str | Path | None, device: str = "cpu", policy: object = None) -> World:
    """The world itself, the one at a path, or the one that is set up here; the embedded maze where there is none.

    Args:
        world: a World, its folder, or None for what :func:`world_set_up` finds.
        device: where a world that is loaded runs.
        policy: whom it is for.

    Raises:
        DyDiffError: when it cannot be read.
    """
    if isinstance(world, World):
        return world
    if world is None:
        named = str(policy) if isinstance(policy, str | Path) else None
        loaded = getattr(policy, "world", None)  # what its checkpoint named
        agent = Trained(loaded, None) if isinstance(loaded, str) else trained(named)
        world = world_set_up(agent) or embedded.WORLD
    return World.load(world, device=device)


def world_folder(policy: str | None, world: Path | None = None) -> Path:
    """The world folder to dream in: the given one, the one that is set up here, or the embedded one for an agent that it suits.

    Raises:
        DyDiffError: where there is none.
    """
    if world is not None:
        return world
    agent = trained(policy)
    found = world_set_up(agent)
    if found is not None:
        return found
    if agent is not None and agent.spec is not None and embedded.suits(agent.spec):
        return embedded.WORLD
    places = [f"{agent.world} (named in the checkpoint)"] if agent is not None and agent.world else []
    raise DyDiffError(
        f"No world found: looked at {', '.join([*places, '$DYDIFF_ENV_WORLD', './world'])}.",
        "Give --world WORLD; `dydiff-env fit` makes one.",
        usage=True,
    )


def world_set_up(agent: Trained | None) -> Path | None:
    """The world that a checkpoint names, else ``$DYDIFF_ENV_WORLD`` or ``./world``.

    Raises:
        DyDiffError: where the variable names no folder.
    """
    own = Path(agent.world).expanduser() if agent is not None and agent.world else None
    if own is not None and (own / "world.json").is_file():
        return own
    named = os.environ.get("DYDIFF_ENV_WORLD")
    named = os.path.expanduser(named) if named else None
    if named and not Path(named).is_dir():
        raise DyDiffError(
            f"$DYDIFF_ENV_WORLD is {named}, which is no folder.", "Set it to a world, name one, or unset it."
        )
    return Path(named) if named else Path("world") if Path("world", "world.json").is_file() else None


def trained(policy: str | None) -> Trained | None:
    """The world and spec that an agent checkpoint of ours names, if this is one, or the policy that ships with the package.

    Raises:
        DyDiffError: where the file is missing or damaged.
    """
    if policy is None or policy in ("random", "behavior"):
        return None
    path = Path(policy).expanduser()
    if policy == embedded.NAME and not path.is_file():
        return Trained(str(embedded.WORLD), embedded.spec())
    if (names_code(policy) and not path.is_file()) or file_kind(path) != "agent":
        return None
    checkpoint = read_checkpoint(path)
    return Trained(checkpoint.get("world"), DatasetSpec.from_json(checkpoint["spec"]))
